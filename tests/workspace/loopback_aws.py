"""What a worker talks to, on a loopback port: SQS, Step Functions and Lambda from the unit tests'
stand-ins, DynamoDB from moto.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from botocore import xform_name
from botocore.exceptions import ClientError

from tests.unit.worker_services import (
    PREFIX,
    WORKSPACE,
    FakeClaims,
    FakeSqs,
    FakeStepFunctions,
    Stand,
    until,
)

INVOKE = "/2015-03-31/functions/"


class HurriedClock:
    """Real time, but waits end soon, so that polls of an empty queue are short."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait_for(self, condition: Callable[[], Any], seconds: float | None) -> Any:
        """Wait until a condition holds, or a moment is over; its value."""
        end = time.monotonic() + min(0.2, seconds or 0.2)
        pause = threading.Event()
        while not (value := condition()) and time.monotonic() < end:
            pause.wait(0.01)
        return value


class Flow(Stand):
    """The flow's side of a workspace whose worker is another process."""

    def __init__(self) -> None:
        clock: Any = HurriedClock()
        self.clock = clock
        self.sqs = FakeSqs(clock)
        self.tasks = FakeStepFunctions(clock)
        self.claims = FakeClaims(clock)

    def until_reported(self) -> None:
        """Wait until the worker has reported the end of its job."""
        until(lambda: self.tasks.ends, "the job to end")


class LoopbackAws:
    """A server for AWS's JSON protocols that passes calls to the fakes."""

    def __init__(self, flow: Flow, tables: Any) -> None:
        self.flow = flow
        self.tables = tables
        services = {
            "AmazonSQS": flow.sqs,
            "AWSStepFunctions": flow.tasks,
            "DynamoDB_20120810": tables,
        }

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    if self.path.startswith(INVOKE):
                        status, answer = 200, self._invoked(body)
                    else:
                        status, answer = 200, self._called(json.loads(body))
                except ClientError as error:
                    told = error.response["Error"]
                    kind = {"__type": told["Code"], "message": told["Message"]}
                    status, answer = 400, json.dumps(kind).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def _invoked(self, payload: bytes) -> bytes:
                name = self.path.removeprefix(INVOKE).partition("/")[0]
                answer = flow.claims.invoke(
                    FunctionName=name, InvocationType="RequestResponse", Payload=payload
                )
                content: bytes = answer["Payload"].read()
                return content

            def _called(self, parameters: dict[str, Any]) -> bytes:
                service, _, operation = self.headers["X-Amz-Target"].partition(".")
                answer = getattr(services[service], xform_name(operation))(**parameters) or {}
                answer.pop("ResponseMetadata", None)
                return json.dumps(answer).encode()

            def log_message(self, format: str, *args: Any) -> None:
                """Tests are quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    def variables(self) -> dict[str, str]:
        """The variables of a program's environment."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "PAGES_TABLE": "pages",
            "WORKSPACE": WORKSPACE.key,
            "CLAIM_FUNCTION": "claim",
            "TABLE_PREFIX": PREFIX,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
