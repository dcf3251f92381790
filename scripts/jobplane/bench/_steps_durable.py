"""A durable function of AWS's SDK that does `count` small steps; it measures itself.

Runs in a worker of the emulator, beside the SDK.
"""

import time
from typing import Any

from aws_durable_execution_sdk_python import (  # type: ignore[import-not-found]
    durable_execution,
)
from botocore import client

_calls: list[str] = []
_kind: Any = client.BaseClient
_plain = _kind._make_api_call


def _counted(self: Any, operation: str, parameters: Any) -> Any:
    _calls.append(operation)
    return _plain(self, operation, parameters)


_kind._make_api_call = _counted


@durable_execution  # type: ignore[untyped-decorator]
def handler(event: dict[str, Any], context: Any) -> dict[str, float]:
    before, began, busy = len(_calls), time.perf_counter(), time.process_time()
    for number in range(event["count"]):
        context.step(lambda _, number=number: {"number": number}, name=f"step-{number}")
    return {
        "seconds": time.perf_counter() - began,
        "busy": time.process_time() - busy,
        "calls": len(_calls) - before,
    }
