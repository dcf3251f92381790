"""Starts MiniStack, on MiniStack's own interpreter, with five of its gaps closed.

Runs in the environment that `uv tool run` made: nothing of this workspace can be imported.
1. A worker sees the artifact and the standard library only. Without this it also sees
   MiniStack's own packages, and an undeclared dependency would work until it is on AWS.
2. A handler's exception keeps its class as `errorType`, which Step Functions' Retry and Catch
   match on; MiniStack reports `Runtime.HandlerError` for all of them.
3. Functions behind WebSocket routes go through the dispatcher that every other trigger uses,
   so that their logs reach CloudWatch Logs and a busy function gets a second worker.
4. A module that fails to import says so in its function's log.
5. An HTTP API's CORS settings work when they come from CloudFormation, whose keys are capitalised.
"""

import re
import sys
import threading
from typing import Any

from ministack import app  # type: ignore[import-not-found]
from ministack.core import lambda_runtime  # type: ignore[import-not-found]
from ministack.services import apigateway, lambda_svc  # type: ignore[import-not-found]

WITHOUT_SITE_PACKAGES = (
    "import sys\nsys.path[:] = [p for p in sys.path if not p.endswith('site-packages')]\n"
)
RAISED = '"error": str(e), "trace"'
RAISED_WITH_CLASS = '"error": str(e), "error_class": type(e).__name__, "trace"'

_last = threading.local()
_plain_invoke = lambda_runtime.Worker.invoke
_plain_execute = lambda_svc._execute_function_warm


def _invoke_noting_class(worker: Any, *args: Any, **kwargs: Any) -> Any:
    result = _plain_invoke(worker, *args, **kwargs)
    _last.error_class = result.get("error_class")
    return result


def _execute_with_class(func: Any, event: Any, request_id: str) -> Any:
    _last.error_class = None
    result = _plain_execute(func, event, request_id)
    body = result.get("body")
    if result.get("error") and isinstance(body, dict):
        if _last.error_class:
            body["errorType"] = _last.error_class
        result["log"] = result.get("log") or body.get("errorMessage", "")
    return result


def _with_camel_keys(function: Any) -> Any:
    def call(cors: dict[str, Any], origin: str) -> Any:
        return function({key[:1].lower() + key[1:]: cors[key] for key in cors or {}}, origin)

    return call


class _Dispatched:
    """What a WebSocket route gets in place of a worker: the dispatcher of all other triggers."""

    def __init__(self, _name: str, config: Any, code_zip: bytes, qualifier: str = "") -> None:
        self.record = {"config": config, "code_zip": code_zip}

    def invoke(self, event: Any, _request_id: str) -> dict[str, Any]:
        result = lambda_svc._execute_function(self.record, event)
        body = result.get("body")
        if result.get("error") or result.get("throttle"):
            message = body.get("errorMessage") if isinstance(body, dict) else str(body)
            return {"status": "error", "error": message}
        return {"status": "ok", "result": body}


def main() -> None:
    """Patch, then run MiniStack's own entry point."""
    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    if len(re.findall(re.escape(RAISED), script)) != 1:
        sys.exit("this MiniStack's worker script is not the one that the launcher was written for")
    script = script.replace(RAISED, RAISED_WITH_CLASS)
    lambda_runtime._PYTHON_WORKER_SCRIPT = WITHOUT_SITE_PACKAGES + script
    lambda_runtime.Worker.invoke = _invoke_noting_class
    lambda_svc._execute_function_warm = _execute_with_class
    lambda_runtime.get_or_create_worker = _Dispatched
    for name in ("_cors_response_headers", "_cors_preflight_response"):
        setattr(apigateway, name, _with_camel_keys(getattr(apigateway, name)))
    sys.argv = ["ministack"]
    app.main()


if __name__ == "__main__":
    main()
