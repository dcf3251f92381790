"""A worker's calls to SQS, Step Functions, S3 and the claim function."""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jobplane_client._errors import (
    BadPayloadError,
    ClaimLostError,
    FunctionError,
    MalformedMessageError,
    QueueMissingError,
)
from jobplane_keys import MISSING_QUEUE_CODES, ValidationError, Workspace, refusing_plain_http

# Step Functions' error codes for the token of a task that has ended.
_OVER = frozenset({"TaskTimedOut", "TaskDoesNotExist", "InvalidToken"})

# Errors that remain when the call is repeated: the object has expired, or is not permitted.
_UNREADABLE = frozenset({"NoSuchKey", "NoSuchBucket", "AccessDenied"})

# The codes of SQS for a message that is visible again, or that another receiver has.
_STALE_RECEIPT = frozenset(
    {"ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight"}
)

INPUT_QUEUE = {
    "FifoQueue": "true",
    "VisibilityTimeout": "120",
    "MessageRetentionPeriod": "86400",
    "SqsManagedSseEnabled": "true",
}
INTERRUPT_QUEUE = {
    "VisibilityTimeout": "60",
    "MessageRetentionPeriod": "86400",
    "SqsManagedSseEnabled": "true",
}


class TaskOverError(Exception):
    """The task of a token has ended; Step Functions accepts no more reports of it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """The bucket and key of an object."""

    bucket: str
    key: str

    @classmethod
    def of(cls, body: Mapping[str, Any], field: str) -> "ObjectPlace | None":
        """The place in a message's field, None without one. Raises ValidationError."""
        value = body.get(field)
        if value is None:
            return None
        if isinstance(value, Mapping):
            bucket, key = value.get("bucket"), value.get("key")
            if isinstance(bucket, str) and isinstance(key, str) and bucket and key:
                return cls(bucket, key)
        raise ValidationError(field, "an object with bucket and key is required")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class ResultPlace:
    """Where the results of a claim's job are stored; `prefix` begins the key of each attempt's.

    An older flow names one key for all attempts.
    """

    place: ObjectPlace
    prefix: str | None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "ResultPlace | None":
        """The place in a message, None without one. Raises ValidationError."""
        place, prefix = ObjectPlace.of(body, "resultLocation"), body.get("resultKeyPrefix")
        if place is None:
            return None
        return cls(place, prefix if isinstance(prefix, str) and prefix else None)

    def of_attempt(self, fence: int) -> ObjectPlace:
        """A new place for the result of the worker that has this fence."""
        if self.prefix is None:
            return self.place
        return ObjectPlace(self.place.bucket, f"{self.prefix}{fence}-{secrets.token_hex(8)}.json")


@dataclass(slots=True)
class Received:
    """A received message; `body` is None if it is not a JSON object."""

    id: str
    receipt: str
    body: Mapping[str, Any] | None
    receives: int


class Queue:
    """One queue of the workspace."""

    def __init__(
        self, sqs: Any, polls: Any, name: str, attributes: Mapping[str, str], create: bool
    ) -> None:
        self._sqs = sqs
        self._polls = polls
        self.is_new = False
        """It was just created; SQS allows its use after NEW_QUEUE_SECONDS."""
        try:
            self.url = str(sqs.get_queue_url(QueueName=name)["QueueUrl"])
        except Exception as error:
            if error_code(error) not in MISSING_QUEUE_CODES:
                raise
            if not create:
                raise QueueMissingError(name) from error
            guarded = refusing_plain_http(attributes, sqs.meta.endpoint_url)
            made = sqs.create_queue(QueueName=name, Attributes=guarded)
            self.url = str(made["QueueUrl"])
            self.is_new = True

    def receive(self, wait: int, visibility: int) -> Received | None:
        """The next message, None after `wait` seconds; it stays hidden for `visibility` seconds."""
        answer = self._polls.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=wait,
            VisibilityTimeout=visibility,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        for message in answer.get("Messages", ()):
            return Received(
                id=message["MessageId"],
                receipt=message["ReceiptHandle"],
                body=_object(message["Body"]),
                receives=int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
        return None

    def delete(self, received: Received) -> None:
        """Delete a message."""
        self._sqs.delete_message(QueueUrl=self.url, ReceiptHandle=received.receipt)

    def keep(self, received: Received, seconds: int) -> None:
        """Make the message visible again `seconds` from now."""
        self._sqs.change_message_visibility(
            QueueUrl=self.url, ReceiptHandle=received.receipt, VisibilityTimeout=seconds
        )


class Tasks:
    """Reports for task tokens. Every call raises TaskOverError once the task has ended."""

    def __init__(self, stepfunctions: Any) -> None:
        self._client = stepfunctions

    def heartbeat(self, token: str) -> None:
        _report(self._client.send_task_heartbeat, taskToken=token)

    def succeed(self, token: str, output: str) -> None:
        _report(self._client.send_task_success, taskToken=token, output=output)

    def fail(self, token: str, error: str, cause: str) -> None:
        _report(self._client.send_task_failure, taskToken=token, error=error, cause=cause)


class Objects:
    """Instructions and results that are too large for messages: objects in the files bucket."""

    def __init__(self, make_client: Callable[[], Any]) -> None:
        self._make_client = make_client
        self._client: Any = None

    def instruction(self, place: ObjectPlace) -> Any:
        """The instruction that the flow has stored. Raises MalformedMessageError."""
        try:
            found = self._s3.get_object(Bucket=place.bucket, Key=place.key)
            stored = _object(found["Body"].read())
        except Exception as error:
            if (code := error_code(error)) in _UNREADABLE:
                raise MalformedMessageError(
                    f"instructionObject: {place} can't be read: {code}"
                ) from error
            raise
        if stored is None or "instruction" not in stored:
            raise MalformedMessageError(f"instructionObject: {place} has no field instruction")
        return stored["instruction"]

    def put_result(self, place: ObjectPlace, text: str) -> None:
        """Store a result; it may be repeated."""
        self._s3.put_object(
            Bucket=place.bucket,
            Key=place.key,
            Body=text.encode(),
            ContentType="application/json",
        )

    @property
    def _s3(self) -> Any:
        # Created at first use: few jobs need it.
        if self._client is None:
            self._client = self._make_client()
        return self._client


@dataclass(frozen=True, slots=True)
class Listening:
    """The request whose job it is: `report` sends its listeners what a worker tells."""

    function: str
    request: Mapping[str, Any]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Listening | None":
        """That of a message, None without one. Raises ValidationError."""
        function, request = body.get("reportFunction"), body.get("request")
        if request is None or function is None:
            return None
        if not isinstance(request, Mapping) or not isinstance(function, str):
            raise ValidationError("request", "an object with owner and requestId is required")
        return cls(function, request)


@dataclass(frozen=True, slots=True)
class Taker:
    """One delivery of a job's message to this worker; `seconds` is the message's visibility."""

    id: str
    seconds: int


class Claims:
    """The claim function, on behalf of one workspace."""

    def __init__(self, client: Any, function_name: str, workspace: Workspace) -> None:
        self._client = client
        self._function_name = function_name
        self._workspace = workspace

    def acquire(
        self, thread_id: str, message_id: str, owner: str, ttl: int, taker: Taker
    ) -> dict[str, Any]:
        """Return the function's answer: a claim, or who holds the workspace."""
        return self._invoke(
            "acquire",
            threadId=thread_id,
            messageId=message_id,
            owner=owner,
            ttlSeconds=ttl,
            taker=taker.id,
            takerSeconds=taker.seconds,
        )

    def take(self, claim_id: str, fence: int, ttl: int, taker: Taker) -> tuple[int, int]:
        """Take over the job of a claim, and return its new end in epoch seconds and its fence.

        Raises ClaimLostError, with the reason `taken` while another worker certainly has the job.
        """
        answer = self._renewed(claim_id, fence, ttl, taker=taker.id, takerSeconds=taker.seconds)
        # A stage that is older than this library answers without a fence.
        return int(answer["expiresAt"]), int(answer.get("fence", fence))

    def renew(self, claim_id: str, fence: int, ttl: int, taker: Taker) -> int:
        """Renew a claim, and return its new end in epoch seconds. Raises ClaimLostError."""
        answer = self._renewed(claim_id, fence, ttl, takerSeconds=taker.seconds)
        return int(answer["expiresAt"])

    def release(self, claim_id: str, fence: int, reason: str, taker: Taker) -> None:
        """Release a claim; one that is already gone is ignored."""
        self._invoke("release", claimId=claim_id, fence=fence, reason=reason, taker=taker.id)

    def hand_over(self, claim_id: str, fence: int, ttl: int, taker: Taker) -> None:
        """Let another worker take the job over at once. Raises ClaimLostError."""
        self._renewed(claim_id, fence, ttl, taker=taker.id, takerSeconds=0)

    def report(
        self, listening: Listening, claim_id: str, fence: int, report: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Send progress and events; report-job's answer."""
        event = {
            "operation": "report",
            "request": dict(listening.request),
            "claimId": claim_id,
            "fence": fence,
            **report,
        }
        return self._call(listening.function, event)

    def _renewed(self, claim_id: str, fence: int, ttl: int, **fields: Any) -> dict[str, Any]:
        answer = self._invoke("renew", claimId=claim_id, fence=fence, ttlSeconds=ttl, **fields)
        if not answer.get("renewed"):
            raise ClaimLostError(claim_id, fence, str(answer.get("reason")))
        return answer

    def _invoke(self, operation: str, **fields: Any) -> dict[str, Any]:
        event = {"operation": operation, "projectUserId": self._workspace.key, **fields}
        return self._call(self._function_name, event)

    def _call(self, function: str, event: Mapping[str, Any]) -> dict[str, Any]:
        response = self._client.invoke(
            FunctionName=function,
            InvocationType="RequestResponse",
            Payload=json.dumps(event).encode(),
        )
        value = _object(response["Payload"].read())
        if response.get("FunctionError"):
            fault = value or {}
            raise FunctionError(
                str(fault.get("errorMessage") or f"{function} failed"),
                error_type=fault.get("errorType"),
            )
        if value is None:
            raise BadPayloadError(f"the answer of {function} is not a JSON object")
        return value


def error_code(error: BaseException) -> str:
    """AWS's code of an SDK error; empty for other errors. Does not import the SDK."""
    response = getattr(error, "response", None)
    details = response.get("Error") if isinstance(response, Mapping) else None
    return str(details.get("Code", "")) if isinstance(details, Mapping) else ""


def is_stale_receipt(error: BaseException) -> bool:
    """Whether SQS refused a receipt, so that another worker may have the message."""
    return error_code(error).removeprefix("AWS.SimpleQueueService.") in _STALE_RECEIPT


def _report(call: Any, **parameters: str) -> None:
    try:
        call(**parameters)
    except Exception as error:
        code = error_code(error)
        if code in _OVER:
            raise TaskOverError(code) from error
        raise


def _object(text: str | bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
