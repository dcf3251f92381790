"""`jobplane event` prints events as the services send them, and the functions accept them."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobplane.events import SOURCES, Fresh, OverrideError, override
from jobplane.tree.repository import Repository
from jobplane.trying import cases
from jobplane.trying.cases import Case
from jobplane.verbs.event import command

REPOSITORY = Repository.here()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def event(*arguments: str) -> Any:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def answer(function: str, sent: Any, given: Mapping[str, Any] | None = None) -> Any:
    """A function's answer in process, without an error."""
    (found,) = REPOSITORY.select((function,))
    result = cases.run_in_process(Case(found, "-", sent, given or {}), REPOSITORY)
    assert result.outcome is not None
    assert result.outcome.error is None, result.outcome
    return result.outcome.answer


def model(function: str, case: str) -> Any:
    path = REPOSITORY.root / "functions" / function / "events" / f"{case}.json"
    return json.loads(path.read_text())


def shape(value: Any) -> Any:
    """Names and types of a document; a list as its first entry."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


JOB = '{"owner": "acme#dev", "request_id": "req-1"}'


@pytest.mark.parametrize(
    ("function", "arguments", "answered"),
    [
        ("connect", ["websocket-connect"], {"statusCode": 200}),
        ("disconnect", ["websocket-disconnect"], {"statusCode": 200}),
        ("status", ["http-v2"], {"statusCode": 404}),
        ("deliver-webhook", ["sqs"], {"batchItemFailures": []}),
        ("dispatch", ["dynamodb-stream"], {"batchItemFailures": []}),
        ("processor", ["sqs", "--set", f"Records[0].body={JOB}"], {"batchItemFailures": []}),
        ("processor", ["schedule", "--for", "processor"], {"swept": {}}),
        ("intake", ["s3"], {"outcome": "gone"}),
        ("check-active-job", ["step-functions"], {"shouldInterrupt": False}),
        ("claim", ["step-functions"], {"claimed": True}),
        (
            "handle-timeout",
            ["execution-status-change", "--set", "detail.status=TIMED_OUT"],
            {"released": False},
        ),
    ],
)
def test_a_function_accepts_a_printed_event(
    function: str, arguments: list[str], answered: dict[str, Any]
) -> None:
    assert answer(function, event(*arguments)).items() >= answered.items()


def test_router_answers_a_printed_message() -> None:
    sent = event("websocket-default", "--set", "requestContext.connectionId=conn-1")
    pong = json.loads(answer("router", sent, model("router", "ping.given"))["body"])
    assert pong["type"] == "pong"


@pytest.mark.parametrize(
    ("source", "function", "case"),
    [
        ("websocket-connect", "connect", "accepted"),
        ("websocket-default", "router", "ping"),
        ("websocket-disconnect", "disconnect", "closed"),
        ("http-v2", "status", "http"),
        ("s3", "intake", "gone"),
    ],
)
def test_a_printed_event_has_the_shape_of_a_case(source: str, function: str, case: str) -> None:
    ours, theirs = shape(event(source)), shape(model(function, case))
    for part in ("queryStringParameters", "multiValueQueryStringParameters"):
        ours.pop(part, None), theirs.pop(part, None)
    assert ours == theirs


@pytest.mark.parametrize(
    ("source", "function", "case"),
    [
        ("sqs", "deliver-webhook", "queue-gone"),
        ("execution-status-change", "handle-timeout", "execution-failed"),
    ],
)
def test_a_printed_event_lacks_no_field_of_a_case(source: str, function: str, case: str) -> None:
    assert absent(model(function, case), event(source)) == []


def absent(wanted: Any, found: Any, path: str = "") -> list[str]:
    if isinstance(wanted, dict):
        missing = [f"{path}.{name}" for name in wanted if name not in found]
        for name in wanted.keys() & found.keys():
            missing += absent(wanted[name], found[name], f"{path}.{name}")
        return missing
    if isinstance(wanted, list) and wanted:
        return absent(wanted[0], found[0], f"{path}[0]")
    return []


@pytest.mark.parametrize("change", ["insert", "modify", "remove"])
def test_a_stream_record_has_the_images_of_its_change(change: str) -> None:
    (record,) = event("dynamodb-stream", "--change", change)["Records"]
    images = {name for name in record["dynamodb"] if name.endswith("Image")}
    wanted = {"insert": {"NewImage"}, "modify": {"NewImage", "OldImage"}, "remove": {"OldImage"}}
    assert images == wanted[change]
    assert record["eventName"] == change.upper()
    assert set(record["dynamodb"]["Keys"]) == {"owner", "request_id"}
    assert ("userIdentity" in record) == (change == "remove")


def test_table_and_item_give_a_record_with_the_tables_keys() -> None:
    item = '{"connection_id": "c", "user_id": "u"}'
    (record,) = event("dynamodb-stream", "--table", "connections", "--item", item)["Records"]
    assert record["dynamodb"]["Keys"] == {"connection_id": {"S": "c"}}
    assert record["dynamodb"]["NewImage"]["user_id"] == {"S": "u"}
    table = REPOSITORY.names("local").of("connections")
    assert f"table/{table}/stream/" in record["eventSourceARN"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_seed_gives_the_same_event(source: str) -> None:
    assert event(source, "--seed", "7") == event(source, "--seed", "7")
    assert event(source, "--seed", "7") != event(source, "--seed", "8")
    assert event(source) != event(source)


def test_an_event_without_a_seed_has_the_current_time() -> None:
    before = Fresh().milliseconds
    sent = event("websocket-default")["requestContext"]["requestTimeEpoch"]
    assert before <= sent <= Fresh().milliseconds


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a.b=x", ("a", "b"), "x"),
        ("a.b=7", ("a", "b"), 7),
        ("a.b=null", ("a", "b"), None),
        ('a.b={"c": [1]}', ("a", "b"), {"c": [1]}),
        ("a.b=", ("a", "b"), ""),
        ("a.b=x=y", ("a", "b"), "x=y"),
        ("list[1].d=2", ("list", 1, "d"), 2),
        ('a["x.y"]=2', ("a", "x.y"), 2),
    ],
)
def test_set_replaces_the_value_at_a_path(
    text: str, path: tuple[str | int, ...], value: Any
) -> None:
    found: Any = override({"a": {"b": 1, "x.y": 1}, "list": [{}, {"d": 1}]}, text)
    for step in path:
        found = found[step]
    assert found == value


def test_set_changes_a_json_text_inside() -> None:
    (record,) = event("sqs", "--set", "Records[0].body.execution=2")["Records"]
    assert json.loads(record["body"])["execution"] == 2
    assert record["md5OfBody"] == hashlib.md5(record["body"].encode()).hexdigest()  # noqa: S324


@pytest.mark.parametrize(
    "text", ["a.c=1", "list[2]=1", "a.b.c=1", "text.c=1", "a", "=1", "a[x]=1", "b.c=1"]
)
def test_set_refuses_an_unknown_path(text: str) -> None:
    with pytest.raises(OverrideError):
        override({"a": {"b": 1}, "list": [1, 2], "text": "none"}, text)


def test_add_adds_a_field_or_an_entry() -> None:
    made = override({"a": {}, "list": [1]}, "a.b.c=1", add=True)
    assert override(made, "list[1]=2", add=True) == {"a": {"b": {"c": 1}}, "list": [1, 2]}


def test_event_lists_its_sources() -> None:
    listed = [re.split(r"\s{1,}", line, maxsplit=1) for line in run("--list").stdout.splitlines()]
    assert [name for name, _ in listed] == list(SOURCES)
    assert list(json.loads(run("--list", "--json").stdout)) == list(SOURCES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "missing SOURCE; known are"),
        (("kafka",), "unknown source 'kafka'; known are"),
        (("sqs", "--change", "remove"), "need the source dynamodb-stream"),
        (("sqs", "--for", "processor"), "--for needs the source schedule"),
        (("schedule", "--for", "connect"), "has no schedule with an input"),
        (("schedule", "--for", "unknown"), "unknown function 'unknown'"),
        (("sqs", "--set", "Records[0].bodi=1"), "'bodi' does not exist"),
        (("dynamodb-stream", "--table", "connections"), "needs an --item"),
        (("sqs", "--set", "Records.body=1"), "'body' needs an object, but found a list: [0] to"),
        (("dynamodb-stream", "--table", "nothing", "--item", "{}"), "known are: active-jobs, "),
        (("dynamodb-stream", "--item", "{}"), "lacks owner, request_id, which the key of requests"),
        (("dynamodb-stream", "--item", "[]"), "must be a JSON object"),
        (("dynamodb-stream", "--item", "x"), "--item is not valid JSON"),
    ],
)
def test_a_wrong_call_exits_with_2_and_the_fault(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.output
