"""Where the emulator listens, and a client of its own services."""
import os

import boto3
from botocore.config import Config

HOST, PORT = "127.0.0.1", int(os.environ.get("MOTO_PORT", "5599"))
ENDPOINT = f"http://{HOST}:{PORT}"


def client(service, region):
    return boto3.client(service, region_name=region, endpoint_url=ENDPOINT, aws_access_key_id="test",
                        aws_secret_access_key="test", config=Config(retries={"max_attempts": 0}))
