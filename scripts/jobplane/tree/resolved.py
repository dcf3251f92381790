"""The stack's resources and environment variables with all references resolved.

Reads what the Serverless Framework reads (serverless.yml, functions/*/function.yml,
resources/*.yml), fills in the variables, and resolves references between resources.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from jobplane.tree.names import Names
from jobplane.tree.repository import Function, Repository, read_yaml

# `${param:<name>Bucket}` → the last part of the bucket's name; as in scripts/serverless/stage.js.
BUCKETS = {
    "files": "files",
    "input": "input",
    "manifest": "manifests",
    "output": "output",
    "quarantine": "quarantine",
}
VARIABLE = re.compile(r"\$\{([a-z]+):([^}]*)\}")
ACCOUNT = "123456789012"
REGION = "eu-west-1"
STAGE = "test"
JWT_SECRET = "in-process-0123456789abcdef0123456789abcdef"  # noqa: S105 - signs tests' tokens only
SOCKET_API = "sockets00"
NAMED_BY = {
    "AWS::DynamoDB::Table": "TableName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::StepFunctions::StateMachine": "StateMachineName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::Events::Rule": "Name",
}
ARN_SERVICES = {
    "AWS::DynamoDB::Table": "dynamodb:{place}:table/{name}",
    "AWS::S3::Bucket": "s3:::{name}",
    "AWS::SQS::Queue": "sqs:{place}:{name}",
    "AWS::StepFunctions::StateMachine": "states:{place}:stateMachine:{name}",
    "AWS::SNS::Topic": "sns:{place}:{name}",
    "AWS::Lambda::Function": "lambda:{place}:function:{name}",
    "AWS::IAM::Role": "iam::{account}:role/{name}",
}


class UnresolvedError(LookupError):
    """A variable or a reference can't be resolved."""


class ResolvedStack:
    """The resources and environment variables of one stage, without references or variables."""

    def __init__(
        self,
        repository: Repository,
        stage: str = STAGE,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.repository = repository
        self.stage = stage
        self.parameters = self._default_parameters() | dict(parameters or {})

    @cached_property
    def service(self) -> dict[str, Any]:
        service: dict[str, Any] = read_yaml(self.repository.root / "serverless.yml")
        return service

    @property
    def names(self) -> Names:
        return self.repository.names(self.stage)

    @cached_property
    def _declared(self) -> dict[str, Any]:
        """The resources, unresolved; each is resolved only if it is used."""
        declared: dict[str, Any] = {}
        for path in self.repository.resources:
            declared |= read_yaml(path).get("Resources") or {}
        return declared

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Properties of all resources of a type, by logical id, references resolved."""
        return {
            logical: self.resolve(self.filled(resource.get("Properties", {})))
            for logical, resource in self._declared.items()
            if resource["Type"] == kind
        }

    def environment(self, function: Function) -> dict[str, str]:
        """The environment variables that the deployed function would have.

        A path into one of the function's data folders becomes absolute, because in the
        repository the folder is not beside the module.
        """
        declared = {
            **self.service["provider"].get("environment", {}),
            **function.config.get("environment", {}),
        }
        values = {key: _text(self.resolve(self.filled(v))) for key, v in declared.items()}
        folders = {folder.name: folder for folder in function.data}
        for key, value in values.items():
            folder = folders.get(value.partition("/")[0])
            if folder is not None:
                values[key] = str(folder.parent / value)
        return values

    @property
    def secret_name(self) -> str:
        """The name of the SSM parameter that holds the stage's signing secret."""
        return self.names.parameter("jwt-secret")

    def short_name(self, name: str) -> str:
        """A physical name without the stage's prefix: `connections`, `files`."""
        return self.names.short(name)

    def resolve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((key, argument),) = value.items()
            if key == "Ref":
                return self._reference(argument)
            if key == "Fn::GetAtt":
                named = argument.split(".", 1) if isinstance(argument, str) else argument
                return self._attribute(*named)
            if key == "Fn::Join":
                separator, parts = argument
                return separator.join(str(part) for part in self.resolve(parts))
            if key == "Fn::Sub":
                return self._substitute(argument)
        return {key: self.resolve(item) for key, item in value.items()}

    def _default_parameters(self) -> dict[str, Any]:
        stages = self.service["custom"]["stages"]
        return {
            **stages["default"],
            **stages.get(self.stage, {}),
            "jwtSecret": f"ssm:{self.secret_name}",
            "jwtSecretArn": f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{self.secret_name}",
            "tablePrefix": self.names.prefix,
            "metricsNamespace": self.names.metrics,
            **{f"{name}Bucket": self.names.of(folder) for name, folder in BUCKETS.items()},
            "websocketEndpoint": (
                f"https://{SOCKET_API}.execute-api.{REGION}.amazonaws.com/{self.stage}"
            ),
            "sqsEndpoint": "",
            "postToConnectionsArn": f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{SOCKET_API}/*",
            "readConnectionsArn": f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{SOCKET_API}/*",
            "closeConnectionsArn": f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{SOCKET_API}/*",
            "webhookSecretsArn": (
                f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{self.names.parameter('webhooks/*')}"
            ),
        }

    def filled(self, value: Any) -> Any:
        """A declared value with its `${…}` variables filled in; references stay."""
        if isinstance(value, dict):
            return {self.filled(key): self.filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        if not isinstance(value, str):
            return value
        whole = VARIABLE.fullmatch(value)
        if whole is not None:
            return self._variable(whole)
        return VARIABLE.sub(lambda match: _text(self._variable(match)), value)

    def _variable(self, match: re.Match[str]) -> Any:
        source, address = match[1], match[2].partition(",")[0].strip()
        known: dict[str, Mapping[str, Any]] = {
            "param": self.parameters,
            "self": {"service": self.names.service},
            "sls": {"stage": self.stage},
            "aws": {"region": REGION, "accountId": ACCOUNT},
        }
        try:
            return self.filled(known[source][address])
        except KeyError as missing:
            raise UnresolvedError(f"{match[0]} has no value in process") from missing

    def _reference(self, logical: str) -> Any:
        pseudo = {
            "AWS::Region": REGION,
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": self.names.stack,
            "WebsocketsApi": SOCKET_API,
        }
        if logical in pseudo:
            return pseudo[logical]
        kind = self._kind(logical)
        if kind == "AWS::SQS::Queue":
            return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{self._name(logical)}"
        if kind in ("AWS::StepFunctions::StateMachine", "AWS::SNS::Topic"):
            return self._arn(logical)
        return self._name(logical)

    def _attribute(self, logical: str, attribute: str) -> Any:
        if attribute == "Arn":
            return self._arn(logical)
        if attribute == "StreamArn":
            return f"{self._arn(logical)}/stream/2026-01-01T00:00:00.000"
        if attribute in ("QueueName", "Name"):
            return self._name(logical)
        if attribute == "QueueUrl":
            return self._reference(logical)
        raise UnresolvedError(f"{logical}.{attribute} has no value in process")

    def _kind(self, logical: str) -> str:
        if logical in self._declared:
            return str(self._declared[logical]["Type"])
        if logical.endswith("LambdaFunction"):
            return "AWS::Lambda::Function"
        if logical.endswith("Role"):
            return "AWS::IAM::Role"
        raise UnresolvedError(f"{logical} is not in resources/")

    def _name(self, logical: str) -> str:
        kind = self._kind(logical)
        if logical in self._declared:
            properties = self._declared[logical].get("Properties", {})
            named = self.filled(properties.get(NAMED_BY.get(kind, ""), logical))
            return str(self.resolve(named))
        words = re.sub(r"(LambdaFunction|Role)$", "", logical).replace("Dash", "-")
        kebab = re.sub(r"(?<=[a-z])-?(?=[A-Z])", "-", words).lower()
        return self.names.of(kebab)

    def _arn(self, logical: str) -> str:
        pattern = ARN_SERVICES.get(self._kind(logical))
        if pattern is None:
            raise UnresolvedError(f"{logical}.Arn has no value in process")
        place = f"{REGION}:{ACCOUNT}"
        return "arn:aws:" + pattern.format(place=place, account=ACCOUNT, name=self._name(logical))

    def _substitute(self, argument: Any) -> str:
        text, given = argument if isinstance(argument, list) else (argument, {})
        values = self.resolve(given)

        def replaced(match: re.Match[str]) -> str:
            name = match[1]
            if name in values:
                return str(values[name])
            logical, _, attribute = name.partition(".")
            return str(self._attribute(logical, attribute) if attribute else self._reference(name))

        return re.sub(r"\$\{([A-Za-z0-9.:]+)\}", replaced, text)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
