"""ECS on Fargate: an image pulled from the local registry, whose programs run as local processes; and the log driver."""
import io
import json
import os
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.request

import moto.ecr.models as ecr
import moto.ecs.models as ecs
import moto.iam.models as iam
from moto.core.utils import pascal_to_camelcase, remap_nested_keys
from moto.logs.models import logs_backends

from connect import ENDPOINT

# --- 7. ECR, whose repository's address is that of the local registry ------------------------------------------
init_repository = ecr.Repository.__init__


def init_local(self, *args, **kwargs):
    init_repository(self, *args, **kwargs)
    self.uri = f"{os.environ['EMULATOR_REGISTRY']}/{self.name}"


ecr.Repository.__init__ = init_local
ecr.Repository.delete = lambda self, account, region: ecr.ecr_backends[account][region].repositories.pop(self.name, None)
iam.SERVICE_NAME_CONVERSION["ecs"] = "ECS"
pulled = {}  # image to (folder, configuration)


def pull(image):
    """Unpacks an image into a folder. Its digest must be in its name."""
    if image not in pulled:
        repository, digest = image.split("@")
        host, name = repository.split("/", 1)

        def get(kind, reference):
            request = urllib.request.Request(f"http://{host}/v2/{name}/{kind}/{reference}", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
            return urllib.request.urlopen(request).read()

        manifest = json.loads(get("manifests", digest))
        folder = tempfile.mkdtemp(prefix="image-", dir=os.environ["EMULATOR_IMAGES"])
        os.chmod(folder, 0o755)
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(get("blobs", layer["digest"]))) as archive:
                archive.extractall(folder, filter="data")
        pulled[image] = folder, json.loads(get("blobs", manifest["config"]["digest"]))["config"]
    return pulled[image]


# --- 8. task definitions, because moto's CloudFormation drops most of their properties -----------------------------------
def register(properties, account, region):
    p = remap_nested_keys(properties, pascal_to_camelcase)
    for container in p["containerDefinitions"]:  # moto adds up those of the containers only
        container |= {"cpu": int(p["cpu"]), "memory": int(p["memory"])}
    definition = ecs.ecs_backends[account][region].register_task_definition(
        family=p["family"], container_definitions=p["containerDefinitions"], cpu=p["cpu"], memory=p["memory"],
        requires_compatibilities=p["requiresCompatibilities"], task_role_arn=p["taskRoleArn"], execution_role_arn=p["executionRoleArn"])
    definition.network_mode = ""  # moto's network interfaces of tasks lack a name, outlive their tasks and keep the subnets
    return definition


def create_definition(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
    return register(cloudformation_json["Properties"], account_id, region_name)


def update_definition(cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name):
    return register(cloudformation_json["Properties"], account_id, region_name)


ecs.TaskDefinition.create_from_cloudformation_json = classmethod(create_definition)
ecs.TaskDefinition.update_from_cloudformation_json = classmethod(update_definition)
ecs.TaskDefinition.delete = lambda self, account, region: ecs.ecs_backends[account][region].deregister_task_definition(self.arn)
ecs.Cluster.delete = lambda self, account, region: ecs.ecs_backends[account][region].clusters.pop(self.name, None)


# --- 9. tasks ------------------------------------------------------------------------------------------------
class Process:
    """A task's only container."""

    def __init__(self, definition, task_id, region, account, command=None):
        container = definition.container_definitions[0]
        folder, config = pull(container["image"])
        program, *arguments = (container.get("entryPoint") or config["Entrypoint"]) + (command or [])
        environment = {v["name"]: v["value"] for v in container["environment"]}
        environment |= {"AWS_ENDPOINT_URL": ENDPOINT, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        # As for functions, the database is the local server, whatever endpoint the stack gives.
        environment |= {k[len("EMULATOR_ENV_"):]: v for k, v in os.environ.items() if k.startswith("EMULATOR_ENV_")}
        options = container["logConfiguration"]["options"]
        self.definition, self.stop_timeout, self.id = definition.arn, container.get("stopTimeout", 30), task_id
        self.process = subprocess.Popen([folder + program, *arguments], env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        logs, self.stream = logs_backends[account][region], f"{options['awslogs-stream-prefix']}/{container['name']}/{task_id}"
        group = options["awslogs-group"]
        logs.create_log_stream(group, self.stream)

        def drive():
            for line in self.process.stdout:
                text = line.decode().rstrip("\n")
                if text and group in logs.groups:  # CloudWatch refuses empty events
                    logs.put_log_events(group, self.stream, [{"timestamp": int(time.time() * 1000), "message": text}])

        self.driver = threading.Thread(target=drive, daemon=True)
        self.driver.start()

    def wait(self):
        code = self.process.wait()
        self.driver.join()
        return code if code >= 0 else 128 - code

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(self.stop_timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return self.wait()


run_task = ecs.EC2ContainerServiceBackend.run_task


def run_to_the_end(self, *args, **kwargs):
    tasks = run_task(self, *args, **kwargs)
    for task in tasks:
        override = (task.overrides.get("containerOverrides") or [{}])[0]
        process = Process(self.describe_task_definition(task.task_definition_arn), task.id, self.region_name, self.account_id, override.get("command"))
        task.containers[0].exitCode = process.wait()
        task._transitions, task.last_status, task.stopped_reason = [], "STOPPED", "Essential container in task exited"
    return tasks


ecs.EC2ContainerServiceBackend.run_task = run_to_the_end

# --- 10. services, with as many tasks of the newest definition as are desired ------------------------------------------
running = {}  # service's ARN to its processes
reconciling = threading.Lock()


def reconcile(service, backend):
    with reconciling:
        definition = backend.describe_task_definition(service.task_definition)
        wanted = service.desired_count if service.status == "ACTIVE" else 0
        alive = [p for p in running.get(service.arn, []) if p.process.poll() is None]
        # The new ones first, because at least 100 percent must be healthy.
        kept = [p for p in alive if p.definition == definition.arn][:wanted]
        old = [p for p in alive if p not in kept]
        for n in range(wanted - len(kept)):
            kept.append(Process(definition, f"{time.time_ns():x}", backend.region_name, backend.account_id))
        for process in old:
            process.stop()
        running[service.arn] = kept
        service.running_count, service.pending_count = len(kept), 0
        for deployment in service.deployments:
            deployment |= {"desiredCount": wanted, "runningCount": len(kept), "pendingCount": 0, "rolloutState": "COMPLETED"}
    return service


def reconciled(name):
    change = getattr(ecs.EC2ContainerServiceBackend, name)
    setattr(ecs.EC2ContainerServiceBackend, name, lambda self, *args, **kwargs: reconcile(change(self, *args, **kwargs), self))


for name in ("create_service", "update_service", "delete_service"):
    reconciled(name)


list_tasks = ecs.EC2ContainerServiceBackend.list_tasks


class Listed:
    """What moto's answer to ListTasks reads."""

    def __init__(self, arn):
        self.task_arn = arn


def list_running(self, cluster, instance, family, started_by, service_name, status):  # moto runs no tasks of a service
    if not service_name:
        return list_tasks(self, cluster, instance, family, started_by, service_name, status)
    return [Listed(f"arn:aws:ecs:{self.region_name}:{self.account_id}:task/{p.id}")
            for arn, processes in running.items() if arn.endswith(f"/{service_name}") for p in processes if p.process.poll() is None]


ecs.EC2ContainerServiceBackend.list_tasks = list_running


def delete_service(self, account, region):  # its cluster may be gone already
    for process in running.pop(self.arn, []):
        process.stop()
    ecs.ecs_backends[account][region].services.pop(f"{self.cluster_name}:{self.name}", None)


ecs.Service.delete = delete_service
