"""jobplane_telemetry: log lines, metrics and traces."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pytest import MonkeyPatch

from jobplane_telemetry import Telemetry

CONTEXT = SimpleNamespace(
    function_name="jobplane-test-router",
    memory_limit_in_mb=512,
    invoked_function_arn="arn:aws:lambda:eu-west-1:1:function:router",
    aws_request_id="req-1",
)
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled={}"

type Lines = Any


@pytest.fixture(autouse=True)
def environment(monkeypatch: MonkeyPatch) -> None:
    for name in ("LOG_LEVEL", "METRICS_NAMESPACE", "_X_AMZN_TRACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STAGE", "test")


@pytest.fixture
def telemetry(environment: None) -> Telemetry:
    return Telemetry("router")


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return read


def test_a_log_line_has_level_time_service_and_fields(telemetry: Telemetry, lines: Lines) -> None:
    telemetry.info("request refused", code="FORBIDDEN", items=[1, None])
    (line,) = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "INFO",
        "message": "request refused",
        "service": "router",
        "code": "FORBIDDEN",
        "items": [1, None],
    }


def test_any_fields_give_one_line(telemetry: Telemetry, lines: Lines) -> None:
    telemetry.info("a\nb\u2028c", value={1}, text="\ud800")
    (line,) = lines()
    assert line["message"] == "a\nb\u2028c"


def test_every_line_has_the_invocations_fields(
    telemetry: Telemetry, lines: Lines, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE.format(0))
    handle = telemetry.handler(lambda event, context: telemetry.info("x"))
    handle({}, CONTEXT)
    handle({}, CONTEXT)
    first, second = lines()
    assert first["function_request_id"] == "req-1"
    assert first["function_name"] == "jobplane-test-router"
    assert first["function_memory_size"] == 512
    assert first["xray_trace_id"] == "1-5759e988-bd862e3fe1be46a994272793"
    assert (first["cold_start"], second["cold_start"]) == (True, False)


def test_a_handler_runs_without_a_context(telemetry: Telemetry, lines: Lines) -> None:
    """As in a local run."""
    assert telemetry.handler(lambda event, context: event)({"a": 1}, None) == {"a": 1}
    telemetry.info("x")
    assert lines()[0]["function_name"] == "router"


def test_bound_ids_end_with_their_block(telemetry: Telemetry, lines: Lines) -> None:
    with telemetry.ids(user_id="u"):
        with telemetry.ids(request_id="r"):
            telemetry.bind(assembly_id="a")
            telemetry.info("inner")
        telemetry.info("outer")
    telemetry.info("outside")
    inner, outer, outside = lines()
    assert {"user_id": "u", "request_id": "r", "assembly_id": "a"}.items() <= inner.items()
    assert outer["user_id"] == "u"
    assert not {"request_id", "assembly_id"} & outer.keys()
    assert "user_id" not in outside


def test_bound_ids_end_with_the_invocation(telemetry: Telemetry, lines: Lines) -> None:
    @telemetry.handler
    def handle(event: dict[str, str], context: Any) -> None:
        telemetry.bind(**event)
        telemetry.info("x")

    handle({"user_id": "u"}, CONTEXT)
    handle({}, CONTEXT)
    first, second = lines()
    assert first["user_id"] == "u"
    assert "user_id" not in second


def test_threads_do_not_share_bound_ids(telemetry: Telemetry, lines: Lines) -> None:
    barrier = threading.Barrier(2)

    def work(name: str) -> None:
        with telemetry.ids(name=name):
            barrier.wait()
            telemetry.info(name)

    threads = [threading.Thread(target=work, args=[name]) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(line["name"] == line["message"] for line in lines())


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("DEBUG", ["DEBUG", "INFO", "WARNING", "ERROR"]),
        ("warning", ["WARNING", "ERROR"]),
        ("ERROR", ["ERROR"]),
        ("nonsense", ["INFO", "WARNING", "ERROR"]),
    ],
)
def test_LOG_LEVEL_drops_lines_below_it(
    lines: Lines, monkeypatch: MonkeyPatch, level: str, heard: list[str]
) -> None:
    monkeypatch.setenv("LOG_LEVEL", level)
    telemetry = Telemetry("router")
    for log in (telemetry.debug, telemetry.info, telemetry.warning, telemetry.error):
        log("x")
    assert [line["level"] for line in lines()] == heard


def test_handler_logs_an_error_once_and_raises_it(telemetry: Telemetry, lines: Lines) -> None:
    """Else neither retries nor a Catch would work."""
    failure = KeyError("missing")

    @telemetry.handler
    def handle(event: Any, context: Any) -> None:
        telemetry.bind(user_id="u")
        telemetry.metric("Tried")
        raise failure

    with pytest.raises(KeyError) as raised:
        handle({}, CONTEXT)
    assert raised.value is failure
    logged, measured = lines()
    assert (logged["level"], logged["error"], logged["user_id"]) == ("ERROR", "KeyError", "u")
    assert "raise failure" in logged["stack"]
    assert measured["Tried"] == 1


def test_a_handled_exception_is_logged_with_its_stack(telemetry: Telemetry, lines: Lines) -> None:
    try:
        raise ValueError("bad")
    except ValueError as error:
        telemetry.exception("not stored", error, table="t")
    (line,) = lines()
    assert (line["error"], line["table"]) == ("ValueError", "t")
    assert line["stack"].endswith("ValueError: bad\n")


def test_metrics_have_the_embedded_format(telemetry: Telemetry, lines: Lines) -> None:
    """One line for each set of dimensions: by stage, and by stage with the dimensions.

    Ids are never dimensions: every value of a dimension is a metric that costs money.
    """

    @telemetry.handler
    def handle(event: Any, context: Any) -> None:
        telemetry.bind(user_id="u")
        telemetry.metric("Count")
        telemetry.metric("Latency", 12.5, "Milliseconds", Action="ping")
        telemetry.metric("Latency", 13.5, "Milliseconds", Action="ping")
        telemetry.metric("Refused", Action="ping")

    handle({}, CONTEXT)
    plain, dimensioned = lines()
    (directive,) = plain["_aws"]["CloudWatchMetrics"]
    assert directive == {
        "Namespace": "Jobplane",
        "Dimensions": [["Environment"]],
        "Metrics": [{"Name": "Count", "Unit": "Count"}],
    }
    assert isinstance(plain["_aws"]["Timestamp"], int)
    assert (plain["Count"], plain["Environment"], plain["service"]) == (1, "test", "router")
    (directive,) = dimensioned["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["Environment"], ["Environment", "Action"]]
    assert directive["Metrics"] == [
        {"Name": "Latency", "Unit": "Milliseconds"},
        {"Name": "Refused", "Unit": "Count"},
    ]
    assert (dimensioned["Latency"], dimensioned["Refused"]) == ([12.5, 13.5], 1)
    assert (dimensioned["Action"], dimensioned["user_id"]) == ("ping", "u")
    assert "user_id" not in str([plain["_aws"], dimensioned["_aws"]])
    assert dimensioned["function_request_id"] == "req-1"


def test_a_metric_with_more_than_100_values_is_split(telemetry: Telemetry, lines: Lines) -> None:
    """CloudWatch drops longer ones."""

    @telemetry.handler
    def handle(event: Any, context: Any) -> None:
        telemetry.metric("Once")
        for number in range(250):
            telemetry.metric("Often", number)

    handle({}, CONTEXT)
    first, second, third = lines()
    assert first["Often"] + second["Often"] + third["Often"] == list(range(250))
    assert len(first["Often"]) == len(second["Often"]) == 100
    assert first["Once"] == 1
    assert "Once" not in second
    assert second["_aws"]["CloudWatchMetrics"][0]["Metrics"] == [{"Name": "Often", "Unit": "Count"}]


def test_metrics_are_not_repeated_by_an_invocation(lines: Lines, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_NAMESPACE", "Mine")
    telemetry = Telemetry("router")

    @telemetry.handler
    def handle(event: bool, context: Any) -> None:
        if event:
            telemetry.metric("Count")

    handle(True, CONTEXT)
    handle(False, CONTEXT)
    (line,) = lines()
    assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Mine"


def test_lines_in_anothers_trace_have_its_id(
    telemetry: Telemetry, lines: Lines, monkeypatch: MonkeyPatch
) -> None:
    assert telemetry.trace_header is None
    monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE.format(0))
    header = TRACE.format(0).replace("2793", "2794")
    with telemetry.trace(header):
        telemetry.info("inner")
        assert telemetry.trace_header == header
    with telemetry.trace(None):
        telemetry.info("outer")
    assert telemetry.trace_header == TRACE.format(0)
    assert [line["xray_trace_id"][-4:] for line in lines()] == ["2794", "2793"]


@pytest.fixture
def daemon() -> Iterator[socket.socket]:
    """Replaces the X-Ray daemon."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(5)
        yield daemon


def run_traced(body: str, daemon: socket.socket, header: str = TRACE.format(1)) -> str:
    """Run a handler in a fresh process; its output."""
    address = f"127.0.0.1:{daemon.getsockname()[1]}"
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    trace = {"AWS_XRAY_DAEMON_ADDRESS": address, "_X_AMZN_TRACE_ID": header}
    environment = os.environ | keys | trace
    code = HANDLE.replace("BODY", body.strip())
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr == ""
    return done.stdout


def segments(daemon: socket.socket, number: int) -> list[dict[str, Any]]:
    """The segments that the daemon received."""
    return [json.loads(daemon.recv(65_536).split(b"\n", 1)[1]) for _ in range(number)]


HANDLE = """
import sys
from types import SimpleNamespace
from jobplane_telemetry import Telemetry
CONTEXT = SimpleNamespace(function_name="acme-prod-router")
telemetry = Telemetry("router")
@telemetry.handler
def handle(event, context):
    telemetry.bind(request_id="r1")
    BODY
try:
    handle({}, CONTEXT)
except ZeroDivisionError:
    pass
print("aws_xray_sdk" in sys.modules)
"""


@pytest.mark.parametrize("header", ["", TRACE.format(0), TRACE.format("?"), "nonsense"])
def test_an_unsampled_invocation_does_not_load_the_sdk(daemon: socket.socket, header: str) -> None:
    """It takes longer than most invocations."""
    assert run_traced("pass", daemon, header) == "False\n"


def test_a_sampled_invocation_sends_its_segment(daemon: socket.socket) -> None:
    """It continues the caller's trace, with the ids as annotations."""
    assert run_traced("pass", daemon) == "True\n"
    (segment,) = segments(daemon, 1)
    assert segment["name"] == "acme-prod-router"
    assert segment["trace_id"] == "1-5759e988-bd862e3fe1be46a994272793"
    assert segment["parent_id"] == "53995c3f42cd8ad8"
    assert segment["annotations"] == {"request_id": "r1"}
    assert segment["end_time"] >= segment["start_time"]


def test_an_aws_call_is_a_subsegment(daemon: socket.socket) -> None:
    body = """
    import botocore.session
    from botocore.config import Config
    client = botocore.session.get_session().create_client(
        "sqs", region_name="eu-west-1", endpoint_url="http://127.0.0.1:1",
        config=Config(retries={"total_max_attempts": 1}))
    try:
        client.list_queues()
    except Exception:
        pass
    """
    run_traced(body, daemon)
    (segment,) = segments(daemon, 1)
    (call,) = segment["subsegments"]
    assert call["name"] == "sqs"
    assert call["aws"]["operation"] == "ListQueues"


def test_the_trace_of_a_message_is_separate_from_the_invocations(daemon: socket.socket) -> None:
    body = f"""
    with telemetry.ids(job="j"), telemetry.trace("{TRACE.format(1).replace("2793", "2794")}"):
        telemetry.bind(inner="i")
    telemetry.bind(after="a")
    """
    run_traced(body, daemon)
    inner, outer = segments(daemon, 2)
    assert inner["trace_id"].endswith("2794")
    assert inner["annotations"] == {"request_id": "r1", "job": "j", "inner": "i"}
    assert outer["trace_id"].endswith("2793")
    assert outer["annotations"] == {"request_id": "r1", "after": "a"}


def test_a_failed_invocation_sends_its_segment(daemon: socket.socket) -> None:
    run_traced("1 / 0", daemon)
    assert len(segments(daemon, 1)) == 1
