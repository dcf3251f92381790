"""IAM actions and operations: one table for `check` and for the cut SDK."""

import pytest
from botocore import xform_name

from jobplane.rules.permissions import is_service, operation
from lambdapack.thinning import iam
from lambdapack.thinning.sdk import Grants

KNOWN = [(folder, name) for folder, names in iam.ACTIONS.items() for name in names]


@pytest.mark.parametrize(("folder", "name"), KNOWN, ids="-".join)
def test_botocore_has_every_operation_of_the_table(folder: str, name: str) -> None:
    assert is_service(folder)
    assert operation(folder, xform_name(name)) == name


@pytest.mark.parametrize("action", sorted({*iam.IN_SOME_FORMS, *iam.ITEM_ACTIONS.values()}))
def test_botocore_has_the_operations_of_special_actions(action: str) -> None:
    prefix = action.partition(":")[0]
    services = [each for each in iam.services() if prefix in iam.prefixes_of(each)]
    for name in iam.ALSO_ALLOWED[action]:
        assert any(operation(service, xform_name(name)) for service in services)


@pytest.mark.parametrize(("folder", "name"), KNOWN, ids="-".join)
def test_the_action_that_check_demands_ships_the_operation(folder: str, name: str) -> None:
    for action in iam.ACTIONS[folder][name]:
        grants = Grants("f", (action,))
        assert folder in grants.services([folder, "ec2"])
        assert name in grants.operations(folder, iam.prefix_of(folder), [name, "Another"])


CALLS = {
    "bedrock:InvokeModel": ("bedrock-runtime.InvokeModel", "bedrock-runtime.Converse"),
    "bedrock:invokemodelwithresponsestream": ("bedrock-runtime.ConverseStream",),
    "bedrock:Retrieve": ("bedrock-agent-runtime.Retrieve",),
    "ses:SendEmail": ("ses.SendEmail", "sesv2.SendEmail"),
    "ses:SendRawEmail": ("ses.SendRawEmail", "sesv2.SendEmail"),
    "iot:Publish": ("iot-data.Publish",),
    "sagemaker:InvokeEndpoint": ("sagemaker-runtime.InvokeEndpoint",),
    "appconfig:GetLatestConfiguration": ("appconfigdata.GetLatestConfiguration",),
    "timestream:WriteRecords": ("timestream-write.WriteRecords",),
    "timestream:Select": ("timestream-query.Query",),
    "neptune-graph:ReadDataViaQuery": ("neptune-graph.ExecuteQuery",),
    "s3:GetObjectVersionTagging": ("s3.GetObjectTagging",),
    "s3-outposts:GetObject": ("s3.GetObject",),
    "SNS:Publish": ("sns.Publish", "sns.PublishBatch"),
    "sqs:Send*": ("sqs.SendMessage", "sqs.SendMessageBatch"),
    "firehose:PutRecord": ("firehose.PutRecordBatch",),
    "secretsmanager:GetSecretValue": ("secretsmanager.BatchGetSecretValue",),
    "apigateway:GET": ("apigateway.GetRestApis", "apigatewayv2.GetApis"),
    "tag:GetResources": ("resourcegroupstaggingapi.GetResources",),
    "s3express:CreateSession": ("s3.PutObject",),
    "*": ("ec2.RunInstances", "dynamodb.GetItem"),
    "*:*": ("ec2.RunInstances", "dynamodb.GetItem"),
}


@pytest.mark.parametrize("action", CALLS)
def test_an_action_ships_the_operations_that_it_authorises(action: str) -> None:
    """In any case, and also of another service than its prefix."""
    grants = Grants("f", (action,))
    services = grants.services(iam.services())
    for call in CALLS[action]:
        service, name = call.split(".")
        assert name in grants.operations(service, services[service], iam.operations_of(service))


@pytest.mark.parametrize("action", ["kafka-cluster:Connect", "iam:PassRole", "made-up:Call"])
def test_an_action_without_an_operation_ships_at_most_a_client(action: str) -> None:
    grants = Grants("f", (action,))
    for service, prefix in grants.services(iam.services()).items():
        assert not grants.operations(service, prefix, iam.operations_of(service))


def test_a_named_service_ships_whole() -> None:
    """Whatever the statements are."""
    grants = Grants("f", ("s3:GetObject",), ("bedrock-runtime",))
    assert sorted(grants.services(iam.services())) == ["bedrock-runtime", "s3"]
    operations = iam.operations_of("bedrock-runtime")
    assert grants.operations("bedrock-runtime", "bedrock", operations) == set(operations)
