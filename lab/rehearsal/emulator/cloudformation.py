"""CloudFormation's engine: what moto's lacks or does otherwise."""
import json
import re
import traceback
import uuid

import moto.cloudformation.models as cf_models
import moto.cloudformation.parsing as cf
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult
from moto.logs.models import logs_backends

from connect import client

# --- 1. ValidateTemplate, which rejects errors and not cfn-lint's warnings -------------------
lint = cf_models.validate_template_cfn_lint
cf_models.validate_template_cfn_lint = lambda t: [m for m in lint(t) if m.rule.id.startswith("E")]

# --- 2. dynamic references -----------------------------------------------------------
REF = re.compile(r"\{\{resolve:secretsmanager:(.+?):SecretString:([^:}]+)(?::[^}]*)?\}\}")


def resolve(value, region):
    if isinstance(value, dict):
        return {k: resolve(v, region) for k, v in value.items()}
    if isinstance(value, list):
        return [resolve(v, region) for v in value]
    if isinstance(value, str) and "{{resolve:" in value:
        def sub(m):
            s = client("secretsmanager", region).get_secret_value(SecretId=m[1])["SecretString"]
            return json.loads(s)[m[2]]
        return REF.sub(sub, value)
    return value


# --- 2b. Fn::Sub: "${Database.Endpoint.Address}" --------------------------------------------
clean_json = cf.clean_json


def clean_long_attributes(value, resources_map):
    if isinstance(value, dict) and isinstance(value.get("Fn::GetAtt"), list):
        logical_id, *attribute = value["Fn::GetAtt"]
        value = {"Fn::GetAtt": [logical_id, ".".join(attribute)]}
    return clean_json(value, resources_map)


cf.clean_json = clean_long_attributes
parse_resource = cf.parse_resource


def parse_resource_resolved(resource_json, resources_map):
    parsed = parse_resource(resource_json, resources_map)
    if not parsed:
        return parsed
    cls, body, kind = parsed
    return cls, resolve(body, resources_map._region_name), kind


cf.parse_resource = parse_resource_resolved

# --- 2c. generated names that fit the type ----------------------------------------------------
generate_name = cf.generate_resource_name


def generate_fitting_name(resource_type, stack_name, logical_id):
    name = generate_name(resource_type, stack_name, logical_id)
    if resource_type == "AWS::Events::Archive":  # at most 48 characters
        name = f"{name[:35]}{name[-13:]}"
    return name


cf.generate_resource_name = generate_fitting_name


# --- 3c. a failed change set answers 400 (the SDKs retry a 500 and then see success) ----------------
execute = cf_models.CloudFormationBackend.execute_change_set


def execute_change_set(self, change_set_name, stack_name=None):
    change_set = self.describe_change_set(change_set_name)
    stack = self.stacks[change_set.stack_id]
    try:
        execute(self, change_set_name, stack_name)
        stack.parameters = change_set.parameters
        stack._parse_template()  # moto keeps the outputs of the first template, and no exports
        stack.output_map = stack._create_output_map()
        self.exports.update({e.name: e for e in stack.exports})
    except Exception as e:
        traceback.print_exc()
        stack.status = "UPDATE_ROLLBACK_COMPLETE"
        stack._add_stack_event("UPDATE_ROLLBACK_COMPLETE", resource_status_reason=str(e))
        raise ValidationError(message=f"{type(e).__name__}: {e}") from e


cf_models.CloudFormationBackend.execute_change_set = execute_change_set
# A parameter that is left to its default and then to its previous value has not changed.
cf_models.Stack.has_parameters = lambda self, others: all(self.parameters.get(k, self.stack_parameters.get(k)) == v for k, v in others.items())


# --- 3c'. a change set with a log group that somebody else has made fails early, and only DescribeEvents says why -------------------
create_cs = cf_models.CloudFormationBackend.create_change_set
refused = {}  # stack's name to the events of its failed change sets


def create_valid_change_set(self, *args, **kwargs):
    ids = create_cs(self, *args, **kwargs)
    change_set = self.change_sets[ids[0]]
    groups = logs_backends[self.account_id][self.region_name].groups
    made = change_set.stack.template_dict.get("Resources", {})
    for name, resource in change_set.template_dict["Resources"].items():
        group = resource.get("Properties", {}).get("LogGroupName")
        if name not in made and resource["Type"] == "AWS::Logs::LogGroup" and isinstance(group, str) and group in groups:
            change_set.status, change_set.execution_status = "FAILED", "UNAVAILABLE"
            change_set.status_reason = "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]."
            refused.setdefault(change_set.stack.name, []).append({
                "EventId": str(uuid.uuid4()), "EventType": "VALIDATION_ERROR", "LogicalResourceId": name,
                "ValidationStatusReason": f"Resource of type 'AWS::Logs::LogGroup' with identifier '{group}' already exists."})
    return ids


cf_models.CloudFormationBackend.create_change_set = create_valid_change_set
CloudFormationResponse.describe_events = lambda self: ActionResult({"OperationEvents": refused.get(self._get_param("StackName"), [])})
delete_cs = cf_models.CloudFormationBackend.delete_change_set


def delete_change_set(self, change_set_name):  # deleting an absent one is fine in AWS, a crash in moto
    if change_set_name in self.change_sets or any(c.change_set_name == change_set_name for c in self.change_sets.values()):
        delete_cs(self, change_set_name)


cf_models.CloudFormationBackend.delete_change_set = delete_change_set


# --- 3d. UpdateTerminationProtection (osls's provider.deletionProtection) ----------------------------
def update_termination_protection(self):
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    stack.enable_termination_protection = self._get_bool_param("EnableTerminationProtection")
    return ActionResult({"StackId": stack.stack_id})


CloudFormationResponse.update_termination_protection = update_termination_protection
delete_stack = cf_models.CloudFormationBackend.delete_stack


def delete_unprotected(self, name_or_stack_id):
    stack = self.get_stack(name_or_stack_id)
    if stack.enable_termination_protection:
        raise ValidationError(message=f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled")
    return delete_stack(self, name_or_stack_id)


cf_models.CloudFormationBackend.delete_stack = delete_unprotected


update_resource = cf.parse_and_update_resource


def update_or_keep(logical_id, resource_json, resources_map, account_id, region_name):
    """moto forgets a resource whose type it cannot update."""
    return update_resource(logical_id, resource_json, resources_map, account_id, region_name) or resources_map[logical_id]


cf.parse_and_update_resource = update_or_keep


# --- a deleted stack has no resources, which moto would make anew to show them -----------------------------
delete_resources = cf_models.Stack.delete


def delete_for_good(self):
    delete_resources(self)
    self.resource_map._resource_json_map = {}
    self.output_map._output_json_map = {}


cf_models.Stack.delete = delete_for_good


# --- an update also makes what a condition held back, and updates services whose task definition is a new one -------
update_map = cf.ResourceMap.update


def update_with_dependents(self, template, parameters=None):
    update_map(self, template, parameters)
    for name, resource in template["Resources"].items():
        if self._parsed_resources.get(name) is None:
            self[name]
        elif resource["Type"] == "AWS::ECS::Service":
            self._parsed_resources[name] = cf.parse_and_update_resource(
                name, resource, self, account_id=self._account_id, region_name=self._region_name)


cf.ResourceMap.update = update_with_dependents
