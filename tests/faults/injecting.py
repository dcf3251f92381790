"""Faults on AWS calls: what they are, and a plan that lets one of them happen at one call.

A fault acts where botocore would send a request, so that botocore's own retries, parsers and
error classes take part.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, ConnectTimeoutError, ReadTimeoutError
from moto.core.botocore_stubber import MockRawResponse
from urllib3.exceptions import ProtocolError


class ProcessDiedError(BaseException):
    """A function's process has died; no code of it may catch this."""


@dataclass(frozen=True)
class Exchange:
    """One HTTP request of a function, and the way to carry it out."""

    function: str
    service: str
    operation: str
    attempt: int
    request: AWSPreparedRequest
    send: Callable[[], AWSResponse]
    hang_up: Callable[[], None]
    """Closes the socket that a post goes to."""

    def carry_out(self) -> AWSResponse:
        """Carry out the request; the answer."""
        return self.send()

    def __str__(self) -> str:
        return f"{self.function}: {self.service} {self.operation}"


def answer_of(request: AWSPreparedRequest, status: int, body: bytes, **headers: str) -> AWSResponse:
    fields: Any = headers
    return AWSResponse(request.url, status, fields, MockRawResponse(body))


type Act = Callable[[Exchange], AWSResponse]


@dataclass(frozen=True)
class Fault:
    """What happens to one call, or to all calls until the end of the invocation."""

    name: str
    act: Act
    attempts: int = 3
    """How many of botocore's attempts at the call meet it."""
    lasts: bool = False
    """Whether later calls of the invocation meet it as well."""
    concerns: Callable[[Exchange], bool] = lambda _: True

    def __str__(self) -> str:
        return self.name


@dataclass
class Plan:
    """The fault of one run: at the n-th call of all functions, counted from 1; 0: none."""

    fault: Fault | None = None
    at: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    """The calls that the fault concerns, in order; retries of botocore's are not counted."""
    hit: str = ""
    """The call that met it."""
    over: bool = False
    """Whether no further call is counted."""
    _struck: bool = False

    @property
    def calls(self) -> list[str]:
        return list(map(str, self.exchanges))

    def meet(self, exchange: Exchange) -> Act | None:
        """Apply the fault to a request, if it is due."""
        if self.over or self.fault is None or not self.fault.concerns(exchange):
            return None
        if exchange.attempt == 1:
            self.exchanges.append(exchange)
            self._struck = len(self.exchanges) == self.at or (
                self.fault.lasts and self.hit.startswith(f"{exchange.function}:")
            )
            if len(self.exchanges) == self.at:
                self.hit = str(exchange)
        if self._struck and exchange.attempt <= self.fault.attempts:
            return self.fault.act
        return None

    def end_invocation(self, function: str) -> None:
        """End faults that last for an invocation."""
        if self.hit.startswith(f"{function}:"):
            self.hit = f"(over) {self.hit}"
            self._struck = False


class Broken(Plan):
    """Calls that a test chooses fail until they are repaired."""

    def __init__(self, act: Act, picks: Callable[[Exchange], bool]) -> None:
        super().__init__()
        self.act = act
        self.picks = picks

    def meet(self, exchange: Exchange) -> Act | None:
        if self.over or not self.picks(exchange):
            return None
        self.hit = str(exchange)
        return self.act


class Storm(Plan):
    """Several faults of any kind, one call in so many; then it ends."""

    def __init__(self, seed: int, *, one_in: int = 8, most: int = 12) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.one_in = one_in
        self.left = most
        self._now: Fault | None = None

    def meet(self, exchange: Exchange) -> Act | None:
        if exchange.attempt == 1:
            self._now = self._next(exchange)
        fault = self._now
        return fault.act if fault and exchange.attempt <= fault.attempts else None

    def _next(self, exchange: Exchange) -> Fault | None:
        if self.left == 0 or self.chance.randrange(self.one_in):
            return None
        fault = self.chance.choice([kind for kind in KINDS.values() if kind.concerns(exchange)])
        self.left -= 1
        self.hit += f"{fault} at {exchange}; "
        return fault


def die(_: Exchange) -> AWSResponse:
    raise ProcessDiedError


def die_after(exchange: Exchange) -> AWSResponse:
    exchange.carry_out()
    raise ProcessDiedError


def lose_answer(exchange: Exchange) -> AWSResponse:
    """Carry out the first attempt; its answer, and all later attempts, are lost."""
    if exchange.attempt == 1:
        exchange.carry_out()
    raise ReadTimeoutError(endpoint_url=exchange.request.url)


def time_out(exchange: Exchange) -> AWSResponse:
    raise ConnectTimeoutError(endpoint_url=exchange.request.url)


def reset(exchange: Exchange) -> AWSResponse:
    raise ConnectionClosedError(endpoint_url=exchange.request.url)


def throttle(exchange: Exchange) -> AWSResponse:
    """The throttling error of each service."""
    codes = {
        "dynamodb": (400, "ProvisionedThroughputExceededException"),
        "s3": (503, "SlowDown"),
        "apigatewaymanagementapi": (429, "LimitExceededException"),
        "lambda": (429, "TooManyRequestsException"),
        "sfn": (400, "ThrottlingException"),
        "sqs": (403, "RequestThrottled"),
        "ssm": (400, "ThrottlingException"),
    }
    return refuse(exchange, *codes[exchange.service])


def fail(exchange: Exchange) -> AWSResponse:
    """The internal error of each service."""
    code = "InternalServerError" if exchange.service == "dynamodb" else "InternalError"
    return refuse(exchange, 500, code)


def conflict(exchange: Exchange) -> AWSResponse:
    """A conflict of a write with a transaction."""
    if exchange.operation != "TransactWriteItems":
        return refuse(exchange, 400, "TransactionConflictException")
    body: Any = exchange.request.body
    items = json.loads(body)["TransactItems"]
    conflicting = {"Code": "TransactionConflict", "Message": "in use"}
    reasons = [conflicting, *[{"Code": "None"}] * (len(items) - 1)]
    return refuse(exchange, 400, "TransactionCanceledException", CancellationReasons=reasons)


def gone(exchange: Exchange) -> AWSResponse:
    """Close the socket just before a post."""
    exchange.hang_up()
    return exchange.carry_out()


def cut(exchange: Exchange) -> AWSResponse:
    """Break the connection in the middle of an object."""
    answer = exchange.carry_out()
    headers: Any = answer.headers
    return AWSResponse(answer.url, answer.status_code, headers, _Broken(answer.content))


def take_part(exchange: Exchange) -> AWSResponse:
    """A batch of messages of which SQS takes every second one, and not the first."""
    text: Any = exchange.request.body
    body = json.loads(text)
    taken, refused = body["Entries"][1::2], body["Entries"][::2]
    said: dict[str, Any] = {"Successful": []}
    if taken:
        exchange.request.body = json.dumps(body | {"Entries": taken}).encode()
        said = json.loads(exchange.carry_out().content)
    error = {"Code": "InternalError", "SenderFault": False}
    failed = [error | {"Id": entry["Id"]} for entry in refused]
    return answer_of(exchange.request, 200, json.dumps(said | {"Failed": failed}).encode())


class _Broken(MockRawResponse):
    """Half of a body, then a reset, which who reads to the end meets."""

    def __init__(self, whole: bytes) -> None:
        super().__init__(whole[: len(whole) // 2])

    def read(self, *size: Any, **_: Any) -> bytes:
        wanted = [part for part in size[:1] if part is not None]
        data = super().read(*wanted)
        if not (wanted and data):
            raise ProtocolError("Connection broken: reset by peer")
        return data


def refuse(exchange: Exchange, status: int, code: str, **more: Any) -> AWSResponse:
    """An error answer in the service's protocol."""
    if exchange.service == "s3":
        body = f"<Error><Code>{code}</Code><Message>by a test</Message></Error>"
        text = b"" if exchange.request.method == "HEAD" else body.encode()
        return answer_of(exchange.request, status, text)
    content = json.dumps({"__type": code, "message": "by a test", **more}).encode()
    return answer_of(exchange.request, status, content, **{"x-amzn-ErrorType": code})


def _writes(exchange: Exchange) -> bool:
    writes = {"DeleteItem", "PutItem", "TransactWriteItems", "UpdateItem"}
    return exchange.service == "dynamodb" and exchange.operation in writes


KINDS = {
    fault.name: fault
    for fault in (
        Fault("killed-before", die),
        Fault("killed-after", die_after),
        Fault("answer-lost-once", lose_answer, attempts=1),
        Fault("answer-lost", lose_answer),
        Fault("throttled", throttle),
        Fault("server-error", fail),
        Fault("timeout", time_out),
        Fault("reset", reset),
        Fault("conflict", conflict, concerns=_writes),
        Fault("conflicts", conflict, concerns=_writes, lasts=True),
        Fault("gone", gone, concerns=lambda exchange: exchange.service.startswith("apigateway")),
        Fault("cut", cut, concerns=lambda exchange: exchange.operation == "GetObject"),
        Fault("part", take_part, concerns=lambda exchange: exchange.operation.endswith("Batch")),
        Fault("outage", fail, lasts=True),
    )
}
