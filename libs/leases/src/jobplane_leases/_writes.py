"""Conditional writes that recognise their own result when the answer was lost.

botocore sends a write again when its answer does not arrive. If the first one was carried out, its
own result makes the condition of the second one fail. So a write must be able to
recognise its own result:

- an update or a put stores a random id on the item; if the item has this id, it is the result. The
  other attributes are not enough: two writers may write the same at the same time;
- an update whose condition still holds after it needs no id: it is repeated;
- a transaction has a token (`ClientRequestToken`, which botocore fills in): DynamoDB
  recognises the repetition for ten minutes.

An id is lost when another update with the same mark comes between a write and its repetition. The
write then counts as refused, with the item as the other writer left it.
"""

import math
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from jobplane_keys import from_item, packed, to_item

type Row = dict[str, Any]

CONFLICT_WAITS = (0.02, 0.05, 0.1, 0.2, 0.4)
# A minute for a write that must be made, in addition to botocore's own repetitions.
CLOSING_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)

_REFUSED = "ConditionalCheckFailed"
_CONFLICT = "TransactionConflict"
_NAME = re.compile(r"#(\w+)")
_TRANSIENT_CODES = frozenset(
    {
        "InternalError",
        "InternalServerError",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionConflictException",
    }
)


class Written(NamedTuple):
    """Whether a conditional write was made, and the item after it.

    After a refused write, `row` is the stored item, or `{}` if there is no item.
    """

    done: bool
    item: Row


def update(
    dynamodb: Any,
    table: str,
    key: Mapping[str, Any],
    *,
    change: str,
    condition: str,
    values: Mapping[str, Any],
    mark: str | None = "write_id",
    patient_until: float = 0.0,
) -> Written:
    """Update an item if a condition holds.

    `change` and `condition` are DynamoDB's expressions. A name written as `#name` stands for the
    attribute `name`; `values` are JSON values by their names, without the colon.

    `mark` is the attribute for the write's id. Pass None if the condition holds after the update as
    well. Two kinds of updates of one item need different marks, so that they keep each other's.

    An update that coincides with a transaction is repeated. One that fails because DynamoDB can't
    be reached or throttles is repeated as long as the next attempt begins before
    `patient_until` (epoch seconds); otherwise botocore's error is raised.
    """
    parameters = {
        "TableName": table,
        "Key": to_item(key),
        "ReturnValues": "ALL_NEW",
        **expressions(condition, values, change),
    }
    done, answer = update_item(dynamodb, parameters, mark=mark, patient_until=patient_until)
    return Written(done, from_item(answer.get("Attributes" if done else "Item", {})))


def expressions(condition: str, values: Mapping[str, Any], change: str = "") -> Row:
    """The parameters of a write that hold its expressions, written as for `update`."""
    parameters: Row = {"ConditionExpression": condition}
    if change:
        parameters["UpdateExpression"] = change
    if names := dict.fromkeys(_NAME.findall(f"{change} {condition}")):
        parameters["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
    if values:
        parameters["ExpressionAttributeValues"] = {
            f":{name}": value for name, value in to_item(values).items()
        }
    return parameters


def update_item(
    dynamodb: Any,
    parameters: Mapping[str, Any],
    *,
    mark: str | None = "write_id",
    patient_until: float = 0.0,
) -> tuple[bool, Row]:
    """`update` with the parameters of UpdateItem: whether it was made, and DynamoDB's answer.

    The answer has `Attributes`, the new item, if the parameters ask for it; that of a refusal has
    `Item`, if there is one. Values are in DynamoDB's typed form.
    """
    write_id = {"S": new_write_id()}
    sent = {**parameters, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    if mark is not None:
        change = parameters["UpdateExpression"]
        others = f", {change[4:]}" if change.startswith("SET ") else f" {change}"
        sent["UpdateExpression"] = f"SET {mark} = :{mark}{others}"
        given = parameters.get("ExpressionAttributeValues", {})
        sent["ExpressionAttributeValues"] = {**given, f":{mark}": write_id}
    answer, refused = _send(dynamodb.update_item, sent, patient_until)
    if refused and mark is not None and answer.get("Item", {}).get(mark) == write_id:
        return True, {"Attributes": answer["Item"]}
    return not refused, answer


def create(
    dynamodb: Any,
    table: str,
    item: Mapping[str, Any],
    *,
    condition: str,
    values: Mapping[str, Any] | None = None,
) -> Written:
    """Put an item if a condition holds; `condition` and `values` are as for `update`.

    The item is stored with the put's id, in the attribute `write_id`.
    """
    made = {**item, "write_id": new_write_id()}
    parameters: dict[str, Any] = {
        "TableName": table,
        "Item": to_item(packed(made)),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        **expressions(condition, values or {}),
    }
    answer, refused = _send(dynamodb.put_item, parameters, 0.0)
    if not refused:
        return Written(True, made)
    found = from_item(answer.get("Item", {}))
    return Written(found.get("write_id") == made["write_id"], found)


def remove(dynamodb: Any, table: str, key: Mapping[str, Any], *, condition: str) -> bool:
    """Delete an item if a condition on its attributes holds, which one that is gone meets, too.

    A repetition thus recognises its own result. Returns False if the condition does not hold.
    """
    parameters = {"TableName": table, "Key": to_item(key), "ConditionExpression": condition}
    return not _send(dynamodb.delete_item, parameters, 0.0)[1]


def new_write_id() -> str:
    """A random id of 16 characters."""
    return os.urandom(8).hex()


def transact(dynamodb: Any, items: Sequence[dict[str, Any]]) -> list[str]:
    """Write all items or none. Returns [] on success, and each item's reason if a condition failed.

    A transaction that coincides with another write fails with TransactionConflict, which botocore
    does not retry. A running job writes its row several times a second, so this function retries
    it. Raises botocore's ClientError for other failures.
    """
    for wait in (*CONFLICT_WAITS, None):
        try:
            dynamodb.transact_write_items(TransactItems=items)
        except ClientError as error:
            cancelled = error.response.get("CancellationReasons", [])
            reasons = [part.get("Code", "None") for part in cancelled]
            if _REFUSED in reasons:
                return reasons
            if wait is None or _CONFLICT not in reasons:
                raise
            time.sleep(random.uniform(wait / 2, wait))
        else:
            break
    return []


def is_transient(error: BaseException) -> bool:
    """Whether a call may succeed later: throttling, a broken connection, a timeout, a 5xx."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or error.response["Error"]["Code"] in _TRANSIENT_CODES
    return isinstance(
        error,
        BotoConnectionError
        | ConnectionError
        | HTTPClientError
        | IncompleteReadError
        | ResponseStreamingError
        | TimeoutError,
    )


def assignment(changes: Mapping[str, Any], remove: Sequence[str] = ()) -> tuple[str, Row]:
    """The update expression that sets and removes attributes, and its values as `set_name`."""
    change = "SET " + ", ".join(f"#{name} = :set_{name}" for name in changes)
    change += " REMOVE " + ", ".join(f"#{name}" for name in remove) if remove else ""
    return change, {f"set_{name}": value for name, value in changes.items()}


def _send(
    call: Callable[..., Row], parameters: Mapping[str, Any], patient_until: float
) -> tuple[Row, bool]:
    """DynamoDB's answer, and whether it is that the condition was not met."""
    conflict_waits, closing_waits = iter(CONFLICT_WAITS), iter(CLOSING_WAITS)
    while True:
        try:
            return call(**parameters), False
        except (BotoCoreError, ClientError) as error:
            answer: Row = dict(error.response) if isinstance(error, ClientError) else {}
            code = answer.get("Error", {}).get("Code")
            if code == f"{_REFUSED}Exception":
                return answer, True
            wait = next(conflict_waits, None) if code == f"{_CONFLICT}Exception" else None
            if wait is None and is_transient(error):
                wait = next(closing_waits, math.inf)
                wait = wait if time.time() + wait < patient_until else None
            if wait is None:
                raise
            time.sleep(random.uniform(wait / 2, wait))
