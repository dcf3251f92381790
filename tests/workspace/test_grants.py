"""The roles' grants: documented, by name, without wildcards."""

import re
from typing import Any

import pytest

from jobplane.reference.documents import with_tables
from jobplane.reference.grants import DOCUMENT, Grant, grants, openings, tables, text_of
from tests.workspace.templates import EMULATOR, REPOSITORY, Compiled, of_type

PROD = REPOSITORY.names("prod")
STAGES = [("prod", None), ("staging", None), ("dev", None), ("local", EMULATOR)]
# Calls that services authorise without a resource.
WITHOUT_RESOURCE = {
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
}
TRANSPORT = "aws:SecureTransport is `false`"


def role(statement: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """A template of one function and its role, with one statement."""
    document = {"Statement": [{"Effect": "Allow", **statement}]}
    return {
        "Resources": {
            "R": {
                "Type": "AWS::IAM::Role",
                "Properties": {"Policies": [{"PolicyDocument": document}], **properties},
            },
            "F": {
                "Type": "AWS::Lambda::Function",
                "Properties": {"FunctionName": PROD.of("f"), "Role": {"Fn::GetAtt": ["R", "Arn"]}},
            },
        }
    }


def test_the_documentation_lists_every_grant(compiled: Compiled) -> None:
    text = (REPOSITORY.root / DOCUMENT).read_text(encoding="utf-8")
    assert text == with_tables(text, tables(compiled("prod"), PROD)), "run `jobplane docs grants`"


@pytest.mark.parametrize(("stage", "endpoint_url"), STAGES)
def test_every_stage_grants_the_same(
    compiled: Compiled, stage: str, endpoint_url: str | None
) -> None:
    assert grants(compiled(stage, endpoint_url), REPOSITORY.names(stage)) == grants(
        compiled("prod"), PROD
    )


def test_no_action_is_a_wildcard(compiled: Compiled) -> None:
    for grant in grants(compiled("prod"), PROD):
        assert not [action for action in grant.actions if set("*?") & set(action)], grant


def test_every_granted_resource_is_of_the_stage(compiled: Compiled) -> None:
    """Except for calls that are authorised without a resource."""
    for grant in grants(compiled("prod"), PROD):
        if grant.resource == "*":
            assert set(grant.actions) <= WITHOUT_RESOURCE, grant
        elif ":" in grant.resource:
            assert "{stage}" in grant.resource.partition("*")[0], grant


def test_buckets_are_granted_by_prefix(compiled: Compiled) -> None:
    """No role reads or writes the whole bucket that clients share."""
    for grant in grants(compiled("prod"), PROD):
        if grant.resource.startswith("FilesBucket/"):
            assert re.fullmatch(
                r"FilesBucket/(uploads|payloads|results(/requests)?|reports|jobs|attachments|inbox(-refused)?)/\*",
                grant.resource,
            ), grant


def test_only_functions_that_use_a_secret_may_read_it(compiled: Compiled) -> None:
    found = grants(compiled("prod"), PROD)
    of_stage = "ssm:parameter/{service}/{stage}"
    readers = {
        secret: {g.role for g in found if g.covers("ssm:GetParameter", f"{of_stage}/{secret}")}
        for secret in ("jwt-secret", "jwt-secret-of-another", "webhooks/key", "other")
    }
    assert readers == {
        "jwt-secret": {"connect", "jobs", "status", "upload-parts"},
        "jwt-secret-of-another": set(),
        "webhooks/key": {"deliver-webhook"},
        "other": set(),
    }
    assert not [g for g in found if any(action.startswith("kms:") for action in g.actions)]


KEY = "arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d-1111-2222-3333-444455556666"


def test_a_customer_managed_key_decrypts_those_parameters_only(compiled: Compiled) -> None:
    template = compiled("prod", None, f"parametersKeyArn={KEY}")
    readers = {
        "connect": ["jwt-secret"], "deliver-webhook": ["webhooks/*"], "jobs": ["jwt-secret"],
        "status": ["jwt-secret"], "upload-parts": ["jwt-secret"],
    }  # fmt: skip
    decrypting = {}
    for role in of_type(template, "AWS::IAM::Role").values():
        for policy in role["Properties"].get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                if "kms:Decrypt" in statement["Action"]:
                    assert (statement["Action"], statement["Resource"]) == (["kms:Decrypt"], [KEY])
                    (test,) = statement["Condition"]["StringLike"].items()
                    assert test[0] == "kms:EncryptionContext:PARAMETER_ARN"
                    decrypting[policy["PolicyName"]] = [text_of(arn, PROD) for arn in test[1]]
    assert decrypting == {
        role: [f"ssm:parameter/{{service}}/{{stage}}/{name}" for name in names]
        for role, names in readers.items()
    }


def test_every_bucket_and_queue_refuses_plain_http(compiled: Compiled) -> None:
    template = compiled("prod")
    wanted = set(of_type(template, "AWS::SQS::Queue"))
    for bucket in of_type(template, "AWS::S3::Bucket"):
        wanted |= {bucket, f"{bucket}/*"}
    found = {
        opening.resource
        for opening in openings(template, PROD)
        if (opening.effect, opening.principal, opening.condition) == ("Deny", "everyone", TRANSPORT)
    }
    assert found == wanted


def test_each_queue_has_one_policy(compiled: Compiled) -> None:
    """A second one would replace it."""
    queues = [
        queue["Ref"]
        for policy in of_type(compiled("prod"), "AWS::SQS::QueuePolicy").values()
        for queue in policy["Properties"]["Queues"]
    ]
    assert len(queues) == len(set(queues))


def test_a_local_stage_does_not_refuse_plain_http(compiled: Compiled) -> None:
    denials = [
        each
        for each in openings(compiled("dev", EMULATOR), REPOSITORY.names("dev"))
        if each.effect == "Deny"
    ]
    assert {each.resource.partition("/")[0] for each in denials} == {"ServerlessDeploymentBucket"}


def test_a_service_may_act_only_for_its_source_in_this_account(compiled: Compiled) -> None:
    for opening in openings(compiled("prod"), PROD):
        if opening.effect == "Allow" and opening.principal != "the account":
            assert opening.condition, opening


@pytest.mark.parametrize(
    ("statement", "properties"),
    [
        ({"Action": "s3:GetObject", "NotResource": "*"}, {}),
        ({"NotAction": "s3:GetObject", "Resource": "*"}, {}),
        ({"Effect": "Deny", "Action": "s3:GetObject", "Resource": "*"}, {}),
        ({"Action": "s3:GetObject", "Resource": "*"}, {"ManagedPolicyArns": ["arn:…"]}),
    ],
    ids=["not resource", "not action", "deny", "managed"],
)
def test_a_statement_that_the_table_can_not_show_is_an_error(
    statement: dict[str, Any], properties: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"are supported|managed"):
        grants(role(statement, **properties), PROD)


def test_a_role_without_a_function_or_state_machine_is_an_error() -> None:
    template = role({"Action": "s3:GetObject", "Resource": "*"})
    del template["Resources"]["F"]
    with pytest.raises(ValueError, match="belongs to no function"):
        grants(template, PROD)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ({"Fn::GetAtt": ["T", "Arn"]}, "T"),
        ({"Fn::GetAtt": ["T", "StreamArn"]}, "T/stream"),
        ({"Ref": "Flow"}, "Flow"),
        ({"Fn::Join": ["", [{"Fn::GetAtt": ["B", "Arn"]}, "/a/*"]]}, "B/a/*"),
        (
            {"Fn::Join": [":", ["arn", {"Ref": "AWS::Partition"}, "sqs", {"Ref": "AWS::Region"},
                                {"Ref": "AWS::AccountId"}, PROD.of("dlq-*")]]},
            "sqs:{service}-{stage}-dlq-*",
        ),
        ("arn:aws:sqs:eu-west-1:123456789012:theirs", "arn:aws:sqs:eu-west-1:123456789012:theirs"),
    ],
    ids=["arn", "stream", "ref", "prefix", "own arn", "another account"],
)  # fmt: skip
def test_a_resource_is_shown_by_logical_id_or_end_of_its_arn(expression: Any, text: str) -> None:
    assert text_of(expression, PROD) == text


@pytest.mark.parametrize(
    ("action", "resource", "is_covered"),
    [
        ("s3:GetObject", "B/a/x", True),
        ("s3:GetObject", "B/a/x/y", True),
        ("s3:GetObject", "B/ab", False),
        ("s3:GetObject", "BB/a/x", False),
        ("s3:PutObject", "B/a/x", False),
        ("s3:GetObjectVersion", "B/a/x", False),
    ],
)
def test_a_grant_matches_as_in_iam(action: str, resource: str, is_covered: bool) -> None:
    """`*` stands for any text within a resource."""
    assert Grant("f", "B/a/*", ("s3:GetObject",)).covers(action, resource) is is_covered
