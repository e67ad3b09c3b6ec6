"""Prints, one a line, whatever a removed stage must not leave. One process for all questions: the AWS CLI would start 30 times."""
import boto3
import jmespath

QUESTIONS = """
cloudformation list_stacks StackSummaries[?StackStatus!='DELETE_COMPLETE'].StackName
lambda list_functions Functions[].FunctionName
lambda list_event_source_mappings EventSourceMappings[].UUID
iam list_roles Roles[].RoleName
rds describe_db_instances DBInstances[].DBInstanceIdentifier
rds describe_db_snapshots DBSnapshots[].DBSnapshotIdentifier
kinesis list_streams StreamNames[]
events list_event_buses EventBuses[].Name
events list_archives Archives[].ArchiveName
events list_rules Rules[].Name
sqs list_queues QueueUrls[]
sns list_topics Topics[].TopicArn
secretsmanager list_secrets SecretList[].Name
cloudwatch describe_alarms MetricAlarms[].AlarmName
ec2 describe_vpcs Vpcs[].VpcId
ec2 describe_subnets Subnets[].SubnetId
ec2 describe_security_groups SecurityGroups[].GroupId
ec2 describe_vpc_endpoints VpcEndpoints[?State!='deleted'].VpcEndpointId
ec2 describe_internet_gateways InternetGateways[].InternetGatewayId
ec2 describe_route_tables RouteTables[].RouteTableId
apigateway get_rest_apis items[].name
logs describe_log_groups logGroups[].logGroupName
s3 list_buckets Buckets[].Name
ecs list_clusters clusterArns[]
ecr describe_repositories repositories[].repositoryName
dms describe_replication_instances ReplicationInstances[].ReplicationInstanceIdentifier
dms describe_endpoints Endpoints[].EndpointIdentifier
dms describe_replication_tasks ReplicationTasks[].ReplicationTaskIdentifier
"""
for question in QUESTIONS.strip().splitlines():
    service, call, path = question.split(" ", 2)
    for name in sorted(jmespath.search(path, getattr(boto3.client(service), call)()) or []):
        print(service, call, name)
