"""Records the writes to the rows of requests, claims and lanes, as jobplane.histories reads them.

Runs in the emulator's workers too, before a function's module is imported: it needs the standard
library, and records nothing without botocore. A call has a line before it, and one with its answer
after it, in a file of the process below `folder`; without that folder nothing is recorded. A
process that ends in between leaves a call without an answer.

If the stage's folder `usage` exists, it has every call and every invocation with what AWS bills of
it, as jobplane.bench.cost reads them.
"""

import itertools
import json
import os
import time
from typing import Any

WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"})
TABLES = ("-requests", "-active-jobs", "-lanes")
# Longer values do not belong to the state of a row.
MOST_CHARACTERS = 4096


def install(folder: str, actor: str, prefix: str = "", usage: str = "") -> None:
    """Record the calls of this process's clients from now on, under this name.

    `prefix`: only those of tables whose names begin with it. `usage`: the folder for bills.
    """
    try:
        from botocore import client, exceptions
    except ImportError:
        return  # a function without clients

    kind: Any = client.BaseClient
    plain = kind._make_api_call
    numbers = itertools.count()

    def call(self: Any, operation: str, parameters: Any) -> Any:
        if usage and os.path.isdir(usage):  # noqa: PTH112 - as below
            service = self.meta.service_model.service_name
            size = _sent_bytes(parameters)
            sent = {"service": service, "operation": operation, "bytes": size}
            _append(_file_in(usage, actor), next(numbers), sent)
        if operation not in WRITES or not os.path.isdir(folder) or not _is_kept(parameters, prefix):  # noqa: PTH112 - a cold start without pathlib
            return plain(self, operation, parameters)
        number = next(numbers)

        def note(**entry: Any) -> None:
            _append(_file_in(folder, actor), number, entry)

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


def measured(usage: str, actor: str, handler: Any) -> Any:
    """A handler that notes processor time, peak of memory and sizes of each invocation."""

    def handle(event: Any, context: Any) -> Any:
        if not os.path.isdir(usage):  # noqa: PTH112 - as above
            return handler(event, context)
        began = time.process_time()
        answer = None
        try:
            answer = handler(event, context)
        finally:
            spent = (time.process_time() - began) * 1000
            given = event if isinstance(event, dict) else {}
            records = given.get("Records") or [{}]
            entry = {
                "function": actor,
                "key": os.environ.get("AWS_ACCESS_KEY_ID", ""),
                "cpu_ms": spent,
                "peak_kb": _peak_kb(),
                "trace": os.environ.get("_X_AMZN_TRACE_ID", "").partition(";")[0],
                "source": records[0].get("eventSource", ""),
                "route": given.get("requestContext", {}).get("routeKey", ""),
                "in": _text_bytes(given.get("body")),
                "out": _text_bytes(answer.get("body")) if isinstance(answer, dict) else 0,
            }
            _append(_file_in(usage, actor), -1, entry)
        return answer

    return handle


def _peak_kb() -> int:
    """The largest resident memory; 0 where the system does not tell that of this program alone."""
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123 - as above
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        return 0


def _file_in(folder: str, actor: str) -> str:
    return os.path.join(folder, f"{actor}-{os.getpid()}.jsonl")  # noqa: PTH118 - as above


def _sent_bytes(parameters: Any) -> int:
    """The bytes of a message, or of an object, that a call sends."""
    entries = parameters.get("Entries") or [parameters]
    return sum(
        _text_bytes(entry.get(name)) for entry in entries for name in ("MessageBody", "Data")
    )


def _text_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else 0


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
