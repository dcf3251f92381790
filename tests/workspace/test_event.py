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


def test_connect_accepts_a_printed_handshake() -> None:
    """Its token is one of the stage."""
    assert answer("connect", event("websocket-connect"))["statusCode"] == 200


def test_router_answers_a_printed_message() -> None:
    sent = event("websocket-default", "--set", "requestContext.connectionId=conn-1")
    pong = json.loads(answer("router", sent, connected())["body"])
    assert pong["type"] == "pong"


def connected() -> dict[str, Any]:
    """The connection `conn-1`, as one of connect's own events leaves it."""
    path = REPOSITORY.root / "functions" / "router" / "events" / "ping.given.json"
    given: dict[str, Any] = json.loads(path.read_text())
    return given


def test_disconnect_accepts_a_printed_event() -> None:
    assert answer("disconnect", event("websocket-disconnect"))["statusCode"] == 200


def test_status_answers_a_printed_request_with_404() -> None:
    assert answer("status", event("http-v2"))["statusCode"] == 404


def test_deliver_webhook_accepts_a_printed_message() -> None:
    """Its assembly does not exist."""
    assert answer("deliver-webhook", event("sqs")) == {"batchItemFailures": []}


def test_dispatch_accepts_a_printed_record() -> None:
    assert answer("dispatch", event("dynamodb-stream")) == {"batchItemFailures": []}


def test_processor_accepts_a_printed_message() -> None:
    body = {"owner": "acme#dev", "request_id": "req-1"}
    sent = event("sqs", "--set", f"Records[0].body={json.dumps(body)}")
    assert answer("processor", sent) == {"batchItemFailures": []}


def test_processor_accepts_its_printed_schedule() -> None:
    """`--for` gives the input of function.yml."""
    assert event("schedule", "--for", "processor") == {"sweep": "leases"}
    assert answer("processor", event("schedule", "--for", "processor")) == {"swept": {}}


@pytest.mark.parametrize("function", ["check-active-job", "claim"])
def test_the_functions_of_the_flow_accept_a_printed_input(function: str) -> None:
    assert answer(function, event("step-functions"))


def test_handle_timeout_accepts_a_printed_event_of_the_rule() -> None:
    sent = event("execution-status-change", "--set", "detail.status=TIMED_OUT")
    assert answer("handle-timeout", sent)["released"] is False


@pytest.mark.parametrize(
    ("source", "function", "case"),
    [
        ("websocket-connect", "connect", "accepted"),
        ("websocket-default", "router", "ping"),
        ("websocket-disconnect", "disconnect", "closed"),
        ("http-v2", "status", "http"),
    ],
)
def test_a_printed_event_has_every_field_of_the_functions_case(
    source: str, function: str, case: str
) -> None:
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
def test_a_printed_event_lacks_no_field_of_the_functions_case(
    source: str, function: str, case: str
) -> None:
    assert absent(model(function, case), event(source)) == []


def absent(wanted: Any, found: Any, path: str = "") -> list[str]:
    if isinstance(wanted, dict):
        return [
            problem
            for name, value in wanted.items()
            for problem in (
                absent(value, found[name], f"{path}.{name}")
                if name in found
                else [f"{path}.{name}"]
            )
        ]
    if isinstance(wanted, list) and wanted:
        return absent(wanted[0], found[0], f"{path}[0]")
    return []


@pytest.mark.parametrize("change", ["insert", "modify", "remove"])
def test_a_stream_record_has_the_images_of_its_change(change: str) -> None:
    """INSERT has a new image, REMOVE an old one, MODIFY both."""
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
    assert (
        f"table/{Repository.here().names('local').of('connections')}/stream/"
        in record["eventSourceARN"]
    )


@pytest.mark.parametrize("source", SOURCES)
def test_a_seed_gives_the_same_event(source: str) -> None:
    """Without one, ids and times differ."""
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
    """Values are JSON if they can be parsed."""
    found: Any = override({"a": {"b": 1, "x.y": 1}, "list": [{}, {"d": 1}]}, text)
    for step in path:
        found = found[step]
    assert found == value


def test_set_changes_a_json_text_inside() -> None:
    """And the fields derived from it."""
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
        (
            ("sqs", "--set", "Records.body=1"),
            "'body' needs an object, but found a list: [0] to [0]\n",
        ),
        (("dynamodb-stream", "--table", "nothing", "--item", "{}"), "known are: active-jobs, "),
        (
            ("dynamodb-stream", "--item", "{}"),
            "lacks owner, request_id, which the key of requests needs",
        ),
        (("dynamodb-stream", "--item", "[]"), "must be a JSON object"),
        (("dynamodb-stream", "--item", "x"), "--item is not valid JSON"),
    ],
)
def test_a_wrong_call_exits_with_2_and_the_fault(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.output
