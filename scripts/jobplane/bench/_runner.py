"""One cold start: runs in a fresh interpreter with the standard library and one folder.

Its arguments are the folder, the module, the file of the event and the descriptor to report to. It
reports three readings of the monotonic clock, which all processes share, and the answer.
"""

import json
import os
import sys
import time


class Context:
    """The part of Lambda's context object that handlers use."""

    function_name = memory_limit_in_mb = function_version = "1"
    aws_request_id = "5e9b1c1e-8a57-4d0f-9d3e-6a0c1b2d3e4f"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:f"

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


folder, module, event, descriptor = sys.argv[1:]
with open(event, encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be loaded for all
    event = json.load(file)
sys.path[:] = [folder, *sys.path]
began = time.monotonic_ns()
handler = __import__(module).handler
imported = time.monotonic_ns()
answer = handler(event, Context())
answered = time.monotonic_ns()
report = {"began": began, "imported": imported, "answered": answered, "answer": answer}
os.write(int(descriptor), json.dumps(report, default=str).encode())
os._exit(0)
