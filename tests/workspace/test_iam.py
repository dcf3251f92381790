"""What IAM authorises: one table for `check` and the cut SDK, of names that botocore has."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
from botocore import xform_name

from jobplane.rules.permissions import is_service, operation
from lambdapack.thinning import iam
from lambdapack.thinning.sdk import Grants

KNOWN = [(folder, name) for folder, names in iam.ACTIONS.items() for name in names]


@pytest.mark.parametrize(("folder", "name"), KNOWN, ids="-".join)
def test_botocore_has_the_operation(folder: str, name: str) -> None:
    """A service and an operation of that name."""
    assert is_service(folder)
    assert operation(folder, xform_name(name)) == name


@pytest.mark.parametrize("action", sorted({*iam.IN_SOME_FORMS, *iam.ITEM_ACTIONS.values()}))
def test_botocore_has_what_actions_allow_in_some_forms(action: str) -> None:
    """Each is an operation of one of the services under the action's prefix."""
    prefix = action.partition(":")[0]
    services = [each for each in iam.services() if prefix in iam.prefixes_of(each)]
    for name in iam.ALSO_ALLOWED[action]:
        assert any(operation(service, xform_name(name)) for service in services)


@pytest.mark.parametrize(("folder", "name"), KNOWN, ids="-".join)
def test_what_check_asks_for_ships_the_operation(folder: str, name: str) -> None:
    """Whoever grants what `check` says of an operation has it in the artifact."""
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
def test_an_action_brings_what_it_authorises(action: str) -> None:
    """In the service that is called, which may be another than the prefix says; in any case."""
    grants = Grants("f", (action,))
    services = grants.services(iam.services())
    for call in CALLS[action]:
        service, name = call.split(".")
        assert name in grants.operations(service, services[service], iam.operations_of(service))


@pytest.mark.parametrize("action", ["kafka-cluster:Connect", "iam:PassRole", "made-up:Call"])
def test_an_action_without_an_operation_is_no_error(action: str) -> None:
    """It brings a client at most."""
    grants = Grants("f", (action,))
    for service, prefix in grants.services(iam.services()).items():
        assert not grants.operations(service, prefix, iam.operations_of(service))


def test_a_service_that_is_named_ships_whole() -> None:
    """Whatever the statements say, and nothing else does."""
    grants = Grants("f", ("s3:GetObject",), ("bedrock-runtime",))
    assert sorted(grants.services(iam.services())) == ["bedrock-runtime", "s3"]
    operations = iam.operations_of("bedrock-runtime")
    assert grants.operations("bedrock-runtime", "bedrock", operations) == set(operations)


# IAM has no action for them, or none that the list of cfn-lint knows; members name them.
UNREACHED = 15


def test_nearly_every_service_is_reached_by_an_action() -> None:
    """Of botocore's services, by the actions that AWS lists, as cfn-lint keeps them."""
    path = Path(str(files("cfnlint"))) / "data" / "AdditionalSpecs" / "Policies.json"
    actions = {name.lower(): of["Actions"] for name, of in json.loads(path.read_text()).items()}
    unreached = []
    for service in iam.services():
        listed = [
            f"{prefix}:{action}"
            for prefix in iam.prefixes_of(service)
            for action in actions.get(prefix, ())
        ]
        grants = Grants("f", tuple(listed))
        operations = iam.operations_of(service)
        if not grants.operations(service, "", operations) - {"HeadBucket", "CreateSession"}:
            unreached.append(service)
    assert len(unreached) <= UNREACHED, unreached
