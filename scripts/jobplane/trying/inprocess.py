"""Run functions in this process on moto, with tables from the project's own resources.

with InProcess() as aws:
    connect = aws.load("connect")
    answer = connect.handler(event, aws.context("connect"))
"""

import json
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from threading import Lock
from time import monotonic
from types import ModuleType
from typing import Any, Self
from unittest.mock import patch

from jobplane.tree.modules import imported
from jobplane.tree.repository import Function, Repository
from jobplane.tree.resolved import ACCOUNT, JWT_SECRET, REGION, STAGE, ResolvedStack
from lambdapack.environments import plain_environment

TABLE_PROPERTIES = (
    "TableName", "BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes",
    "LocalSecondaryIndexes",
)  # fmt: skip
NOT_QUEUE_ATTRIBUTES = frozenset({"QueueName", "Tags"})


@dataclass
class Context:
    function_name: str
    memory_limit_in_mb: int = 512
    timeout: float = 30.0
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    function_version: str = "$LATEST"
    client_context: None = None
    identity: None = None
    began: float = field(default_factory=monotonic)

    @property
    def invoked_function_arn(self) -> str:
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.function_name}"

    @property
    def log_group_name(self) -> str:
        return f"/aws/lambda/{self.function_name}"

    @property
    def log_stream_name(self) -> str:
        return "in-process"

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self.timeout - (monotonic() - self.began)) * 1000))


class InProcess:
    """A stage on moto, for one test or event; `parameters` are named as in `${param:…}`."""

    def __init__(
        self,
        repository: Repository | None = None,
        *,
        stage: str = STAGE,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.template = ResolvedStack(repository or Repository.here(), stage, parameters)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        from moto import mock_aws

        self._open.enter_context(patch.dict(os.environ, plain_environment(), clear=True))
        self._open.enter_context(mock_aws())
        self._open.enter_context(service_models_read_once())
        self._open.enter_context(writes_one_at_a_time())
        self._open.enter_context(patch("moto.awslambda.models.LambdaBackend.invoke", self._invoke))
        os.environ["AWS_DEFAULT_REGION"] = os.environ["AWS_REGION"] = REGION
        # moto does not support DynamoDB's account-based endpoints for streams.
        os.environ["AWS_ACCOUNT_ID_ENDPOINT_MODE"] = "disabled"
        self._create_tables()
        self._create_queues()
        self._create_buckets()
        self.client("ssm").put_parameter(
            Name=self.template.secret_name, Value=JWT_SECRET, Type="SecureString"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def jwt_secret(self) -> str:
        return JWT_SECRET

    @cached_property
    def tables(self) -> dict[str, str]:
        return self._names("AWS::DynamoDB::Table", "TableName")

    @cached_property
    def buckets(self) -> dict[str, str]:
        return self._names("AWS::S3::Bucket", "BucketName")

    @cached_property
    def queues(self) -> dict[str, str]:
        """Queue URLs by short name."""
        names = self._names("AWS::SQS::Queue", "QueueName")
        base = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}"
        return {short: f"{base}/{name}" for short, name in names.items()}

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(service, region_name=REGION)

    def function(self, name: str) -> Function:
        return Function(name, self.template.repository.root / "functions" / name)

    def environment(self, name: str) -> dict[str, str]:
        """The function's environment variables on this stage."""
        return self.template.environment(self.function(name)) | {
            "AWS_LAMBDA_FUNCTION_NAME": self.function(name).deployed_name(self.template.stage),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.function(name).config["memorySize"]),
        }

    def load(self, name: str, environment: Mapping[str, str] | None = None) -> ModuleType:
        """Import a function's module again; its variables stay set until the stage is closed."""
        function = self.function(name)
        os.environ.update(self.environment(name) | dict(environment or {}))
        return self._open.enter_context(imported(function))

    def context(self, name: str) -> Context:
        """A fresh context, with the memory and the timeout of function.yml."""
        function = self.function(name)
        return Context(
            function.deployed_name(self.template.stage),
            memory_limit_in_mb=int(function.config["memorySize"]),
            timeout=float(function.config["timeout"]),
        )

    def _invoke(
        self, name: str, _qualifier: object, body: str | bytes, _headers: object, headers: Any
    ) -> bytes | None:
        """The answer of a function that another one invokes; None if it does not exist."""
        deployed = {
            function.deployed_name(self.template.stage): function
            for function in self.template.repository.functions()
        }
        function = deployed.get(name)
        if function is None:
            return None
        module = sys.modules.get(function.module) or self.load(function.name)
        try:
            answer = module.handler(json.loads(body), self.context(function.name))
        except Exception as error:
            headers["x-amz-function-error"] = "Unhandled"
            answer = {"errorType": type(error).__name__, "errorMessage": str(error)}
        return json.dumps(answer).encode()

    def _names(self, kind: str, key: str) -> dict[str, str]:
        names = [properties[key] for properties in self.template.of_type(kind).values()]
        return {self.template.short_name(name): name for name in names}

    def _create_tables(self) -> None:
        client = self.client("dynamodb")
        for properties in self.template.of_type("AWS::DynamoDB::Table").values():
            wanted = {key: properties[key] for key in TABLE_PROPERTIES if key in properties}
            stream = properties.get("StreamSpecification")
            if stream is not None:
                wanted["StreamSpecification"] = {"StreamEnabled": True, **stream}
            client.create_table(**wanted)
            expiry = properties.get("TimeToLiveSpecification")
            if expiry is not None:
                client.update_time_to_live(
                    TableName=properties["TableName"], TimeToLiveSpecification=expiry
                )

    def _create_queues(self) -> None:
        client = self.client("sqs")
        queues = self.template.of_type("AWS::SQS::Queue").values()
        for properties in sorted(queues, key=lambda queue: "RedrivePolicy" in queue):
            attributes = {
                key: json.dumps(value) if isinstance(value, dict) else str(value)
                for key, value in properties.items()
                if key not in NOT_QUEUE_ATTRIBUTES
            }
            client.create_queue(QueueName=properties["QueueName"], Attributes=attributes)

    def _create_buckets(self) -> None:
        client = self.client("s3")
        for properties in self.template.of_type("AWS::S3::Bucket").values():
            client.create_bucket(
                Bucket=properties["BucketName"],
                CreateBucketConfiguration={"LocationConstraint": REGION},
            )


@cache
def _loader(search_path: str | None) -> Any:
    from botocore.loaders import create_loader

    return create_loader(search_path)


@contextmanager
def writes_one_at_a_time() -> Iterator[None]:
    """Let moto carry out one call of DynamoDB after the other, as functions have threads.

    Otherwise it may check the condition of one write before another one, and write after it.
    """
    from moto.core.botocore_stubber import BotocoreStubber

    plain, lock = BotocoreStubber.process_request, Lock()

    def process_request(self: BotocoreStubber, request: Any) -> Any:
        is_of_dynamodb = "://dynamodb." in request.url
        with lock if is_of_dynamodb else nullcontext():
            return plain(self, request)

    with patch.object(BotocoreStubber, "process_request", process_request):
        yield


@contextmanager
def service_models_read_once() -> Iterator[None]:
    """Share what botocore's sessions read from disk, across stages and modules."""
    with patch("botocore.session.create_loader", _loader):
        yield
