"""The policies that refuse plain HTTP on AWS, evaluated by the emulator.

The local stage itself has none, for it knows no TLS. Behind a proxy that ends TLS the emulator goes
by `X-Forwarded-Proto`, so that both sides can be seen.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from jobplane.reference.grants import template_to_tell
from jobplane.tree.repository import Repository
from tests.e2e.deployed import Deployed, client_once, unique
from tests.e2e.probes import DENIED

pytestmark = pytest.mark.e2e

GUARDED = ("QuarantineBucket", "WebhooksDeadLetterQueue")
LETTER = {"MessageBody": "x", "MessageGroupId": "job", "MessageDeduplicationId": "x"}


@pytest.fixture(scope="module")
def guarded(deployed: Deployed) -> Iterator[dict[str, str]]:
    """A bucket and a queue as they are compiled for prod, a queue as the flow would make it there,
    and a role that may do all with them.
    """
    resources = template_to_tell(Repository.here())["Resources"]
    kept = {name: resources[name] for each in GUARDED for name in (each, f"{each}Policy")}
    name = unique("guarded")
    kept["QuarantineBucket"]["Properties"]["BucketName"] = name
    kept["WebhooksDeadLetterQueue"]["Properties"]["QueueName"] = name
    for resource in kept.values():
        resource.pop("DeletionPolicy", None)
        resource.pop("UpdateReplacePolicy", None)
    kept["Role"] = role()
    client = deployed.stage.client("cloudformation")
    body = json.dumps({"Resources": kept})
    client.create_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    described = client.describe_stack_resources(StackName=name)["StackResources"]
    sqs = deployed.stage.client("sqs")
    making = resources["JobFlow"]["Properties"]["Definition"]["States"]["MakeInputQueue"]
    attributes = making["Arguments"]["Attributes"]
    made = sqs.create_queue(QueueName=f"{name}.fifo", Attributes=attributes)["QueueUrl"]
    known = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in described}
    yield known | {"InputQueue": made}
    client_of("sqs", deployed, known["Role"], "https").delete_queue(QueueUrl=made)
    client.delete_stack(StackName=name)


def role() -> dict[str, Any]:
    """A role that allows everything on buckets and queues."""

    def document(**statement: Any) -> dict[str, Any]:
        return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}

    trusted = document(Principal={"Service": "lambda.amazonaws.com"}, Action="sts:AssumeRole")
    everything = document(Action=["s3:*", "sqs:*"], Resource="*")
    policies = [{"PolicyName": "all", "PolicyDocument": everything}]
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {"AssumeRolePolicyDocument": trusted, "Policies": policies},
    }


def client_of(service: str, deployed: Deployed, role_name: str, scheme: str) -> Any:
    """The role's client, with requests of a scheme."""
    url = deployed.stage.endpoint_url
    assert url is not None
    client = client_once(service, url, "eu-west-1", deployed.assumed(role_name))

    def forwarded(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["X-Forwarded-Proto"] = scheme

    client.meta.events.register("before-call", forwarded)
    return client


@pytest.mark.parametrize(
    ("service", "method", "parameters"),
    [
        ("s3", "list_objects_v2", {"Bucket": "QuarantineBucket"}),
        ("s3", "put_object", {"Bucket": "QuarantineBucket", "Key": "k", "Body": b"x"}),
        ("s3", "delete_object", {"Bucket": "QuarantineBucket", "Key": "k"}),
        ("sqs", "send_message", {"QueueUrl": "WebhooksDeadLetterQueue", "MessageBody": "x"}),
        ("sqs", "receive_message", {"QueueUrl": "WebhooksDeadLetterQueue"}),
        ("sqs", "send_message", {"QueueUrl": "InputQueue", **LETTER}),
        ("sqs", "receive_message", {"QueueUrl": "InputQueue"}),
    ],
    ids=["list", "put", "delete", "send", "receive", "send-made", "receive-made"],
)
def test_plain_http_is_refused_whatever_the_role_allows(
    deployed: Deployed,
    guarded: dict[str, str],
    service: str,
    method: str,
    parameters: dict[str, Any],
) -> None:
    """The same call is allowed with TLS."""
    known = {k: guarded.get(v, v) if isinstance(v, str) else v for k, v in parameters.items()}
    with_tls = client_of(service, deployed, guarded["Role"], "https")
    without = client_of(service, deployed, guarded["Role"], "http")

    getattr(with_tls, method)(**known)
    with pytest.raises(without.exceptions.ClientError) as refused:
        getattr(without, method)(**known)
    assert refused.value.response["Error"]["Code"] in DENIED
