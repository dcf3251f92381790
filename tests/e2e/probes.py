"""Calls that show whether a role may make them, and that change nothing.

Each names an action and a resource as `jobplane.reference.grants` writes them. A granted call
would do harm if it were valid, so most are not: authorisation comes before everything else, and
what an authorised call is answered with shows that it was let through.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from jobplane.reference.grants import Grant
from jobplane.tree.names import Names

DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError"})
DONE = "done"
# One key is enough for a bucket that no other service uses.
PREFIXES = {
    "FilesBucket": (
        "uploads",
        "payloads",
        "results",
        "results/requests",
        "reports",
        "jobs",
        "inbox",
        "inbox-refused",
        "attachments",
        "elsewhere",
    )  # fmt: skip
}
NOBODYS = "00000000-0000-0000-0000-000000000000"

type Clients = Callable[[str], Any]
"""A service's client, with the credentials under test."""


@dataclass(frozen=True)
class Probe:
    """One call of a role."""

    action: str
    resource: str
    service: str
    method: str
    parameters: Mapping[str, Any]
    says: frozenset[str]
    """What an authorised caller may be answered: `done`, or an error's code."""

    def is_granted(self, grants: list[Grant]) -> bool:
        return any(grant.covers(self.action, self.resource) for grant in grants)

    def answer(self, clients: Clients) -> str:
        """`done`, or the error's code."""
        try:
            getattr(clients(self.service), self.method)(**self.parameters)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return DONE

    def __str__(self) -> str:
        return f"{self.action} on {self.resource}"


@dataclass(frozen=True)
class Stack:
    """The stack's resources that can be called."""

    template: Mapping[str, Any]
    names: Names
    physical: Mapping[str, str]
    """Physical ids by logical id; of `<table>/stream` the ARN, of `<table>/iterator` its end."""
    endpoint_url: str
    account: str
    region: str

    def of_type(self, kind: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Logical id, physical id and properties of the resources of a type."""
        for logical, resource in self.template["Resources"].items():
            if resource["Type"] == kind:
                yield logical, self.physical[logical], resource.get("Properties", {})


class Target:
    """Makes the probes of one resource: `target("GetItem", "get_item", Key=…)`."""

    def __init__(self, service: str, resource: str, client: str = "", **common: Any) -> None:
        self.service = service
        self.resource = resource
        self.client = client or service
        self.common = common

    def __call__(self, action: str, method: str, *says: str, **parameters: Any) -> Probe:
        given, possible = {**self.common, **parameters}, frozenset(says or {DONE})
        name = f"{self.service}:{action}"
        return Probe(name, self.resource, self.client, method, given, possible)


def probes(stack: Stack, grants: list[Grant]) -> Iterator[Probe]:
    """Every call of the catalogue, on the stack's resources and on others."""
    for logical, name, properties in stack.of_type("AWS::DynamoDB::Table"):
        yield from of_table(logical, name, properties)
        if "StreamSpecification" in properties:
            yield from of_stream(logical, stack)
    for logical, name, _ in stack.of_type("AWS::S3::Bucket"):
        yield from of_bucket(logical, name)
    for logical, url, _ in stack.of_type("AWS::SQS::Queue"):
        yield from of_queue(logical, url)
    for pattern in sorted({g.resource for g in grants if g.resource.startswith("sqs:")}):
        yield from of_queue_on_demand(pattern.replace("*", "probe"), stack)
    yield from of_queue_on_demand("sqs:{service}-{stage}-neighbour", stack)
    yield from of_parameters(stack)
    for logical, name, properties in stack.of_type("AWS::Lambda::Function"):
        yield from of_function(logical, name)
        yield from of_log_group(f"/aws/lambda/{name}", stack)
        yield from of_role(properties["Role"]["Fn::GetAtt"][0], stack)
    for logical, arn, _ in stack.of_type("AWS::StepFunctions::StateMachine"):
        yield from of_state_machine(logical, arn, stack)
    for logical, _, _ in stack.of_type("AWS::ApiGatewayV2::Api"):
        yield from of_connections(logical, stack)
    yield from of_the_account(stack)


def of_table(logical: str, name: str, properties: Mapping[str, Any]) -> Iterator[Probe]:
    kinds = {a["AttributeName"]: a["AttributeType"] for a in properties["AttributeDefinitions"]}

    def value(attribute: str) -> dict[str, str]:
        return {"N": "0"} if kinds[attribute] == "N" else {"S": NOBODYS}

    def condition(schema: list[dict[str, str]]) -> dict[str, Any]:
        attribute = schema[0]["AttributeName"]
        return {
            "KeyConditionExpression": "#k = :k",
            "ExpressionAttributeNames": {"#k": attribute},
            "ExpressionAttributeValues": {":k": value(attribute)},
        }

    schema = properties["KeySchema"]
    key = {part["AttributeName"]: value(part["AttributeName"]) for part in schema}
    # The condition requires a row, which does not exist: nothing is written.
    names = {"#k": schema[0]["AttributeName"]}
    absent = {"ConditionExpression": "attribute_exists(#k)", "ExpressionAttributeNames": names}
    refused = "ConditionalCheckFailedException"
    table = Target("dynamodb", logical, TableName=name)
    yield table("GetItem", "get_item", Key=key)
    yield table("PutItem", "put_item", refused, Item=key, **absent)
    update = {"Key": key, "UpdateExpression": "REMOVE probed", **absent}
    yield table("UpdateItem", "update_item", refused, **update)
    yield table("DeleteItem", "delete_item", refused, Key=key, **absent)
    yield table("Query", "query", **condition(schema))
    yield table("Scan", "scan", Limit=1)
    yield table("DescribeTable", "describe_table")
    yield table("DeleteTable", "delete_table")
    batch = Target("dynamodb", logical)
    yield batch("BatchGetItem", "batch_get_item", RequestItems={name: {"Keys": [key]}})
    check = [{"ConditionCheck": {"TableName": name, "Key": key, **absent}}]
    cancelled = "TransactionCanceledException"
    yield batch("ConditionCheckItem", "transact_write_items", cancelled, TransactItems=check)
    put = {"PutRequest": {"Item": key}}
    yield batch("BatchWriteItem", "batch_write_item", RequestItems={name: [put]})
    for index in properties.get("GlobalSecondaryIndexes", ()):
        called = index["IndexName"]
        of_index = Target("dynamodb", f"{logical}/index/{called}", TableName=name, IndexName=called)
        yield of_index("Query", "query", **condition(index["KeySchema"]))
        yield of_index("Scan", "scan", Limit=1)


def of_stream(logical: str, stack: Stack) -> Iterator[Probe]:
    arn, iterator = stack.physical[f"{logical}/stream"], stack.physical[f"{logical}/iterator"]
    stream = Target("dynamodb", f"{logical}/stream", "dynamodbstreams")
    yield stream("DescribeStream", "describe_stream", StreamArn=arn)
    shard = {"StreamArn": arn, "ShardId": f"shardId-{NOBODYS}", "ShardIteratorType": "LATEST"}
    yield stream("GetShardIterator", "get_shard_iterator", "ResourceNotFoundException", **shard)
    yield stream("GetRecords", "get_records", ShardIterator=iterator, Limit=1)


def of_bucket(logical: str, name: str) -> Iterator[Probe]:
    bucket = Target("s3", logical, Bucket=name)
    yield bucket("ListBucket", "list_objects_v2", MaxKeys=1)
    yield bucket("ListBucketMultipartUploads", "list_multipart_uploads")
    yield bucket("GetBucketPolicy", "get_bucket_policy")
    yield bucket("PutBucketPolicy", "put_bucket_policy", Policy="{}")
    yield bucket("DeleteBucket", "delete_bucket")
    for prefix in PREFIXES.get(logical, ("any",)):
        key = f"{prefix}/{NOBODYS}"
        place = Target("s3", f"{logical}/{key}", Bucket=name, Key=key)
        yield place("GetObject", "get_object", "NoSuchKey")
        # A digest that no content has: refused before anything is stored.
        yield place("PutObject", "put_object", "BadDigest", Body=b"x", ContentMD5="A" * 22 + "==")
        yield place("PutObjectAcl", "put_object_acl", ACL="private")
        yield place("DeleteObject", "delete_object")
        unknown = ("NoSuchUpload",)
        yield place("AbortMultipartUpload", "abort_multipart_upload", *unknown, UploadId=NOBODYS)
        yield place("ListMultipartUploadParts", "list_parts", *unknown, UploadId=NOBODYS)


def of_queue(logical: str, url: str) -> Iterator[Probe]:
    queue = Target("sqs", logical, QueueUrl=url)
    handle = {"ReceiptHandle": NOBODYS}
    hidden: dict[str, Any] = handle | {"VisibilityTimeout": -1}
    unchanged = ("InvalidParameterValue", "ReceiptHandleIsInvalid")
    yield queue("SendMessage", "send_message", "InvalidMessageContents", MessageBody="\0")
    yield queue("ReceiveMessage", "receive_message", "InvalidParameterValue", MaxNumberOfMessages=0)
    yield queue("DeleteMessage", "delete_message", "ReceiptHandleIsInvalid", **handle)
    yield queue("ChangeMessageVisibility", "change_message_visibility", *unchanged, **hidden)
    yield queue("GetQueueAttributes", "get_queue_attributes")
    yield queue("SetQueueAttributes", "set_queue_attributes", Attributes={"DelaySeconds": "-1"})
    yield queue("PurgeQueue", "purge_queue")
    yield queue("DeleteQueue", "delete_queue")


def of_queue_on_demand(resource: str, stack: Stack) -> Iterator[Probe]:
    """A queue that does not exist, by its name."""
    name = filled(resource.removeprefix("sqs:"), stack)
    url = f"{stack.endpoint_url}/{stack.account}/{name}"
    missing = "AWS.SimpleQueueService.NonExistentQueue"
    queue = Target("sqs", resource)
    invalid = {"VisibilityTimeout": "-1"}
    create = {"QueueName": name, "Attributes": invalid}
    yield queue("CreateQueue", "create_queue", "InvalidAttributeValue", **create)
    yield queue("GetQueueUrl", "get_queue_url", missing, "QueueDoesNotExist", QueueName=name)
    yield queue("SendMessage", "send_message", missing, QueueUrl=url, MessageBody="probe")
    yield queue("ReceiveMessage", "receive_message", missing, QueueUrl=url)


def filled(text: str, stack: Stack) -> str:
    """A name as in the grants, with the service and the stage of this stack."""
    names = stack.names
    return text.replace("{service}", names.service).replace("{stage}", names.stage)


def of_parameters(stack: Stack) -> Iterator[Probe]:
    for stage, name in (("{stage}", "webhooks/x"), ("{stage}", "jwt-secret"), ("x", "webhooks/x")):
        path = f"/{{service}}/{stage}/{name}"
        parameter = Target("ssm", f"ssm:parameter{path}", Name=filled(path, stack))
        yield parameter(
            "GetParameter", "get_parameter", DONE, "ParameterNotFound", WithDecryption=True
        )
        yield parameter("PutParameter", "put_parameter", Value="x", Type="String")


def of_function(logical: str, name: str) -> Iterator[Probe]:
    function = Target("lambda", logical, FunctionName=name)
    yield function("InvokeFunction", "invoke", InvocationType="DryRun")
    yield function("GetFunction", "get_function")
    yield function("UpdateFunctionCode", "update_function_code", ZipFile=b"", DryRun=True)


def of_log_group(name: str, stack: Stack) -> Iterator[Probe]:
    resource = name.replace(stack.names.prefix, "{service}-{stage}-")
    group = Target("logs", f"logs:log-group:{resource}:*", logGroupName=name)
    exists = "ResourceAlreadyExistsException"
    yield group("CreateLogStream", "create_log_stream", DONE, exists, logStreamName="probe")
    put = {"logStreamName": NOBODYS, "logEvents": [{"timestamp": 0, "message": "probe"}]}
    yield group("PutLogEvents", "put_log_events", "ResourceNotFoundException", **put)
    yield group("FilterLogEvents", "filter_log_events", limit=1)
    yield group("DeleteLogGroup", "delete_log_group")


def of_role(logical: str, stack: Stack) -> Iterator[Probe]:
    name = stack.physical[logical]
    policy = {"PolicyName": "probe", "PolicyDocument": "{}"}
    yield Target("iam", logical, RoleName=name)("PutRolePolicy", "put_role_policy", **policy)
    arn = f"arn:aws:iam::{stack.account}:role/{name}"
    yield Target("sts", logical, RoleArn=arn)("AssumeRole", "assume_role", RoleSessionName="probe")


def of_state_machine(logical: str, arn: str, stack: Stack) -> Iterator[Probe]:
    machine = Target("states", logical, "stepfunctions")
    once = {"stateMachineArn": arn, "name": "probe", "input": "{}"}
    yield machine("StartExecution", "start_execution", DONE, "ExecutionAlreadyExists", **once)
    yield machine("DescribeStateMachine", "describe_state_machine", stateMachineArn=arn)
    name = arn.rpartition(":")[2].replace(stack.names.prefix, "{service}-{stage}-")
    running = f"{arn.replace(':stateMachine:', ':execution:')}:{NOBODYS}"
    resource = f"states:execution:{name}:{NOBODYS}"
    execution = Target("states", resource, "stepfunctions", executionArn=running)
    missing = "ExecutionDoesNotExist"
    yield execution("DescribeExecution", "describe_execution", missing)
    yield execution("GetExecutionHistory", "get_execution_history", missing)
    yield execution("StopExecution", "stop_execution", missing)
    yield machine("SendTaskSuccess", "send_task_success", taskToken=NOBODYS, output="{}")


def of_connections(logical: str, stack: Stack) -> Iterator[Probe]:
    calls = {"POST": "post_to_connection", "GET": "get_connection", "DELETE": "delete_connection"}
    for method, call in calls.items():
        resource = f"execute-api:{logical}/{{stage}}/{method}/@connections/{NOBODYS}"
        client = f"apigatewaymanagementapi {stack.physical[logical]}"
        connection = Target("execute-api", resource, client, ConnectionId=NOBODYS)
        data = {"Data": b"x"} if method == "POST" else {}
        yield connection("ManageConnections", call, "GoneException", **data)


def of_the_account(stack: Stack) -> Iterator[Probe]:
    """Calls that no function needs."""
    name = stack.names.stack
    topic = f"arn:aws:sns:{stack.region}:{stack.account}:{name}-alarms"

    def call(action: str, method: str, /, client: str = "", **parameters: Any) -> Probe:
        service, _, operation = action.partition(":")
        return Target(service, "the account", client)(operation, method, **parameters)

    yield call("cloudformation:DescribeStacks", "describe_stacks", StackName=name)
    yield call("cloudformation:DeleteStack", "delete_stack", StackName=f"{name}-x")
    yield call("dynamodb:ListTables", "list_tables")
    yield call("events:PutEvents", "put_events", Entries=[{"Source": "aws.states"}])
    yield call("iam:ListRoles", "list_roles")
    yield call("lambda:ListFunctions", "list_functions")
    yield call("s3:ListAllMyBuckets", "list_buckets")
    yield call("secretsmanager:GetSecretValue", "get_secret_value", SecretId="x")
    yield call("sns:Publish", "publish", TopicArn=topic, Message="probe")
    yield call("sqs:ListQueues", "list_queues")
    yield call("ssm:DescribeParameters", "describe_parameters")
    yield call("ssm:GetParametersByPath", "get_parameters_by_path", Path="/jobplane")
