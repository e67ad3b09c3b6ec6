"""Lambda functions: the zip's bootstrap as a local process behind a one-shot Runtime API; and custom resources."""
import http.server
import io
import json
import os
import stat
import subprocess
import tempfile
import threading
import time
import uuid
import zipfile

import moto.cloudformation.parsing as cf
from moto.awslambda.models import LambdaFunction, lambda_backends
from moto.cloudformation.custom_model import CustomModel
from moto.cloudformation.exceptions import ValidationError

from connect import ENDPOINT, HOST

# --- 5. Lambda runs the zip's bootstrap behind a one-shot runtime API -----------------------
class Runtime(http.server.ThreadingHTTPServer):
    def __init__(self, arn, event, timeout):
        self.arn, self.event, self.deadline = arn, event, int((time.time() + timeout) * 1000)
        self.done, self.result, self.error, self.served = threading.Event(), "", False, False
        super().__init__((HOST, 0), RuntimeHandler)


class RuntimeHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.server.served:
            self.server.done.wait()
            return
        self.server.served = True
        body = self.server.event.encode()
        self.send_response(200)
        for k, v in {"Lambda-Runtime-Aws-Request-Id": str(uuid.uuid4()), "Lambda-Runtime-Deadline-Ms": str(self.server.deadline),
                     "Lambda-Runtime-Invoked-Function-Arn": self.server.arn, "Content-Length": str(len(body))}.items():
            self.send_header(k, v)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) if "Content-Length" in self.headers else self.chunks()
        self.server.result, self.server.error = body.decode(), self.path.endswith("error")
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.done.set()

    def chunks(self):
        out = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return out


unpacked = {}  # code's hash to the folder with it
unpacking = threading.Lock()


def folder_of(function):
    """Unpacks a function once, as Lambda does for an environment."""
    with unpacking:
        if function.code_sha_256 not in unpacked:
            task = tempfile.mkdtemp(prefix="function-")
            with zipfile.ZipFile(io.BytesIO(function.code_bytes)) as z:
                z.extractall(task)
            boot = os.path.join(task, "bootstrap")
            os.chmod(boot, os.stat(boot).st_mode | stat.S_IXUSR)
            unpacked[function.code_sha_256] = task
        return unpacked[function.code_sha_256]


def invoke_lambda(self, event=None):
    event = event if isinstance(event, str) else json.dumps(event or {})
    if not (self.run_time or "").startswith("provided"):
        return "{}", False, ""
    task = folder_of(self)
    boot = os.path.join(task, "bootstrap")
    timeout = int(self.timeout)
    rt = Runtime(self.function_arn, event, timeout)
    threading.Thread(target=rt.serve_forever, args=(0.02,), daemon=True).start()  # which is how long its shutdown takes
    env = {"PATH": os.environ["PATH"], "AWS_LAMBDA_RUNTIME_API": f"{HOST}:{rt.server_port}", "_HANDLER": self.handler, "LAMBDA_TASK_ROOT": task,
           "AWS_LAMBDA_FUNCTION_NAME": self.function_name, "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_size),
           "AWS_REGION": self.region, "AWS_ENDPOINT_URL": ENDPOINT, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
           **{k: str(v) for k, v in self.environment_vars.items()},
           **{k[len("EMULATOR_ENV_"):]: v for k, v in os.environ.items() if k.startswith("EMULATOR_ENV_")}}
    with tempfile.TemporaryFile("w+") as log:
        try:
            proc = subprocess.Popen([boot], env=env, cwd=task, stdout=log, stderr=log)
        except OSError as e:
            rt.shutdown()
            return json.dumps({"errorMessage": f"cannot run bootstrap: {e}"}), True, ""
        end = time.time() + timeout
        while not rt.done.wait(0.05) and proc.poll() is None and time.time() < end:
            pass
        finished = rt.done.is_set()
        proc.kill()
        proc.wait()
        rt.shutdown()
        log.seek(0)
        logs = log.read()
    self.logs_backend.ensure_log_group(self.logs_group_name)
    self.save_logs(logs)
    if not finished:
        return json.dumps({"errorMessage": "function exited or timed out", "log": logs[-2000:]}), True, logs
    return rt.result, rt.error, logs


LambdaFunction._invoke_lambda = invoke_lambda


def create_function(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
    spec = {**cloudformation_json["Properties"], "FunctionName": resource_name}
    if isinstance(spec.get("Tags"), list):
        spec["Tags"] = {t["Key"]: t["Value"] for t in spec["Tags"]}
    return lambda_backends[account_id][region_name].create_function(spec)


LambdaFunction.create_from_cloudformation_json = classmethod(create_function)


# --- 6. custom resources are synchronous, with Update and Delete ------------------------------------
class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_PUT(self):
        self.server.answer = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def send(request, props, region, account, **fields):
    fn = lambda_backends[account][region].get_function(props["ServiceToken"])
    if not fn.run_time.startswith("provided"):
        return {"Status": "SUCCESS", "Data": {}, "PhysicalResourceId": fields["LogicalResourceId"]}
    srv = http.server.ThreadingHTTPServer((HOST, 0), Answer)
    srv.answer = None
    threading.Thread(target=srv.serve_forever, daemon=True).start()
    event = {"RequestType": request, "RequestId": str(uuid.uuid4()), "ResponseURL": f"http://{HOST}:{srv.server_port}/", "ResourceProperties": props, **fields}
    result, failed, logs = fn._invoke_lambda(json.dumps(event))
    srv.shutdown()
    if srv.answer is None:
        raise ValidationError(message=f"{fields['LogicalResourceId']}: no answer from the custom resource: {result} {logs[-1500:]}")
    if srv.answer["Status"] != "SUCCESS":
        raise ValidationError(message=f"{fields['LogicalResourceId']}: {srv.answer.get('Reason')}")
    return srv.answer


def custom_create(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
    props = cloudformation_json.get("Properties", {})
    self = CustomModel(region_name, "", kwargs["LogicalId"], resource_name)
    self.fields = {"LogicalResourceId": kwargs["LogicalId"], "StackId": kwargs["StackId"], "ResourceType": kwargs["ResourceType"]}
    self.props = props
    answer = send("Create", props, region_name, account_id, **self.fields)
    self.resource_name = answer.get("PhysicalResourceId", resource_name)
    self.set_data(answer.get("Data") or {})
    return self


def custom_update(cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name):
    self, props = original_resource, cloudformation_json["Properties"]
    answer = send("Update", props, region_name, account_id, OldResourceProperties=self.props, PhysicalResourceId=self.resource_name, **self.fields)
    self.props = props
    self.set_data(answer.get("Data") or {})
    return self


def custom_delete(self, account_id, region_name):
    if self.__dict__.get("deleted"):
        return
    self.deleted = True
    send("Delete", self.props, region_name, account_id, PhysicalResourceId=self.resource_name, **self.fields)


CustomModel.create_from_cloudformation_json = classmethod(custom_create)
CustomModel.update_from_cloudformation_json = classmethod(custom_update)
CustomModel.delete = custom_delete
delete_resources = cf.ResourceMap.delete


def custom_resources_first(self):
    for r in list(self._parsed_resources.values()):
        if isinstance(r, CustomModel):
            r.delete(self._account_id, self._region_name)
    delete_resources(self)


cf.ResourceMap.delete = custom_resources_first

