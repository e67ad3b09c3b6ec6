"""Resource types: repairs of moto's own, and further ones by way of moto's service APIs."""
import datetime
import json
import os
import sys
import uuid

import moto.cloudformation.parsing as cf
from moto.apigateway.models import Method, RestAPI, apigateway_backends
from moto.core.common_models import CloudFormationModel
from moto.dms.models import DatabaseMigrationServiceBackend, FakeReplicationTask
from moto.ec2.models import ec2_backends
from moto.ec2.models.internet_gateways import InternetGateway
from moto.ec2.models.route_tables import RouteTable
from moto.ec2.models.vpcs import VPCEndPoint
from moto.events.models import EventBus
from moto.rds.models import DBInstance, DBParameterGroup

from connect import client

# --- 3. RDS -----------------------------------------------------------------------------
DBParameterGroup.physical_resource_id = property(lambda self: self.name)  # what a Ref gives
RouteTable.delete = lambda self, account, region: ec2_backends[account][region].delete_route_table(self.id)
VPCEndPoint.delete = lambda self, account, region: ec2_backends[account][region].delete_vpc_endpoints([self.id])
RestAPI.delete = lambda self, account, region: apigateway_backends[account][region].delete_rest_api(self.id)
EventBus.physical_resource_id = property(lambda self: self.name)


def delete_gateway(self, account, region):
    if self.vpc:
        ec2_backends[account][region].detach_internet_gateway(self.id, self.vpc.id)
    ec2_backends[account][region].delete_internet_gateway(self.id)


InternetGateway.delete = delete_gateway
create_db = DBInstance.create_from_cloudformation_json.__func__


def create_db_instance(cls, resource_name, cloudformation_json, *args, **kwargs):
    p = cloudformation_json["Properties"]
    p.setdefault("Port", DBInstance.default_port(p["Engine"]))
    p["VpcSecurityGroupIds"] = p.get("VPCSecurityGroups", [])
    db = create_db(cls, resource_name, cloudformation_json, *args, **kwargs)
    return db


DBInstance.create_from_cloudformation_json = classmethod(create_db_instance)


# --- 3b. API Gateway methods: MOCK integrations (CORS), models and validators -----------------------
def create_method(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
    p = cloudformation_json["Properties"]
    i = p.get("Integration", {})
    backend = apigateway_backends[account_id][region_name]
    where = {"function_id": p["RestApiId"], "resource_id": p["ResourceId"], "method_type": p["HttpMethod"]}
    m = backend.put_method(**where, authorization_type=p["AuthorizationType"], api_key_required=p.get("ApiKeyRequired"),
                           request_models=p.get("RequestModels"), request_validator_id=p.get("RequestValidatorId"))
    backend.put_integration(**where, integration_type=i["Type"], uri=i.get("Uri", ""), integration_method=i.get("IntegrationHttpMethod"),
                            request_templates=i.get("RequestTemplates"), content_handling=i.get("ContentHandling"))
    for r in p.get("MethodResponses", []):
        m.create_response(r["StatusCode"], r.get("ResponseModels"), r.get("ResponseParameters"))
    for r in i.get("IntegrationResponses", []):
        backend.put_integration_response(**where, status_code=r["StatusCode"], selection_pattern=r.get("SelectionPattern"),
                                         response_templates=r.get("ResponseTemplates") or {}, response_parameters=r.get("ResponseParameters") or {}, content_handling=r.get("ContentHandling"))
    return m


Method.create_from_cloudformation_json = classmethod(create_method)

# --- 4. resource types backed by a service API -------------------------------------------
class ApiResource:
    def __init__(self, name, props, region):
        self.name, self.props, self.region = name, props, region
        self.response, self.physical = {}, name

    @property
    def physical_resource_id(self):
        return self.physical

    def get_cfn_attribute(self, attr):
        if attr in self.response:
            return self.response[attr]
        if attr in ("Arn", "Id", "Ref"):
            return self.physical
        return f"{self.physical}.{attr}"


def dig(doc, path):
    for part in path.split("."):
        doc = doc[part]
    return doc


def model(kind, service=None, create=None, result="", ref=None, delete=None, args=None, name_prop=""):
    """Registers a CloudFormation type. args(name, props) gives the create call's arguments."""

    def create_json(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        props = cloudformation_json["Properties"]
        self = cls(resource_name, props, region_name)
        if service:
            call = args(resource_name, props) if args else dict(props)
            call = {k: {"true": True, "false": False}.get(v, v) if isinstance(v, str) else v for k, v in call.items()}
            out = getattr(client(service, region_name), create)(**call)
            self.response = dig(out, result) if result else out
            self.physical = self.response[ref] if ref else resource_name
        return self

    def update_json(cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name):
        original_resource.props = cloudformation_json["Properties"]
        return original_resource

    def remove(self, account_id, region_name):
        if delete:
            op, call = delete
            getattr(client(service, region_name), op)(**call(self))

    return type(kind.replace("::", ""), (ApiResource, CloudFormationModel), {
        "cloudformation_type": staticmethod(lambda: kind),
        "cloudformation_name_type": staticmethod(lambda: name_prop),
        "has_cfn_attr": classmethod(lambda cls, attr: True),
        "create_from_cloudformation_json": classmethod(create_json),
        "update_from_cloudformation_json": classmethod(update_json),
        "delete_from_cloudformation_json": classmethod(lambda cls, *a, **k: None),
        "is_created": lambda self: True,
        "delete": remove,
    })


def secret(name, p):
    gen = p.get("GenerateSecretString")
    value = p.get("SecretString")
    if gen:
        doc = json.loads(gen.get("SecretStringTemplate", "{}"))
        # The database and its master user's password exist already. The stack does not make them.
        doc[gen["GenerateStringKey"]] = os.environ.get("EMULATOR_PASSWORD_" + doc.get("username", "")) or uuid.uuid4().hex
        value = json.dumps(doc)
    return {k: v for k, v in {"Name": name, "Description": p.get("Description"), "SecretString": value, "Tags": p.get("Tags")}.items() if v}


def dms_endpoint(name, p):
    p = dict(p)
    p.setdefault("EndpointIdentifier", name)
    if "PostgreSqlSettings" in p:  # the API spells it otherwise
        p["PostgreSQLSettings"] = p.pop("PostgreSqlSettings")
    if "Port" in p:
        p["Port"] = int(p["Port"])
    return p


create_task = DatabaseMigrationServiceBackend.create_replication_task
DatabaseMigrationServiceBackend.create_replication_task = lambda *args, **kwargs: create_task(*args, **kwargs).ready()  # moto stays at "creating"
describe_task = FakeReplicationTask.to_dict


def fail_once(self):
    """A start while there is a file EMULATOR_DMS_FAILURE fails, with the file's text as its reason."""
    file = os.environ.get("EMULATOR_DMS_FAILURE", "")
    self.status, self.failure = "running", ""
    if os.path.exists(file):
        with open(file) as text:
            self.status, self.failure = "failed", text.read().strip()
        os.remove(file)
    return self


def describe_failed_task(self):
    description = describe_task(self)
    for name, date in {"StartDate": self.start_date, "StopDate": self.stop_date}.items():
        if date:  # in AWS's form, which is seconds since 1970
            description["ReplicationTaskStats"][name] = date.replace(tzinfo=datetime.UTC).timestamp()
    if getattr(self, "failure", ""):
        description |= {"StopReason": "Stop Reason FATAL_ERROR", "LastFailureMessage": self.failure}
    return description


FakeReplicationTask.run = fail_once
FakeReplicationTask.to_dict = describe_failed_task
test_connection = DatabaseMigrationServiceBackend.test_connection


def test_connection_again(self, replication_instance_arn, endpoint_arn):  # a second test crashes in moto
    self.connections = [c for c in self.connections if (c.replication_instance_arn, c.endpoint_arn) != (replication_instance_arn, endpoint_arn)]
    return test_connection(self, replication_instance_arn, endpoint_arn)


DatabaseMigrationServiceBackend.test_connection = test_connection_again

MODELS = [
    model("AWS::SecretsManager::Secret", "secretsmanager", "create_secret", ref="ARN", args=secret, name_prop="Name",
          delete=("delete_secret", lambda r: {"SecretId": r.physical, "ForceDeleteWithoutRecovery": True})),
    model("AWS::S3::BucketPolicy"),  # recorded only: osls's policy denies plain HTTP
    model("AWS::SQS::QueuePolicy"),
    model("AWS::EventSchemas::Registry"),  # moto has no schema registry
    model("AWS::EventSchemas::Schema"),
    model("AWS::ApiGateway::Model", "apigateway", "create_model", ref="name",
          args=lambda n, p: {"restApiId": p["RestApiId"], "name": p.get("Name", n), "contentType": p["ContentType"], "schema": json.dumps(p["Schema"])}),
    model("AWS::ApiGateway::RequestValidator", "apigateway", "create_request_validator", ref="id",
          args=lambda n, p: {"restApiId": p["RestApiId"], "name": p.get("Name", n), "validateRequestBody": p.get("ValidateRequestBody", False), "validateRequestParameters": p.get("ValidateRequestParameters", False)}),
    model("AWS::CloudWatch::Alarm", "cloudwatch", "put_metric_alarm", name_prop="AlarmName",
          args=lambda n, p: {**p, "AlarmName": n},
          delete=("delete_alarms", lambda r: {"AlarmNames": [r.physical]})),
    model("AWS::RDS::DBProxy", "rds", "create_db_proxy", result="DBProxy", ref="DBProxyName",
          delete=("delete_db_proxy", lambda r: {"DBProxyName": r.physical})),
    model("AWS::DMS::ReplicationSubnetGroup", "dms", "create_replication_subnet_group", result="ReplicationSubnetGroup", ref="ReplicationSubnetGroupIdentifier",
          delete=("delete_replication_subnet_group", lambda r: {"ReplicationSubnetGroupIdentifier": r.physical})),
    model("AWS::DMS::ReplicationInstance", "dms", "create_replication_instance", result="ReplicationInstance", ref="ReplicationInstanceArn",
          delete=("delete_replication_instance", lambda r: {"ReplicationInstanceArn": r.physical})),
    model("AWS::DMS::Endpoint", "dms", "create_endpoint", result="Endpoint", ref="EndpointArn", args=dms_endpoint,
          delete=("delete_endpoint", lambda r: {"EndpointArn": r.physical})),
    model("AWS::DMS::ReplicationTask", "dms", "create_replication_task", result="ReplicationTask", ref="ReplicationTaskArn",
          delete=("delete_replication_task", lambda r: {"ReplicationTaskArn": r.physical})),
]

class_from_type = cf.resource_class_from_type
GENERIC = {}


def class_or_generic(kind):
    found = class_from_type(kind)
    if found is None and kind not in cf.NULL_MODELS:
        sys.stderr.write(f"emulator: {kind} is only recorded\n")
        found = GENERIC.setdefault(kind, model(kind))
    return found


cf.resource_class_from_type = class_or_generic
