"""A stage's names, clients and functions, with the operator's credentials."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    EndpointConnectionError,
    SSOError,
    TokenRetrievalError,
)

from jobplane.console import api
from jobplane.console.runs import Runs
from jobplane.deploy.description import describe
from jobplane.deploy.templates import templates
from jobplane.stage.stages import Stage, State
from jobplane.tree.repository import Repository
from jobplane_keys import IN_FLIGHT_SHARDS, TENANT_SHARDS

INVOKE_SECONDS = 120
PARAMETER_SECONDS = 60
EXPIRED = frozenset({
    "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "RequestExpired",
    "UnrecognizedClientException",
})  # fmt: skip
LOG_IN_AGAIN = (
    "the AWS credentials of the console are no longer accepted; log in again, and the page goes on."
    " If they are in environment variables, set new ones and start the console again"
)
OF_THE_STAGE = (
    "description", "in_flight_shards", "tenant_shards", "_settings", "operator", "parts",
    "_webhook_urls",
)  # fmt: skip

# The function without which a stage does not have a page.
NEEDED = {
    "jobs": "router",
    "workspaces": "claim",
    "files": "state-manager",
    "webhooks": "deliver-webhook",
}


class ProblemError(Exception):
    """What the page gets instead of an answer; `code` is one of `api.ProblemText`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class NotAvailableError(ProblemError):
    """The stage does not have a function, table or queue."""

    def __init__(self, what: str) -> None:
        super().__init__(404, "NOT_AVAILABLE", f"this stage has no {what}")


class StageGoneError(ProblemError):
    """The local stage was stopped while its console is open."""

    def __init__(self, stage: str) -> None:
        option = "" if stage == "local" else f" --stage {stage}"
        text = f"stage {stage!r} does not answer; start it again: jobplane up{option}. This page"
        super().__init__(503, "AWS_ERROR", f"{text} shows the stage when it is up")


class FunctionFailedError(ProblemError):
    """A function raised an error."""

    def __init__(self, function: str, error: Mapping[str, Any]) -> None:
        text = f"{error.get('errorType', 'Error')}: {error.get('errorMessage', '')}".rstrip(": ")
        remedy = f"its log says more: jobplane logs {function}"
        super().__init__(502, "FUNCTION_ERROR", f"{function} raised {text}; {remedy}")


@dataclass
class Backend:
    """A stage as an operator reaches it. Its threads share it."""

    stage: Stage
    read_only_because: str | None = None
    partitions: tuple[Sequence[str], float] = ((), 0.0)
    """Those of the index `by-tenant`, and until when they count as known."""
    runs: Runs = field(default_factory=Runs)
    _clients: dict[str, Any] = field(default_factory=dict)
    _state: State | None = None
    """The local stage that the clients are of."""
    _parameters: dict[str, tuple[str | None, float]] = field(default_factory=dict)
    _remembered: dict[str, tuple[Any, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def repository(self) -> Repository:
        return self.stage.repository

    @cached_property
    def description(self) -> dict[str, Any]:
        """The names of the stage's functions, tables, queues and state machines."""
        state = self.stage.read_state()
        return state.description if state is not None else describe(self.stage)

    def check(self) -> None:
        """Read the names and the operator's identity now; raises an error with the remedy."""
        self.refresh()
        _ = self.description, self.operator

    def refresh(self) -> None:
        """Forget what was read of a local stage that was started again since. Before a request.

        Raises StageGoneError if it was stopped: without its state, clients would be AWS's own.
        """
        if not self.stage.is_local:
            return
        state = self.stage.read_state()
        if state is None:
            raise StageGoneError(self.stage.name)
        with self._lock:
            known, self._state = self._state, state
            if known is not None and (known.pid, known.port) != (state.pid, state.port):
                self._clients.clear()
                self._parameters.clear()
                self._remembered.clear()
                self.partitions = (), 0.0
                for name in OF_THE_STAGE:
                    self.__dict__.pop(name, None)

    def problem_of(self, error: Exception) -> ProblemError | None:
        """An error of a stage as the page gets it, with its remedy; None for other errors."""
        match error:
            case ProblemError():
                return error
            case ClientError():
                code = error.response["Error"].get("Code", "Error")
                text = f"{error.operation_name}: {code}: {error.response['Error'].get('Message')}"
                if code not in EXPIRED:
                    return ProblemError(502, "AWS_ERROR", text)
            case EndpointConnectionError() | ConnectionClosedError() if self.stage.is_local:
                return StageGoneError(self.stage.name)
            case CredentialRetrievalError() | SSOError() | TokenRetrievalError():
                text = str(error)
            case BotoCoreError():
                return ProblemError(502, "AWS_ERROR", str(error))
            case _:
                return None
        # New clients read the credentials again.
        with self._lock:
            self._clients.clear()
        return ProblemError(502, "AWS_ERROR", f"{LOG_IN_AGAIN} ({text})")

    def client(self, service: str) -> Any:
        """A client, which is made once: sessions of boto3 are not made for threads."""
        with self._lock:
            if service not in self._clients:
                more = {"read_timeout": INVOKE_SECONDS} if service == "lambda" else {}
                self._clients[service] = self.stage.client(service, max_pool_connections=32, **more)
            return self._clients[service]

    def remembered[Value](self, name: str, seconds: float, read: Callable[[], Value]) -> Value:
        """What was read under a name, read again after so many seconds."""
        known = self._remembered.get(name)
        if known is not None and time.monotonic() < known[1]:
            found: Value = known[0]
            return found
        value = read()
        self._remembered[name] = value, time.monotonic() + seconds
        return value

    def forget(self, name: str) -> None:
        """Read it again the next time."""
        self._remembered.pop(name, None)

    @property
    def dynamodb(self) -> Any:
        return self.client("dynamodb")

    def table(self, name: str) -> str:
        return self._named("table", name)

    def queue(self, name: str) -> str:
        """The URL of a queue."""
        return self._named("queue", name)

    def function(self, name: str) -> str:
        return self._named("function", name)

    def has(self, kind: str, name: str) -> bool:
        return name in self.description[f"{kind}s"]

    def _named(self, kind: str, name: str) -> str:
        try:
            found: str = self.description[f"{kind}s"][name]
        except KeyError:
            raise NotAvailableError(f"{kind} {name}") from None
        return found

    def invoke(self, function: str, event: Mapping[str, Any]) -> Any:
        """The result of a function. Raises FunctionFailedError."""
        answer = self.client("lambda").invoke(
            FunctionName=self.function(function), Payload=json.dumps(event).encode()
        )
        result = json.loads(answer["Payload"].read() or "null")
        if "FunctionError" in answer:
            raise FunctionFailedError(function, result if isinstance(result, dict) else {})
        return result

    @cached_property
    def in_flight_shards(self) -> int:
        """The number of partitions of the index `in-flight`, as the stage was deployed."""
        return int(self._settings.get("IN_FLIGHT_SHARDS", IN_FLIGHT_SHARDS))

    @cached_property
    def tenant_shards(self) -> int:
        """The number of partitions that a tenant has in the index `by-tenant`."""
        return int(self._settings.get("TENANT_SHARDS", TENANT_SHARDS))

    @cached_property
    def _settings(self) -> dict[str, str]:
        found = self.client("lambda").get_function_configuration(
            FunctionName=self.function("router")
        )
        variables: dict[str, str] = found.get("Environment", {}).get("Variables", {})
        return variables

    @cached_property
    def operator(self) -> str:
        """The ARN of the credentials."""
        return str(self.client("sts").get_caller_identity()["Arn"])

    @cached_property
    def parts(self) -> list[api.Part]:
        """The pages for which the stage has a function."""
        pages: tuple[api.Part, ...] = ("jobs", "workspaces", "files", "webhooks", "health")
        return [page for page in pages if page not in NEEDED or self.has("function", NEEDED[page])]

    def webhook_host(self, template_id: str) -> str | None:
        """The host that a template's webhooks go to; None if this repository or the operator's
        credentials don't say it. Its path is not shown: it may be a secret.
        """
        reference = self._webhook_urls.get(template_id)
        if reference is None:
            return None
        kind, _, name = reference.partition(":")
        url = self._parameter(name) if kind == "ssm" else reference
        return urlsplit(url or "").netloc or None

    @cached_property
    def _webhook_urls(self) -> dict[str, str]:
        names = self.repository.service, self.stage.name
        found = {each.id: each.references(*names) for each in templates(self.repository)}
        return {name: each["webhook_url"] for name, each in found.items() if "webhook_url" in each}

    def _parameter(self, name: str) -> str | None:
        """A parameter's value, read at most once a minute."""
        value, until = self._parameters.get(name, (None, 0.0))
        if time.monotonic() >= until:
            try:
                found = self.client("ssm").get_parameter(Name=name, WithDecryption=True)
                value = str(found["Parameter"]["Value"])
            except ClientError:
                value = None
            self._parameters[name] = (value, time.monotonic() + PARAMETER_SECONDS)
        return value

    def require_writable(self) -> None:
        """Raises ProblemError if the console may only read."""
        if self.read_only_because is not None:
            raise ProblemError(403, "READ_ONLY", self.read_only_because)
