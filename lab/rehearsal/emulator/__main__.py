"""A moto server that can deploy this project's CloudFormation stacks: see ../README.md.

moto's CloudFormation skips or breaks on several resource types that the stacks use. The modules beside this one add them.
"""
import os

os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"  # the DMS script attaches AWS's own policies

from moto.server import main  # noqa: E402

import cloudformation  # noqa: E402, F401 (each patches moto when imported)
import functions  # noqa: E402, F401
import insights  # noqa: E402, F401
import resources  # noqa: E402, F401
import stream  # noqa: E402, F401
import tasks  # noqa: E402, F401
from connect import HOST, PORT  # noqa: E402

main(["-H", HOST, "-p", str(PORT)])
