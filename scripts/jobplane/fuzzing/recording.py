"""AWS for functions under hostile input, with a record of each write that succeeded.

DynamoDB is moto's, called without HTTP, with checks of the real service that moto lacks. A queue
accepts messages and drops them. All other services are moto's.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from types import SimpleNamespace
from typing import Any

from botocore import handlers, xform_name
from moto.core.exceptions import JsonRESTError
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.responses import DynamoHandler
from moto.sqs.models import sqs_backends

from jobplane.tree.resolved import ACCOUNT, REGION

# Operations whose change other calls see. Hiding a message does not count.
WRITES = frozenset({
    "AbortMultipartUpload", "BatchWriteItem", "CompleteMultipartUpload", "CopyObject",
    "CreateMultipartUpload", "CreateQueue", "DeleteItem", "DeleteMessage", "DeleteObject",
    "PutItem", "PutObject", "PutParameter", "SendMessage", "SendMessageBatch",
    "TransactWriteItems", "UpdateItem", "UploadPart",
})  # fmt: skip
MAX_DEPTH = 32
MAX_DIGITS = 38
NUMBERS = (Decimal("1e-130"), Decimal("1e126"))
MAX_BYTES = 400 * 1024
MAX_MESSAGE_BYTES = 1024 * 1024
NOT_IN_MESSAGES = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# The limits of a partition key and of a sort key.
MAX_KEY_BYTES = (2048, 1024)


class RefusedCallError(Exception):
    """DynamoDB would refuse the call."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Recorder:
    def __init__(self) -> None:
        self.writes: list[str] = []
        """`service.Operation` of each write that succeeded, in order."""

    @contextmanager
    def recording(self) -> Iterator[None]:
        hooks: list[tuple[str, Any]] = [
            ("before-call.dynamodb", self._answer),
            ("before-call.sqs.SendMessage", self._take_message),
            ("after-call", self._note),
        ]
        handlers.BUILTIN_HANDLERS.extend(hooks)
        try:
            yield
        finally:
            for hook in hooks:
                handlers.BUILTIN_HANDLERS.remove(hook)

    def _note(self, model: Any, http_response: Any, **_: Any) -> None:
        if http_response.status_code < 300 and model.name in WRITES:
            self.writes.append(f"{model.service_model.service_name}.{model.name}")

    def _answer(self, model: Any, params: Mapping[str, Any], **_: Any) -> Any:
        try:
            request = json.loads(params["body"])
            check(request)
            return _response(200, _call(model.name, request))
        except RefusedCallError as refused:
            return _response(400, _error(refused.code, str(refused)))
        except JsonRESTError as error:
            described = json.loads(error.description)
            code = described.pop("__type").rpartition("#")[2]
            text = described.pop("message", None) or described.pop("Message", "")
            return _response(400, _error(code, text) | described)

    def _take_message(self, params: Mapping[str, Any], **_: Any) -> Any:
        """Accept a message without moto, which searches the whole queue for each one."""
        request = json.loads(params["body"])
        body = request["MessageBody"]
        if request["QueueUrl"].rpartition("/")[2] not in sqs_backends[ACCOUNT][REGION].queues:
            missing = "AWS.SimpleQueueService.NonExistentQueue"
            return _response(400, _error(missing, "There is no such queue"))
        if not body or len(body.encode(errors="replace")) > MAX_MESSAGE_BYTES:
            return _response(400, _error("InvalidParameterValue", "A message has 1 byte to 1 MiB"))
        if NOT_IN_MESSAGES.search(body):
            return _response(400, _error("InvalidMessageContents", "A character is not allowed"))
        return _response(200, {"MessageId": str(uuid.uuid4())})


def check(request: Mapping[str, Any]) -> None:
    """Raise RefusedCallError for keys, items and values of expressions that DynamoDB refuses."""
    for transacted in request.get("TransactItems", ()):
        for part in transacted.values():
            check(part)
    for table, part in request.get("RequestItems", {}).items():
        for key in part.get("Keys", ()):
            _check_key(table, key)
    if "Key" in request:
        _check_key(request["TableName"], request["Key"])
    for name in ("Item", "ExpressionAttributeValues", "ExclusiveStartKey"):
        values = request.get(name, {})
        if len(json.dumps(values, ensure_ascii=False).encode(errors="replace")) > MAX_BYTES:
            raise RefusedCallError("ValidationException", "Item size has exceeded 400 KB")
        for value in values.values():
            _check_value(value, 0)


def _check_key(table: str, key: Mapping[str, Any]) -> None:
    schema = dynamodb_backends[ACCOUNT][REGION].get_table(table)
    for name, value in key.items():
        _check_value(value, 0)
        most = MAX_KEY_BYTES[name != schema.hash_key_attr]
        if "S" in value and not 0 < len(value["S"].encode()) <= most:
            raise RefusedCallError("ValidationException", f"{name} has 1 to {most} bytes")


def _check_value(value: Mapping[str, Any], depth: int) -> None:
    ((kind, content),) = value.items()
    if depth > MAX_DEPTH:
        raise RefusedCallError("ValidationException", "Nesting levels have exceeded the limit")
    match kind:
        case "S":
            _check_text(content)
        case "N":
            _check_number(content)
        case "L":
            for part in content:
                _check_value(part, depth + 1)
        case "M":
            for name, part in content.items():
                _check_text(name)
                if not name:
                    raise RefusedCallError("ValidationException", "A name is empty")
                _check_value(part, depth + 1)


def _check_text(text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RefusedCallError("SerializationException", "Half of a surrogate pair")


def _check_number(text: str) -> None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise RefusedCallError("ValidationException", "Not a number") from None
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    is_in_range = number.is_finite() and (number == 0 or NUMBERS[0] <= abs(number) < NUMBERS[1])
    if not is_in_range or len(digits) > MAX_DIGITS:
        raise RefusedCallError("ValidationException", "A number beyond 38 digits or its range")


def _call(operation: str, request: dict[str, Any]) -> dict[str, Any]:
    handler: Any = DynamoHandler()
    handler.body = handler.params = request
    handler.region, handler.current_account = REGION, ACCOUNT
    handler.headers, handler.response_headers = {}, {}
    result: dict[str, Any] = getattr(handler, xform_name(operation))().result
    return result


def _response(status: int, content: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    metadata = {"HTTPStatusCode": status, "RequestId": "R", "HTTPHeaders": {}, "RetryAttempts": 0}
    return SimpleNamespace(status_code=status), {**content, "ResponseMetadata": metadata}


def _error(code: str, text: str) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": text}}
