"""The functions in this process against the deployed stage, with a record of their calls."""

import importlib.util
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from botocore.httpsession import URLLib3Session

from jobplane.tree.repository import Repository
from tests.e2e.deployed import Deployed


def load(
    deployed: Deployed, name: str, monkeypatch: pytest.MonkeyPatch, **variables: str
) -> ModuleType:
    """A function's module with the environment that is deployed, and the root's credentials.

    Args:
        variables: what is to be otherwise in its environment.
    """
    declared = deployed.configuration(name)["Environment"]["Variables"]
    environment = declared | deployed.stage.environment() | variables
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    (function,) = Repository.here().select((name,))
    module_name = f"inside_{function.module}"
    spec = importlib.util.spec_from_file_location(module_name, function.source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module_name, module)
    spec.loader.exec_module(module)
    return module


def context(seconds: int = 300) -> Any:
    """The context of a handler."""
    return SimpleNamespace(
        aws_request_id=str(uuid.uuid4()),
        function_name="inside",
        invoked_function_arn="arn:aws:lambda:eu-west-1:000000000000:function:inside",
        memory_limit_in_mb=512,
        get_remaining_time_in_millis=lambda: seconds * 1000,
    )


@contextmanager
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The calls of AWS within the block: `GetItem`, `PutItem`, …, `POST @connections`."""
    sent: list[str] = []
    plain = URLLib3Session.send

    def send(self: URLLib3Session, request: Any) -> Any:
        target = request.headers.get("X-Amz-Target", "")
        target = target.decode() if isinstance(target, bytes) else target
        path = request.url.partition("?")[0]
        sent.append(
            target.partition(".")[2]
            or f"{request.method} {'@connections' if '@connections' in path else path}"
        )
        return plain(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(URLLib3Session, "send", send)
        yield sent
