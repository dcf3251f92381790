"""IAM statements are read from what deploys a function; what they leave open cuts nothing."""

import json
from pathlib import Path

import pytest

from lambdapack import BuildError, Statements

GET = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
LOGS = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
SERVERLESS = """\
provider:
  iam:
    role:
      {provider}
functions:
  orders:
    handler: orders.handler
    {function}
  mail: {{ handler: mail.handler }}
"""
STATEMENTS = "statements: [{ Effect: Allow, Action: [s3:GetObject], Resource: !Sub '${Bucket}/*' }]"
SAM = """\
Resources:
  OrdersFunction:
    Type: AWS::Serverless::Function
    Properties:
      Role: !If [A, !Ref B, !Ref "AWS::NoValue"]
      Policies:
        - {policy}
        - Statement:
            - Effect: Allow
              Action: s3:GetObject
              Resource: !GetAtt Bucket.Arn
"""


def cdk(*managed: object, role: object = None) -> str:
    """As `cdk synth` writes it: the statements are in a policy that names the role."""
    role = {"Fn::GetAtt": ["OrdersRole1A2B", "Arn"]} if role is None else role
    found = {
        "Orders5C6D": {"Type": "AWS::Lambda::Function", "Properties": {"Role": role}},
        "OrdersRole1A2B": {
            "Type": "AWS::IAM::Role",
            "Properties": {"ManagedPolicyArns": [*managed]},
        },
        "OrdersPolicy3E4F": {
            "Type": "AWS::IAM::Policy",
            "Properties": {
                "PolicyDocument": {"Statement": [GET]},
                "Roles": [{"Ref": "OrdersRole1A2B"}],
            },
        },
    }
    return json.dumps({"Resources": found})


def terraform(policy: str | None, *, attached: str = "") -> str:
    """As `terraform show -json` writes a plan: roles are known by their references."""
    resources = [
        {"address": "aws_lambda_function.orders", "type": "aws_lambda_function", "values": {}},
        {"address": "aws_iam_role.orders", "type": "aws_iam_role", "values": {}},
        {"address": "aws_iam_role_policy.orders[0]", "type": "aws_iam_role_policy",
         "values": {"policy": policy}},
    ]  # fmt: skip
    role = {"role": {"references": ["aws_iam_role.orders.arn", "aws_iam_role.orders"]}}
    configured = [
        {"address": "aws_lambda_function.orders", "expressions": role},
        {"address": "aws_iam_role_policy.orders", "expressions": role},
    ]
    if attached:
        address, kind = "aws_iam_role_policy_attachment.orders", "aws_iam_role_policy_attachment"
        resources.append({"address": address, "type": kind, "values": {"policy_arn": attached}})
        configured.append({"address": address, "expressions": role})
    return json.dumps(
        {
            "planned_values": {
                "root_module": {
                    "child_modules": [
                        {
                            "resources": [
                                each | {"address": f"module.a.{each['address']}"}
                                for each in resources
                            ]
                        }
                    ]
                }
            },
            "configuration": {
                "root_module": {"module_calls": {"a": {"module": {"resources": configured}}}}
            },
        }
    )


POLICY = json.dumps({"Version": "2012-10-17", "Statement": GET})
READ = {
    "serverless": ("serverless.yml", SERVERLESS.format(provider=STATEMENTS, function="timeout: 3")),
    "serverless-own": ("serverless.yml", SERVERLESS.format(
        provider="name: r", function=f"iamRoleStatements: [{json.dumps(GET)}]")),
    "sam": ("t.yaml", SAM.format(policy="AWSLambdaBasicExecutionRole").replace("Role:", "X:")),
    "cdk": ("Stack.template.json", cdk(LOGS)),
    "partition": ("t.json", cdk({"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, LOGS]]})),
    "terraform": ("plan.json", terraform(POLICY)),
    "terraform-logs": ("plan.json", terraform(POLICY, attached=LOGS)),
    "policy": ("policy.json", POLICY),
    "statements": ("list.json", json.dumps([GET])),
    "actions": ("actions.yml", "- s3:GetObject\n"),
}  # fmt: skip
OPEN = {
    "serverless-file": ("s.yml", SERVERLESS.format(
        provider="statements: ${file(iam.yml)}", function="timeout: 3")),
    "serverless-role": ("s.yml", SERVERLESS.format(provider=STATEMENTS, function="role: other")),
    "serverless-managed": ("s.yml", SERVERLESS.format(
        provider="managedPolicies: ['arn:aws:iam::aws:policy/AdministratorAccess']",
        function=f"iamRoleStatements: [{json.dumps(GET)}]\n    iamRoleStatementsInherit: true")),
    "sam-policy-template": ("t.yaml", SAM.format(policy="DynamoDBCrudPolicy: { TableName: t }")
                            .replace("Role:", "X:")),
    "sam-role-by-condition": ("t.yaml", SAM.format(policy="AWSLambdaBasicExecutionRole")),
    "cdk-managed": ("t.json", cdk("arn:aws:iam::aws:policy/AmazonS3FullAccess")),
    "cdk-imported-role": ("t.json", cdk(role="arn:aws:iam::123456789012:role/other")),
    "cdk-action": ("t.json", cdk().replace('"s3:GetObject"', '{"Ref": "Action"}')),
    "terraform-unknown": ("plan.json", terraform(None)),
    "terraform-managed": ("plan.json", terraform(POLICY, attached="arn:aws:iam::aws:policy/X")),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_statements_are_read_as_deployed(tmp_path: Path, kind: str) -> None:
    name, text = READ[kind]
    (tmp_path / name).write_text(text)
    found = Statements.read(tmp_path / name, None, "orders")
    assert found is not None
    assert [each["Action"] for each in found.statements] in (["s3:GetObject"], [["s3:GetObject"]])


@pytest.mark.parametrize("kind", OPEN)
def test_what_a_file_leaves_open_is_not_guessed(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, text = OPEN[kind]
    (tmp_path / name).write_text(text)
    with caplog.at_level("INFO", "lambdapack"):
        assert Statements.read(tmp_path / name, None, "orders") is None
    assert "the SDK is not cut" in caplog.text


@pytest.mark.parametrize(
    ("text", "function", "message"),
    [
        (cdk(), "Gone", "has no function 'Gone'; it has Orders5C6D"),
        (SERVERLESS.format(provider=STATEMENTS, function="timeout: 3").replace("orders:", "a:"),
         None, "does not say which function 'orders' is: name it by --function, one of a, mail"),
        ("hello", None, "has no IAM statements that can be read: pass a serverless.yml"),
        ("- s3\n", None, "'s3' is not an IAM action; write SERVICE:ACTION"),
        ("- 1\n", None, "a list must be of actions, or of statements with an Effect"),
        ("a: [", None, "is neither JSON nor YAML"),
    ],
)  # fmt: skip
def test_a_file_without_an_answer_is_refused_with_the_remedy(
    tmp_path: Path, text: str, function: str | None, message: str
) -> None:
    path = tmp_path / "file.yml"
    path.write_text(text)
    with pytest.raises(BuildError) as refused:
        Statements.read(path, function, "orders")
    assert message in refused.value.message
