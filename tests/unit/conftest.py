"""Fixtures of the functions' tests: the stack in moto, what was logged, and no network."""

import importlib
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from moto import mock_aws

from jobplane.trying.inprocess import InProcess
from tests.unit.stack import AWS, UNSET, Output, Processor, Stack, aws, connection


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name look-up is a defect of the test: everything is answered in this process."""

    def refuse(host: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"the network was asked for {host}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, no_network: None) -> Iterator[Stack]:
    """Tables, bucket and queues of the project's own templates, empty."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    with aws(), ExitStack() as hooks:
        yield Stack(monkeypatch, hooks)


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Loads a function as a new container would, on a table of assemblies that is empty."""
    assemblies = _imported("assemblies")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, assemblies.ENVIRONMENT[name])
    with mock_aws():
        assemblies.create_table()
        yield partial(assemblies.load, monkeypatch)


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Output:
    """The log lines and metrics of the test."""
    return Output(capsys)


@pytest.fixture
def processor(stack: Stack) -> Processor:
    """With one request at a time, and no waits between attempts."""
    stack.put("connections", connection())
    processor = Processor(stack.function("processor"), stack)
    processor.set(BACKOFF_BASE_SECONDS=0.0)
    return processor


def _imported(module: str) -> Any:
    """Imported when a test asks: a project without the functions has not got it."""
    return importlib.import_module(f"tests.unit.{module}")


@pytest.fixture
def jobs(stack: Stack) -> Any:
    """The functions of the claims, all with one clock."""
    return _imported("claims").Jobs(stack)


@pytest.fixture(scope="module")
def state_manager_stage() -> Iterator[tuple[InProcess, Any, Any]]:
    """Tables and buckets of state-manager, its module and that of count-files."""
    with _imported("manager").stage() as opened:
        yield opened


@pytest.fixture
def manager(state_manager_stage: tuple[InProcess, Any, Any]) -> Iterator[Any]:
    """state-manager with nothing in its tables and buckets."""
    with _imported("manager").managed(*state_manager_stage) as opened:
        yield opened
