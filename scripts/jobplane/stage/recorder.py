"""Records the writes to the rows of requests and claims, as jobplane.histories reads them.

Runs in the emulator's workers too, before a function's module is imported: it needs the standard
library, and records nothing without botocore. A call has a line before it, and one with its answer
after it, in a file of the process below `folder`; without that folder nothing is recorded. A
process that ends in between leaves a call without an answer.
"""

import itertools
import json
import os
import time
from typing import Any

WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"})
TABLES = ("-requests", "-active-jobs")
# Longer values do not belong to the state of a row.
MOST_CHARACTERS = 4096


def install(folder: str, actor: str, prefix: str = "") -> None:
    """Record the calls of this process's clients from now on, under this name.

    `prefix`: only those of tables whose names begin with it.
    """
    try:
        from botocore import client, exceptions
    except ImportError:
        return  # a function without clients

    kind: Any = client.BaseClient
    plain = kind._make_api_call
    numbers = itertools.count()

    def call(self: Any, operation: str, parameters: Any) -> Any:
        if operation not in WRITES or not os.path.isdir(folder) or not _is_kept(parameters, prefix):  # noqa: PTH112 - a cold start without pathlib
            return plain(self, operation, parameters)
        number = next(numbers)

        def note(**entry: Any) -> None:
            _append(os.path.join(folder, f"{actor}-{os.getpid()}.jsonl"), number, entry)  # noqa: PTH118 - as above

        sent = {"operation": operation, "parameters": _slim(parameters)}
        note(start=time.time(), actor=f"{actor}-{os.getpid()}", **sent)
        try:
            answer = plain(self, operation, parameters)
        except exceptions.ClientError as error:
            note(end=time.time(), answer=_slim(error.response))
            raise
        note(end=time.time(), answer=_slim(answer))
        return answer

    kind._make_api_call = call


def _is_kept(parameters: Any, prefix: str) -> bool:
    items = [part for entry in parameters.get("TransactItems", ()) for part in entry.values()]
    names = [str(part.get("TableName", "")) for part in [parameters, *items]]
    return any(name.endswith(TABLES) and name.startswith(prefix) for name in names)


def _append(path: str, number: int, entry: dict[str, Any]) -> None:
    line = json.dumps({"number": number, **entry}, separators=(",", ":"), default=str)
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return  # the recording has ended
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def _slim(value: Any) -> Any:
    """A value without what is long."""
    match value:
        case dict():
            return {name: _slim(part) for name, part in value.items()}
        case list():
            return [_slim(part) for part in value]
        case str() | bytes() if len(value) > MOST_CHARACTERS:
            return ""
        case set() | frozenset():
            return sorted(value)
    return value
