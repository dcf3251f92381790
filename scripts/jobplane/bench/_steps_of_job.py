"""A handler for processor with an action that does `count` small steps; it measures itself.

Runs in a worker of the emulator, beside processor's own modules.
"""

import time
from typing import Any

from botocore import client

_calls: list[str] = []
_kind: Any = client.BaseClient
_plain = _kind._make_api_call


def _counted(self: Any, operation: str, parameters: Any) -> Any:
    _calls.append(operation)
    return _plain(self, operation, parameters)


_kind._make_api_call = _counted

import processor  # noqa: E402 - its clients are made afterwards


@processor.action("steps")
def steps(job: Any) -> dict[str, float]:
    before, began, busy = len(_calls), time.perf_counter(), time.process_time()
    for number in range(job.payload()["count"]):
        job.step(f"step-{number}", lambda number=number: {"number": number})
    return {
        "seconds": time.perf_counter() - began,
        "busy": time.process_time() - busy,
        "calls": len(_calls) - before,
    }


handler = processor.handler
