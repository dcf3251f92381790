"""router: every action and refusal, ownership of requests, and the calls of a message."""

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.auth
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jobplane_keys import (
    MAX_MESSAGE_BYTES,
    assembly_id,
    execution_name,
    owner_key,
    tenant_shard,
    tenant_workspace,
    upload_prefix,
)
from jobplane_leases.callbacks import new_token
from jobplane_models.answers import RequestState
from jobplane_models.messages import AcknowledgmentMessage, ClientMessage, ErrorMessage
from jobplane_models.payloads import MAX_FILES
from tests.examples import examples
from tests.unit.stack import (
    MARK,
    OWNER,
    PREFIX,
    ROOT,
    Context,
    Output,
    Row,
    Stack,
    connection,
    ended,
    event,
    iso,
    request,
    subscription,
)

TEMPLATES = ROOT / "templates" / "index.json"
STRANGER = owner_key("tenant-2", "user-9")
COLLEAGUE = owner_key("tenant-1", "user-2")
ARCHIVE: Row = {"template_id": "tpl_archive"}
REQ_1: Row = {"request_id": "req-1"}
NAMES = [
    "callback",
    "cancel",
    "count",
    "create_upload",
    "delay",
    "echo",
    "generate_report",
    "health",
    "instruct",
    "ping",
    "process_assembly",
    "replay",
    "status",
    "subscribe",
    "unsubscribe",
]  # fmt: skip


class Router:
    """The function, and a client's messages to it."""

    def __init__(self, module: ModuleType, stack: Stack) -> None:
        self.module = module
        self.stack = stack

    def raw(self, body: Any, connection_id: str = "conn-1") -> Row:
        """The function's whole answer to a message."""
        sent = event("router", "echo")
        sent["body"] = body if isinstance(body, str) or body is None else json.dumps(body)
        sent["requestContext"]["connectionId"] = connection_id
        answer: Row = self.module.handler(sent, Context())
        return answer

    def say(self, body: Any, connection_id: str = "conn-1") -> Row:
        """The message in the answer."""
        answer = self.raw(body, connection_id)
        assert answer["statusCode"] == 200
        message: Row = json.loads(answer["body"], parse_constant=refuse_constant)
        assert message["timestamp"].endswith("Z")
        return message

    def ask(self, action: str, payload: Any = None, **more: Any) -> Row:
        """The answer to an immediate action."""
        message = {"id": "ask-1", "action": action, "payload": payload or {}} | more
        return self.say(message)

    def data(self, action: str, payload: Any = None, **more: Any) -> Row:
        """The data of a successful response."""
        message = self.ask(action, payload, **more)
        assert (message["type"], message["success"]) == ("response", True), message
        data: Row = message["data"]
        return data

    def uploads(self, *files: Row, **more: Any) -> Row:
        """The data of the answer to create_upload."""
        return self.data("create_upload", ARCHIVE | {"files": files} | more)

    def cancel(self) -> str:
        """The status in the answer to a cancellation of req-1."""
        status: str = self.data("cancel", REQ_1)["status"]
        return status

    def refused(self, action: str, payload: Any, **more: Any) -> Row:
        return self.error({"action": action, "payload": payload} | more)

    def meanwhile(self, *rows: Row) -> None:
        """Another writer stores each row in turn, after the function has read the request."""
        found, left = self.module.request_of, [*rows]

        def read(*arguments: Any) -> Any:
            row = found(*arguments)
            if left:
                self.stack.put("requests", left.pop(0))
            return row

        self.stack.monkeypatch.setattr(self.module, "request_of", read)

    def error(self, body: Any) -> Row:
        """The error of a refused message; checks that nothing was written."""
        before = self.stack.everything()
        message = self.say(body)
        assert message["type"] == "error", message
        assert self.stack.everything() == before
        ErrorMessage.model_validate(message)
        error: Row = message["error"]
        return error


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@pytest.fixture
def router(stack: Stack) -> Router:
    stack.put("connections", connection())
    return Router(stack.function("router"), stack)


@pytest.fixture
def bystanders(stack: Stack) -> Iterator[None]:
    """Requests of another tenant and of a colleague under the ids of these tests."""
    strangers = [request("req-1", owner=STRANGER, tenant_id="tenant-2")]
    strangers += [request("req-1", owner=COLLEAGUE)]
    stack.put("requests", *strangers)
    yield
    assert [stack.request(owner=row["owner"]) for row in strangers] == strangers


def md5_of(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def file(name: str = "a.txt", body: bytes = b"hello", **changes: Any) -> Row:
    sent = {"name": name, "size": len(body), "mime": "text/plain", "md5hash": md5_of(body)}
    return sent | changes


def uploaded(owner: str = OWNER, **changes: Any) -> Row:
    return file(**changes) | {"key": f"{upload_prefix(owner)}job/1"}


def test_there_are_the_actions_of_the_protocol(router: Router) -> None:
    assert sorted(router.module.ACTIONS) == NAMES


@pytest.mark.parametrize(
    "body",
    [
        None, "", " ", "{", "nonsense", '{"action":"echo"', "{'action': 'echo'}", '{"a":NaN}',
        '{"action":"echo","payload":{"n":Infinity}}',
        '{"action":"echo","payload":{"n":1e999}}',
        '{"action":"echo","payload":{"s":"\\ud800"}}',
        "[" * 20_000, "\x00", "1" * 5000, "[]", '"echo"', "7", "null", "true",
    ],
)  # fmt: skip
def test_text_that_is_not_a_json_object_is_invalid(router: Router, body: str | None) -> None:
    """As is text that no JSON answer can hold."""
    assert router.error(body)["code"] == "INVALID_MESSAGE"


@pytest.mark.parametrize("body", [7, True, 1.5, ["ping"], {"action": "ping"}])
def test_a_body_that_is_not_a_text_is_an_invalid_message(router: Router, body: Any) -> None:
    sent = event("router", "ping") | {"body": body}
    answer = json.loads(router.module.handler(sent, Context())["body"])
    assert answer["error"]["code"] == "INVALID_MESSAGE"


@pytest.mark.parametrize("depth", [100, 1000, 5000, 9980, 9990, 9993, 9996, 12_000])
def test_deep_nesting_is_echoed_or_refused(router: Router, depth: int) -> None:
    body = '{"action":"echo","payload":{"a":' + "[" * depth + "]" * depth + "}}"
    answer = router.raw(body)
    assert answer["statusCode"] == 200
    assert '"type":"response"' in answer["body"] or "INVALID_MESSAGE" in answer["body"]


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ({"action": None}, "action"), ({"action": 7}, "action"), ({"action": ["echo"]}, "action"),
        ({"id": ""}, "id"), ({"id": 7}, "id"), ({"id": "a b"}, "id"), ({"id": "a\n"}, "id"),
        ({"id": "x" * 129}, "id"), ({"id": "ü"}, "id"),
        ({"payload": []}, "payload"), ({"payload": None}, "payload"),
        ({"payload": "text"}, "payload"), ({"metadata": []}, "metadata"),
        ({"metadata": None}, "metadata"), ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a": None}}, "metadata.a"),
        (
            {"action": 7, "id": "a b", "payload": [], "metadata": {"a": 1}},
            "action id payload metadata.a",
        ),
    ],
)  # fmt: skip
def test_a_malformed_envelope_is_refused(router: Router, message: Any, fields: str) -> None:
    """All faults are in one answer."""
    error = router.error({"action": "echo"} | message)
    assert error["code"] == "VALIDATION_ERROR"
    assert [detail["field"] for detail in error["details"]] == fields.split()


def test_an_envelope_without_an_action_is_refused(router: Router) -> None:
    assert [detail["field"] for detail in router.error({})["details"]] == ["action"]


def test_the_list_of_faults_is_bounded(router: Router) -> None:
    error = router.error({"action": "echo", "metadata": {str(n): n for n in range(1000)}})
    assert len(error["details"]) == 20


def test_unknown_envelope_fields_are_ignored(router: Router) -> None:
    """A later protocol may add fields."""
    assert router.ask("echo", {"a": 1}, version=2)["type"] == "response"


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)  # fmt: skip
request_ids = st.sampled_from(
    ["req-1", "a", "x" * 128, "x" * 129, "", "a b", "ü", "a\n", "A.b:c_d-1"]
)
optional = {
    "id": request_ids | json_values,
    "action": st.sampled_from([*NAMES, "", "reboot"]) | json_values,
    "payload": st.dictionaries(st.text(max_size=5), json_values, max_size=3) | json_values,
    "metadata": st.dictionaries(st.text(max_size=5), st.text(max_size=5)) | json_values,
    "extra": json_values,
}
envelopes = st.fixed_dictionaries({}, optional=optional)
with_fixture = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=examples(150),
)


@with_fixture
@given(message=envelopes)
def test_the_check_and_the_model_accept_the_same_messages(router: Router, message: Row) -> None:
    """The check on the hot path does without pydantic."""
    faults = router.module.envelope_faults(message)
    try:
        ClientMessage.model_validate(message)
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted == (not faults)


@with_fixture
@given(body=st.text(max_size=200) | st.one_of(envelopes, json_values).map(json.dumps))
def test_any_text_gets_one_well_formed_answer(router: Router, body: str) -> None:
    """Without internals; a refused message writes nothing."""
    before = router.stack.everything()
    message = router.say(body)
    assert message["type"] in {"response", "acknowledgment", "error", "pong"}
    text = json.dumps(message)
    assert PREFIX not in text
    assert "Traceback" not in text
    if message["type"] == "error":
        assert message["error"]["code"] not in {"INTERNAL_ERROR", "SERVICE_UNAVAILABLE"}
        assert router.stack.everything() == before


payload_fields = st.sampled_from(
    ["template_id", "files", "uploads", "fields", "start_date", "end_date", "format", "group_by",
     "seconds", "steps", "fail_at", "transient", "request_id", "since_seq", "user_id"],
)  # fmt: skip
likely_values = json_values | st.sampled_from(
    ["req-1", "2026-11-01", "2026-11-30", "csv", "day", "tpl_archive", 0, 1, 3, 1.5, -1, True, "",
     [file()], [file(name="../x")], [uploaded()], {"a": 1}],
)  # fmt: skip


@with_fixture
@given(
    action=st.sampled_from(NAMES),
    payload=st.dictionaries(payload_fields, likely_values, max_size=5),
    metadata=st.dictionaries(st.sampled_from(["mode", "on_disconnect", "user_id"]),
                             st.sampled_from(["sync", "async", "cancel", "detach", "user-2"])),
)  # fmt: skip
def test_any_payload_is_answered_or_refused_with_reason(
    router: Router, action: str, payload: Row, metadata: dict[str, str]
) -> None:
    sent = {"action": action, "payload": payload, "metadata": metadata}
    before = router.stack.everything()
    message = router.say(sent)
    if message["type"] == "error":
        known = {"VALIDATION_ERROR", "NOT_FOUND", "FORBIDDEN"}
        assert message["error"]["code"] in known
        assert router.stack.everything() == before


@pytest.mark.parametrize("action", NAMES)
def test_a_message_above_the_limit_is_refused_for_every_action(router: Router, action: str) -> None:
    body = json.dumps({"action": action, "payload": {"pad": "x" * MAX_MESSAGE_BYTES}})
    assert router.error(body)["code"] == "PAYLOAD_TOO_LARGE"


def test_the_message_limit_counts_bytes(router: Router) -> None:
    frame = len(json.dumps({"action": "echo", "payload": {"t": ""}}))
    room = MAX_MESSAGE_BYTES - frame

    def echo(text: str) -> Row:
        sent = {"action": "echo", "payload": {"t": text}}
        return router.say(json.dumps(sent, ensure_ascii=False))

    assert echo("x" * room)["type"] == "response"
    assert echo("x" * (room + 1))["error"]["code"] == "PAYLOAD_TOO_LARGE"
    assert echo("ü" * room)["error"]["code"] == "PAYLOAD_TOO_LARGE"


def test_an_answer_above_128_kb_is_refused(router: Router) -> None:
    """Numbers may grow when written again."""
    body = '{"action":"echo","payload":{"n":[' + ",".join(["1e15"] * 15_000) + "]}}"
    assert len(body) < MAX_MESSAGE_BYTES
    assert router.error(body)["code"] == "PAYLOAD_TOO_LARGE"


def test_an_unknown_action_is_refused_with_the_known_ones(router: Router) -> None:
    error = router.error({"action": "reboot"})
    assert error["code"] == "INVALID_ACTION"
    assert error["details"]["known_actions"] == NAMES
    assert not error["retryable"]


@pytest.mark.parametrize("name", ["Echo", "echo ", "__class__", "", "ECHO"])
def test_action_names_are_case_sensitive_and_without_spaces(router: Router, name: str) -> None:
    assert router.error({"action": name})["code"] == "INVALID_ACTION"


def test_two_actions_can_not_have_the_same_name(router: Router) -> None:
    with pytest.raises(ValueError, match="echo"):
        router.module.action("echo")(lambda request: {})


def test_an_error_has_the_request_id_if_it_is_valid(router: Router) -> None:
    assert router.say({"id": "req-7", "action": "reboot"})["request_id"] == "req-7"
    assert "request_id" not in router.say({"id": "a b", "action": "echo"})


def test_the_identity_comes_only_from_the_connections_row(router: Router, stack: Stack) -> None:
    """User, tenant and permissions in a message have no effect."""
    lies = {"user_id": "user-9", "tenant_id": "tenant-2", "permissions": "reports,tenant:read"}
    answer = router.ask("delay", {"seconds": 0}, id="req-1", metadata=lies)
    assert answer["type"] == "acknowledgment"
    (row,) = stack.items("requests")
    assert (row["owner"], row["tenant_id"]) == (OWNER, tenant_shard("tenant-1", "req-1", 4))
    report = {"start_date": "2026-11-01", "end_date": "2026-11-02"}
    assert router.refused("generate_report", report, metadata=lies)["code"] == "FORBIDDEN"


def past(field: str) -> Row:
    """An attribute of a connection that ended its rights a second ago."""
    now = time.time()
    return {field: iso(now - 7201) if field == "connected_at" else int(now) - 1}


@pytest.mark.parametrize("field", ["token_expires_at", "ttl", "connected_at"])
def test_an_expired_token_gets_UNAUTHORIZED_and_closes_the_socket(
    router: Router, stack: Stack, output: Output, field: str
) -> None:
    stack.put("connections", connection(**past(field)))
    answer = router.raw({"action": "delay", "payload": {"seconds": 0}})
    assert answer == {"statusCode": 401}
    (message,) = stack.sockets.to("conn-1")
    assert (message["type"], message["error"]["code"]) == ("error", "UNAUTHORIZED")
    assert stack.sockets.closed == ["conn-1"]
    assert stack.items("requests") == []
    assert output.metric("RequestRefused")[0]["ErrorType"] == "UNAUTHORIZED"


def test_an_unknown_connection_is_closed(router: Router, stack: Stack) -> None:
    assert router.raw({"action": "ping"}, "conn-9") == {"statusCode": 401}
    assert stack.sockets.closed == ["conn-9"]


@pytest.mark.parametrize(("status", "code"), [(410, "Gone"), (500, "InternalServerError")])
def test_a_failed_close_is_ignored(router: Router, stack: Stack, status: int, code: str) -> None:
    stack.sockets.failing["conn-9"] = (status, code)
    assert router.raw({"action": "ping"}, "conn-9") == {"statusCode": 401}


def test_ping_is_answered_with_pong(router: Router) -> None:
    answer = router.ask("ping")
    del answer["timestamp"]
    assert answer == {"type": "pong", "request_id": "ask-1"}


def test_ping_writes_the_row_at_most_once_a_minute(router: Router, stack: Stack) -> None:
    calls = stack.calls(router.module.dynamodb)
    router.ask("ping")
    assert calls.counts() == {"GetItem": 1}
    stack.put("connections", connection(last_seen_at=iso(time.time() - 61)))
    calls.clear()
    router.ask("ping")
    router.ask("ping")
    assert calls.counts() == {"GetItem": 2, "UpdateItem": 1}
    seen = stack.get("connections", connection_id="conn-1")["last_seen_at"]
    assert seen >= iso(time.time() - 10)


def test_ping_does_not_create_the_row_of_an_ended_connection(router: Router, stack: Stack) -> None:
    """Such a row would have no time to live."""
    stack.put("connections", connection(last_seen_at=iso(time.time() - 61)))
    found = router.module.connection_of

    def then_gone(*arguments: Any) -> Any:
        row = found(*arguments)
        stack.dynamodb.delete_item(
            TableName=f"{PREFIX}connections", Key={"connection_id": {"S": "conn-1"}}
        )
        return row

    stack.monkeypatch.setattr(router.module, "connection_of", then_gone)
    assert router.raw({"action": "ping"}) == {"statusCode": 401}
    assert stack.items("connections") == []


def test_echo_returns_any_json_payload(router: Router) -> None:
    payload: Row = {"n": [1, 2.5, -0.25, 10**18], "s": "Grüße 🎉", "x": None}
    payload |= {"b": True, "o": {"": {}}}
    data = router.data("echo", payload)
    assert (data["echo"], data["action"]) == (payload, "echo")
    assert data["received_at"].endswith("Z")


def test_echo_costs_one_GetItem_and_no_other_call(router: Router, stack: Stack) -> None:
    calls = stack.calls(router.module.dynamodb)
    router.ask("echo", {"a": 1})
    assert calls.counts() == {"GetItem": 1}
    assert calls[0][1]["TableName"] == f"{PREFIX}connections"
    assert stack.sockets.attempts == {}


def test_health_reads_the_requests_table(router: Router, stack: Stack) -> None:
    calls = stack.calls(router.module.dynamodb)
    data = router.data("health")
    assert data["status"] == "healthy"
    assert data["version"]
    check = data["checks"]["requests_table"]
    assert check["status"] == "healthy"
    assert check["latency_ms"] > 0
    tables = [params["TableName"] for params in calls.of("GetItem")]
    assert tables == [f"{PREFIX}connections", f"{PREFIX}requests"]


def test_create_upload_signs_one_put_per_file(router: Router) -> None:
    files = [file("a.txt", b"hello"), file("b.bin", b"world!", mime="application/octet-stream")]
    data = router.uploads(*files)
    job = assembly_id([f["md5hash"] for f in files], "tpl_archive", OWNER)
    assert data["assembly_id"] == job
    assert data["completed"] is False
    assert data["expires_at"] > iso(time.time())
    for sent, upload in zip(files, data["uploads"], strict=True):
        assert upload["key"] == f"{upload_prefix(OWNER)}{job}/{sent['md5hash']}"
        assert upload["method"] == "PUT"
        assert {name: upload[name] for name in sent} == sent


def test_a_presigned_put_binds_md5_length_and_type(router: Router) -> None:
    (upload,) = router.uploads(file())["uploads"]
    query = parse_qs(urlsplit(upload["url"]).query)
    signed = query["X-Amz-SignedHeaders"][0].split(";")
    assert {"content-md5", "content-length", "content-type", "host"} <= set(signed)
    assert query["X-Amz-Expires"] == ["3600"]
    assert upload["headers"] == {
        "Content-MD5": base64.b64encode(bytes.fromhex(md5_of(b"hello"))).decode(),
        "Content-Length": "5",
        "Content-Type": "text/plain",
    }  # fmt: skip


def test_another_length_or_md5_is_another_signature(router: Router) -> None:
    """For the same key."""

    def signature(**changes: Any) -> str:
        url: str = router.uploads(file(**changes))["uploads"][0]["url"]
        return parse_qs(urlsplit(url).query)["X-Amz-Signature"][0]

    now = datetime(2026, 11, 22, 10, 15, 30)  # noqa: DTZ001  # botocore's times are naive
    router.stack.monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: now)
    assert signature() == signature()
    assert len({signature(), signature(size=6), signature(mime="text/html")}) == 3


def test_an_md5_in_hex_and_base64_gives_the_same_job(router: Router) -> None:
    spelled = base64.b64encode(bytes.fromhex(md5_of(b"hello"))).decode()
    texts = (md5_of(b"hello"), md5_of(b"hello").upper(), spelled)
    assert len({router.uploads(file(md5hash=text))["assembly_id"] for text in texts}) == 1


def test_the_job_is_the_same_for_the_same_files_in_any_order(router: Router) -> None:
    """Template, fields and content change it."""

    def job(*bodies: bytes, **more: Any) -> str:
        found: str = router.uploads(*(file(body=body) for body in bodies), **more)["assembly_id"]
        return found

    assert job(b"a", b"b") == job(b"b", b"a")
    jobs = [job(b"a"), job(b"b"), job(b"a", template_id="tpl_table"), job(b"a", fields={"x": 1})]
    assert len(set(jobs)) == 4


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "a/b.txt", "..", "ünïcödé.txt", "日本.csv", "a\nb", "🎉", ".x", "C:\\x"],
)  # fmt: skip
def test_a_key_does_not_have_the_files_name(router: Router, name: str) -> None:
    """It is made of hashes."""
    (upload,) = router.uploads(file(name))["uploads"]
    assert upload["name"] == name
    assert upload["key"].rpartition("/")[2] == md5_of(b"hello")
    assert upload["key"].count("/") == 3


def test_an_empty_file_can_be_uploaded(router: Router) -> None:
    (upload,) = router.uploads(file("empty", b""))["uploads"]
    assert upload["headers"]["Content-Length"] == "0"


def test_more_than_a_thousand_files_are_refused(router: Router) -> None:
    files = [{"name": "a", "size": 1, "md5hash": "0" * 32}] * (MAX_FILES + 1)
    body = json.dumps({"action": "create_upload", "payload": ARCHIVE | {"files": files}})
    assert len(body) < MAX_MESSAGE_BYTES
    error = router.error(body)
    assert error["code"] == "VALIDATION_ERROR"
    assert error["details"][0]["field"] == "payload.files"


def long_files(number: int) -> list[Row]:
    """Files whose names have 255 characters."""
    md5s = [md5_of(b"%d" % n) for n in range(number)]
    return [{"name": f"{n:.>251}.txt", "size": 1, "md5hash": md5} for n, md5 in enumerate(md5s)]


def stored(router: Router, payload: Any) -> Row:
    """Upload a payload as a client does; the payload of the message that names it."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    (upload,) = router.uploads(file("payload.json", body))["uploads"]
    router.stack.upload(upload["key"], body)
    return {"payload_key": upload["key"]}


def test_a_thousand_files_can_be_had(router: Router, stack: Stack) -> None:
    """Their lists go through objects, both ways: with names of 255 characters, too."""
    files = long_files(MAX_FILES)
    data = router.data("create_upload", stored(router, ARCHIVE | {"files": files}))
    assert data.keys() == {"assembly_id", "completed", "expires_at", "url"}
    key = urlsplit(data["url"]).path.partition("/results/")[2]
    uploads = json.loads(stack.object(f"results/{key}"))["uploads"]
    assert [each["name"] for each in uploads] == [each["name"] for each in files]
    assert all("X-Amz-Signature" in each["url"] for each in uploads)
    entries = [{name: each[name] for name in ("key", *file())} for each in uploads]
    sent = stored(router, ARCHIVE | {"uploads": entries})
    for _ in range(2):
        message = router.say({"id": "req-1", "action": "process_assembly", "payload": sent})
        assert (message["type"], message["status"]) == ("acknowledgment", "queued")
        assert message["assembly_id"] == data["assembly_id"]
    row = stack.request()
    assert json.loads(stack.object(row["payload_object"]))["uploads"] == entries


def test_a_list_that_fits_is_in_the_message(router: Router) -> None:
    """A thousand short names fit into a message of the client, not into the answer."""
    short = [each | {"name": each["name"][-8:]} for each in long_files(MAX_FILES)]
    assert "url" in router.uploads(*short)
    assert len(router.uploads(*short[:100])["uploads"]) == 100


@pytest.mark.parametrize(
    ("code", "field", "change"),
    [
        ("FORBIDDEN", "payload.payload_key", {"payload_key": "results/a/b"}),
        ("FORBIDDEN", "payload.payload_key", {"payload_key": f"{upload_prefix('t#other')}a/b"}),
        ("VALIDATION_ERROR", "payload.payload_key", {"payload_key": f"{upload_prefix(OWNER)}a"}),
        ("VALIDATION_ERROR", "payload.payload_key", {"payload_key": 1}),
        ("VALIDATION_ERROR", "payload.template_id", {"template_id": "tpl_archive"}),
        ("VALIDATION_ERROR", "payload.files", b'{"template_id": "tpl_archive", "files": []}'),
        ("VALIDATION_ERROR", "payload.payload_key", b'{"payload_key": "uploads/a"}'),
        ("INVALID_MESSAGE", None, b"[1]"),
        ("INVALID_MESSAGE", None, b"[" * 100_000),
        ("INVALID_MESSAGE", None, b'{"size": 1e999}'),
        ("PAYLOAD_TOO_LARGE", None, b" " * (2 * 1024 * 1024 + 1)),
    ],
)
def test_a_faulty_payload_in_an_object_is_refused(
    router: Router, code: str, field: str | None, change: Row | bytes
) -> None:
    sent = stored(router, change if isinstance(change, bytes) else b"{}")
    error = router.refused("create_upload", sent if isinstance(change, bytes) else sent | change)
    assert error["code"] == code
    assert field in [None, *(each["field"] for each in error.get("details", ()))]


@pytest.mark.parametrize(
    ("changes", "completed"),
    [
        ({}, True),
        ({"error": "PROCESSING_ERROR"}, False),
        ({"ok": None}, False),
        ({"owner": STRANGER}, False),
        ({"ttl": 1}, False),
    ],
)
def test_create_upload_of_a_finished_job_says_so(
    router: Router, stack: Stack, changes: Row, completed: bool
) -> None:
    """Only of the caller's own job."""
    job = assembly_id([md5_of(b"hello")], "tpl_archive", OWNER)
    document = {
        "assembly_id": job, "owner": OWNER, "user_id": "user-1", "tenant_id": "tenant-1",
        "created_at": iso(time.time()), "ok": "ASSEMBLY_COMPLETED", "ttl": int(time.time()) + 100,
    } | changes  # fmt: skip
    stack.put("assemblies", {k: v for k, v in document.items() if v is not None})
    assert router.uploads(file())["completed"] is completed


def test_a_queued_request_is_a_row_with_these_attributes(router: Router, stack: Stack) -> None:
    before = int(time.time())
    router.ask("delay", {"seconds": 2, "steps": 4}, id="req-1", metadata={"trace": "abc"})
    row = stack.request()
    assert before + 7 * 86400 <= row.pop("ttl") <= time.time() + 7 * 86400
    assert before + 300 <= row.pop("lease_until") <= time.time() + 300
    assert row.pop("created_at") == row.pop("updated_at")
    assert row.pop("lease_shard").startswith("lease-")
    assert row.pop("write_id")
    assert row == {
        "owner": OWNER, "request_id": "req-1", "tenant_id": "tenant-1\n1",
        "connection_id": "conn-1", "action": "delay", "status": "PENDING", "attempts": 0,
        "max_attempts": 4,
        "payload": '{"fail_at":null,"seconds":2.0,"steps":4,"transient":false}',
        "metadata": {"trace": "abc"}, "cancel_requested": False, "on_disconnect": "detach",
        "subscriber_count": 0,
    }  # fmt: skip


def test_the_acknowledgment_says_queued(router: Router) -> None:
    message = router.ask("delay", {}, id="req-1")
    assert AcknowledgmentMessage.model_validate(message).status == "queued"
    assert (message["type"], message["request_id"]) == ("acknowledgment", "req-1")


def test_an_enqueue_costs_one_read_and_one_write(router: Router, stack: Stack) -> None:
    calls = stack.calls(router.module.dynamodb)
    router.ask("delay", {}, id="req-1")
    assert calls.counts() == {"GetItem": 1, "PutItem": 1}
    assert calls.of("GetItem")[0]["TableName"] == f"{PREFIX}connections"
    assert "ConditionExpression" in calls.of("PutItem")[0]
    assert stack.sockets.attempts == {}


def test_a_message_without_an_id_gets_a_new_sortable_one(router: Router, stack: Stack) -> None:
    ids = [router.say({"action": "delay"})["request_id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert {row["request_id"] for row in stack.items("requests")} == set(ids)


def test_a_repeated_message_gets_the_state_of_its_job(router: Router, stack: Stack) -> None:
    payload = {"seconds": 1, "steps": 2}
    router.ask("delay", payload, id="req-1")
    before = stack.everything()
    again = router.ask("delay", dict(reversed(payload.items())), id="req-1")
    assert again["status"] == "queued"
    assert stack.everything() == before


@pytest.mark.parametrize(
    ("row", "status"),
    [
        (request(payload={}, status="PROCESSING", attempts=1), "processing"),
        (request(payload={}, status="RETRYING", attempts=1), "retrying"),
        (ended(payload={}), "completed"),
        (ended(payload={}, status="FAILED"), "failed"),
        (ended(payload={}, status="CANCELLED"), "cancelled"),
    ],
)
def test_a_known_request_is_acknowledged_with_its_status(
    router: Router, stack: Stack, row: Row, status: str
) -> None:
    stored = row | {"payload": '{"fail_at":null,"seconds":1.0,"steps":10,"transient":false}'}
    stack.put("requests", stored)
    assert router.ask("delay", {}, id="req-1")["status"] == status
    assert stack.request() == stored


@pytest.mark.parametrize(
    "message",
    [
        {"action": "delay", "payload": {"seconds": 2}},
        {"action": "echo", "payload": {"seconds": 1}, "metadata": {"mode": "async"}},
    ],
)
def test_another_request_under_a_used_id_is_refused(router: Router, message: Any) -> None:
    router.ask("delay", {"seconds": 1}, id="req-1")
    error = router.error({"id": "req-1"} | message)
    assert (error["code"], error["retryable"]) == ("DUPLICATE_REQUEST", False)


def test_an_expired_request_frees_its_id(router: Router, stack: Stack) -> None:
    old = ended(ttl=int(time.time()) - 1, progress={"seq": 9, "percentage": 100})
    stack.put("requests", old)
    assert router.ask("delay", {}, id="req-1")["status"] == "queued"
    row = stack.request()
    assert row["status"] == "PENDING"
    assert not {"result", "progress", "ended_at", "seq"} & row.keys()


def test_two_users_may_use_the_same_id(router: Router, stack: Stack, bystanders: None) -> None:
    assert router.ask("delay", {}, id="req-1")["status"] == "queued"
    assert len(stack.items("requests")) == 3


@pytest.mark.parametrize("name", ["echo", "health"])
def test_a_short_action_may_be_queued(router: Router, stack: Stack, name: str) -> None:
    """`metadata.mode` stores it as a job."""
    answer = router.ask(name, {"b": 1, "a": 2}, id="req-1", metadata={"mode": "async"})
    assert answer["type"] == "acknowledgment"
    assert (stack.request()["action"], stack.request()["payload"]) == (name, '{"a":2,"b":1}')


@pytest.mark.parametrize(
    ("name", "mode"),
    [("ping", "async"), ("status", "async"), ("delay", "sync"), ("echo", "ASYNC"), ("echo", "")],
)
def test_a_mode_that_an_action_lacks_is_refused(router: Router, name: str, mode: str) -> None:
    payload = REQ_1 if name == "status" else {}
    error = router.error({"action": name, "payload": payload, "metadata": {"mode": mode}})
    assert error["code"] == "VALIDATION_ERROR"
    assert error["details"][0]["field"] == "metadata.mode"


def test_the_policy_for_a_lost_connection_is_stored(router: Router, stack: Stack) -> None:
    """`cancel` or `detach`; others are refused."""
    router.ask("delay", {}, id="req-1", metadata={"on_disconnect": "cancel"})
    assert stack.request()["on_disconnect"] == "cancel"
    error = router.error({"action": "delay", "metadata": {"on_disconnect": "stay"}})
    assert error["details"][0]["field"] == "metadata.on_disconnect"


LANES = [
    (0, None, {}),
    (5, None, {"lane": "tenant#tenant-1", "lane_limit": 5}),
    (5, 2, {"lane": "action#delay", "lane_limit": 2}),
]


@pytest.mark.parametrize(("tenant", "own", "lane"), LANES)
def test_a_limit_makes_a_lane(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, tenant: int, own: int | None, lane: Row
) -> None:
    """The row names the lane, its slots, and the place among those that wait."""
    module = stack.function("router", MAX_RUNNING_PER_TENANT=str(tenant))
    router = Router(module, stack)
    stack.put("connections", connection())
    delay = replace(router.module.ACTIONS["delay"], limit=own)
    monkeypatch.setitem(router.module.ACTIONS, "delay", delay)
    router.ask("delay", {}, id="req-1", metadata={"priority": "high"})
    row = stack.request()
    order = {"waiting_order": f"0#{row['created_at']}"} if lane else {}
    assert {name: row[name] for name in row if "lane" in name or "order" in name} == lane | order


def test_an_action_may_have_a_rate(
    router: Router, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows have it. It needs a limit, and has bounds."""
    delay = replace(router.module.ACTIONS["delay"], limit=2, per_minute=30)
    monkeypatch.setitem(router.module.ACTIONS, "delay", delay)
    router.ask("delay", {}, id="req-1")
    assert stack.request()["lane_rate"] == 30
    for wrong in (
        {"per_minute": 1},
        {"per_minute": 0, "limit": 1},
        {"per_minute": 6001, "limit": 1},
    ):
        with pytest.raises(ValueError, match="from 1 to 6,000"):
            router.module.action("other", **wrong)(lambda request: {})


DELAYS = [
    ({"delay_seconds": "60"}, 60), ({"delay_seconds": "2592000"}, 30 * 86400),
    ({"delay_seconds": "0"}, None), ({"run_at": -60}, None), ({"run_at": 3600}, 3600),
    ({"run_at": 30 * 86400 - 60}, 30 * 86400 - 60),
]  # fmt: skip


def metadata_of(given: Row) -> Row:
    """`run_at` as a text, of so many seconds from now."""
    moment = datetime.now().astimezone() + timedelta(seconds=given.get("run_at", 0))
    return given | ({"run_at": moment.isoformat()} if "run_at" in given else {})


@pytest.mark.parametrize(("given", "seconds"), DELAYS)
def test_a_job_can_be_scheduled(
    router: Router, stack: Stack, given: Row, seconds: int | None
) -> None:
    """By one PutItem. What is due now, or was before, is queued."""
    calls = stack.calls(router.module.dynamodb)
    began, metadata = time.time(), metadata_of(given)
    answer = router.ask("delay", {}, id="req-1", metadata=metadata)
    assert calls.counts() == {"GetItem": 1, "PutItem": 1}
    row = stack.request()
    if seconds is None:
        assert (answer["status"], row["status"]) == ("queued", "PENDING")
        return
    assert (answer["status"], answer["message"]) == ("scheduled", "Request scheduled")
    assert 0 <= row["lease_until"] - began - seconds < 60
    state = router.data("status", REQ_1)
    assert state["why_waiting"]["until"] == state["run_at"] == row["run_at"]
    assert router.ask("delay", {}, id="req-1", metadata=metadata)["status"] == "scheduled"
    assert stack.request() == row
    assert router.cancel() == "cancelled"
    assert stack.request()["status"] == "CANCELLED"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"delay_seconds": "2592001"}, "delay_seconds"), ({"delay_seconds": "-1"}, "delay_seconds"),
        ({"delay_seconds": "1.5"}, "delay_seconds"), ({"delay_seconds": "9" * 99}, "delay_seconds"),
        ({"delay_seconds": "٣"}, "delay_seconds"), ({"run_at": "soon"}, "run_at"),
        ({"run_at": "2026-11-22T10:15:30"}, "run_at"), ({"run_at": 31 * 86400}, "run_at"),
        ({"run_at": -31 * 86400}, "run_at"), ({"run_at": "0001-01-01T00:00:00+23:59"}, "run_at"),
        ({"run_at": 60, "delay_seconds": "60"}, "run_at"),
    ],
)  # fmt: skip
def test_a_schedule_that_is_malformed_is_refused(
    router: Router, stack: Stack, given: Row, field: str
) -> None:
    is_text = isinstance(given.get("run_at", ""), str)
    metadata = given if is_text else metadata_of(given)
    error = router.error({"action": "delay", "metadata": metadata})
    assert [each["field"] for each in error["details"]] == [f"metadata.{field}"]
    sync = router.error({"action": "echo", "metadata": metadata})
    assert sync["details"][0]["message"] == "possible for a job only"
    assert stack.items("requests") == []


def test_an_unknown_priority_is_refused(router: Router) -> None:
    error = router.error({"action": "delay", "metadata": {"priority": "urgent"}})
    assert error["details"] == [
        {"field": "metadata.priority", "message": "expected one of high, normal, low"}
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("queued", "updated_at")),
        ({"waiting_since": "2026-11-22T10:15:30.250Z"}, ("lane_full", "waiting_since")),
        ({"status": "RETRYING"}, ("retrying", "updated_at")),
        ({"status": "PROCESSING"}, None),
    ],
)
def test_a_look_up_says_why_a_job_waits(
    router: Router, stack: Stack, changes: Row, expected: tuple[str, str] | None
) -> None:
    row = request() | changes
    stack.put("requests", row)
    state = router.data("status", REQ_1)
    RequestState.model_validate(state)
    why = None if expected is None else {"reason": expected[0], "since": row[expected[1]]}
    assert state.get("why_waiting") == why


def test_metadata_with_an_empty_key_is_refused(router: Router) -> None:
    """DynamoDB has no attribute without a name."""
    error = router.error({"action": "delay", "metadata": {"": "x"}})
    assert (error["code"], error["details"][0]["field"]) == ("VALIDATION_ERROR", "metadata")
    assert router.ask("echo", {}, metadata={"": "x"})["type"] == "response"


def test_the_trace_header_is_stored_with_the_request(router: Router, stack: Stack) -> None:
    header = "Root=1-6921a0c2-3f1d2c4b5a69788796a5b4c3;Parent=53995c3f42cd8ad8;Sampled=0"
    stack.monkeypatch.setenv("_X_AMZN_TRACE_ID", header)
    router.ask("delay", {}, id="req-1")
    assert stack.request()["trace_header"] == header


def test_process_assembly_has_the_assembly_id(router: Router, stack: Stack, output: Output) -> None:
    made = router.uploads(file())
    upload = {n: made["uploads"][0][n] for n in ("key", "name", "size", "mime", "md5hash")}
    answer = router.ask("process_assembly", ARCHIVE | {"uploads": [upload]}, id="req-1")
    assert answer["assembly_id"] == made["assembly_id"] == stack.request()["assembly_id"]
    assert json.loads(stack.request()["payload"])["uploads"] == [upload]
    (document,) = stack.items("assemblies")
    assert (document["request_id"], answer["execution"]) == ("req-1", document["execution"])
    (line,) = output.logged("request acknowledged")
    assert (line["request_id"], line["assembly_id"]) == ("req-1", answer["assembly_id"])
    assert (line["connection_id"], line["status"]) == ("conn-1", "PENDING")


@pytest.mark.parametrize(
    "key",
    [
        upload_prefix(STRANGER) + "x", upload_prefix(COLLEAGUE) + "x", "results/abc/step/x",
        "uploads/x", "/" + upload_prefix(OWNER) + "x", upload_prefix(OWNER).upper() + "x",
    ],
)  # fmt: skip
def test_a_foreign_upload_is_forbidden(router: Router, key: str) -> None:
    """Keys must be below the caller's own prefix; the error has the wrong one."""
    uploads = [uploaded(), file("b.txt", b"world") | {"key": key}]
    error = router.refused("process_assembly", ARCHIVE | {"uploads": uploads})
    assert error["code"] == "FORBIDDEN"
    assert [detail["field"] for detail in error["details"]] == ["payload.uploads.1.key"]


@pytest.mark.parametrize(
    ("named", "nearest"),
    [("tpl_archiv", "tpl_archive"), ("Table", "tpl_table"), ("tpl_hash", None), ("x" * 64, None)],
)
@pytest.mark.parametrize("action", ["create_upload", "process_assembly"])
def test_an_unknown_template_is_refused_with_the_nearest_name(
    router: Router, action: str, named: str, nearest: str | None
) -> None:
    """Before an upload, and before a job is stored."""
    upload = file() | {"key": f"{upload_prefix(OWNER)}job/{md5_of(b'hello')}"}
    files = {"files": [file()]} if action == "create_upload" else {"uploads": [upload]}
    error = router.refused(action, {"template_id": named, **files})
    assert error["code"] == "VALIDATION_ERROR"
    assert f"no template {named!r}" in error["message"]
    known = [template["id"] for template in json.loads(TEMPLATES.read_bytes())["templates"]]
    assert any(f"did you mean {each!r}" in error["message"] for each in known)
    if nearest:
        assert f"did you mean {nearest!r}" in error["message"]
    (detail,) = error["details"]
    assert detail["field"] == "payload.template_id"
    assert all(each in detail["message"] for each in known)


@pytest.mark.parametrize(
    ("size", "place"), [(1013, ""), (1014, "item"), (6989, "item"), (6990, "object")]
)
def test_a_payload_above_a_kilobyte_is_not_on_the_row(
    router: Router, stack: Stack, size: int, place: str
) -> None:
    """A repetition is the same request, and another payload of the same size is a different one."""
    calls = stack.calls(router.module.dynamodb)
    asked = {"id": "req-1", "metadata": {"mode": "async"}, "action": "echo"}
    for _ in range(2):
        message = router.say(asked | {"payload": {"text": "a" * size}})
        assert message["type"] == "acknowledgment"
    row = stack.request()
    assert row.keys() & {"payload", "payload_item", "payload_object"} == {
        f"payload_{place}" if place else "payload"
    }
    text = json.dumps({"text": "a" * size}, separators=(",", ":"))
    if place == "object":
        assert stack.object(row["payload_object"]) == text.encode()
    elif place:
        (item,) = [each for each in stack.items("requests") if "status" not in each]
        assert item["payload"] == text
        # A second may begin between the two writes.
        assert item["ttl"] - row["ttl"] == pytest.approx(7 * 24 * 3600, abs=1)
    assert calls.counts()["PutItem"] == (4 if place == "item" else 2)
    other = router.say(asked | {"payload": {"text": "b" * size}})
    assert other["error"]["code"] == "DUPLICATE_REQUEST"
    assert stack.request() == row


def test_users_of_two_tenants_never_share_a_job(stack: Stack) -> None:
    stack.put("connections", connection(), connection("conn-2", tenant_id="tenant-2"))
    router = Router(stack.function("router"), stack)
    message = {"action": "create_upload", "payload": ARCHIVE | {"files": [file()]}}
    ids = {router.say(message, who)["data"]["assembly_id"] for who in ("conn-1", "conn-2")}
    assert len(ids) == 2


def test_ASSEMBLY_ID_FORM_chooses_an_older_form(stack: Stack) -> None:
    stack.put("connections", connection())
    router = Router(stack.function("router", ASSEMBLY_ID_FORM="concat"), stack)
    data = router.uploads(file())
    text = f"{md5_of(b'hello')}tpl_archiveuser-1"
    assert data["assembly_id"] == hashlib.sha256(text.encode()).hexdigest()


def test_a_report_needs_the_permission_reports(router: Router, stack: Stack) -> None:
    november = {"start_date": "2026-11-01", "end_date": "2026-11-30"}
    assert router.refused("generate_report", november)["code"] == "FORBIDDEN"
    stack.put("connections", connection(permissions=["reports"]))
    assert router.ask("generate_report", november, id="req-1")["type"] == "acknowledgment"
    stored = json.loads(stack.request()["payload"])
    assert stored == november | {"format": "json", "group_by": "day"}


def test_status_returns_state_progress_and_times(router: Router, stack: Stack) -> None:
    progress = {"seq": 4, "percentage": 40.5, "message": "Step 4", "at": iso(time.time())}
    held = {"lease_owner": "secret-worker", "progress": progress}
    stack.put("requests", request(status="PROCESSING", attempts=1, **held))
    data = router.data("status", REQ_1)
    assert (data["status"], data["seq"], data["progress"]) == ("PROCESSING", 4, progress)
    others = "request_id action attempts cancel_requested created_at updated_at"
    assert set(data) == {"status", "seq", "progress", *others.split()}


def test_connection_and_request_are_read_consistently(router: Router, stack: Stack) -> None:
    stack.put("requests", request())
    calls = stack.calls(router.module.dynamodb)
    router.data("status", REQ_1)
    assert [read["ConsistentRead"] for read in calls.of("GetItem")] == [True, True]


STOLEN = {"echo": {"key": "results/of-somebody-else.json", "url_key": "reports/theirs.csv"}}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (ended(result='{"n":1}'), {"status": "COMPLETED", "result": {"n": 1}, "seq": 3}),
        (ended(action="echo", result=json.dumps(STOLEN), links=[]), {"result": STOLEN}),
        (
            ended(result=json.dumps({"t": "x" * 100_000})),
            {"status": "COMPLETED", "result": None, "result_omitted": True},
        ),
        (ended(status="FAILED"), {"status": "FAILED", "error": ended(status="FAILED")["error"]}),
    ],
    ids=["result", "echo of a key", "too large for a message", "error"],
)
def test_status_of_an_ended_request_has_its_outcome(
    router: Router, stack: Stack, row: Row, expected: Row
) -> None:
    """The keys in an echo are the client's own text."""
    stack.put("requests", row)
    data = router.data("status", REQ_1)
    assert {name: data.get(name) for name in expected} == expected
    assert ("result" in data, "error" in data) == ("result" in expected, "error" in expected)


def test_keys_in_a_result_become_links_when_it_is_read(router: Router, stack: Stack) -> None:
    """Except in the user's own `meta`."""
    stored = {"url_key": "reports/x/1.csv", "meta": {"key": "mine"}}
    stack.put("requests", ended(result=json.dumps(stored), links=["url_key"]))
    result = router.data("status", REQ_1)["result"]
    assert result["meta"] == {"key": "mine"}
    assert "X-Amz-Signature" in result["url"]
    assert "url_key" not in result


def test_a_large_result_is_a_link(router: Router, stack: Stack) -> None:
    stack.put("requests", ended(result=None, result_key="results/requests/o/req-1.json"))
    result = router.data("status", REQ_1)["result"]
    assert list(result) == ["url"]
    assert parse_qs(urlsplit(result["url"]).query)["X-Amz-Expires"] == ["3600"]


@pytest.mark.parametrize("source", ["row", "object"])
def test_links_within_a_large_result_are_renewed(router: Router, stack: Stack, source: str) -> None:
    """Who asks later gets links that are good from then on, not those of the job's end."""
    text = json.dumps({"results": {"s": [{"key": "results/a1/f.txt"}]}})
    row = ended(result=None, result_key="results/requests/o/r/1.json", links=["results/*/*/key"])
    if source == "row":
        row["result"] = text
    else:
        row["source_key"] = "results/requests/o/r/1.source.json"
        stack.upload(row["source_key"], text.encode())
    stack.upload(row["result_key"], b"links of long ago")
    stack.put("requests", row)
    assert list(router.data("status", REQ_1)["result"]) == ["url"]
    (file,) = json.loads(stack.object(row["result_key"]))["results"]["s"]
    assert list(file) == ["ssl_url"]
    assert "results/a1/f.txt?" in file["ssl_url"]


@pytest.mark.parametrize("action", ["status", "subscribe", "cancel"])
def test_another_users_request_is_not_found(
    router: Router, stack: Stack, bystanders: None, action: str
) -> None:
    """The answer is that for an unknown id, and for one that has expired."""
    error = router.refused(action, REQ_1)
    assert error["code"] == "NOT_FOUND"
    assert router.refused(action, {"request_id": "req-0"}) == error
    stack.put("requests", ended(ttl=int(time.time()) - 1))
    assert router.refused(action, REQ_1) == error


@pytest.mark.parametrize("action", ["status", "subscribe", "unsubscribe", "cancel"])
@pytest.mark.parametrize(
    "payload", [{}, {"request_id": ""}, {"request_id": 7}, {"request_id": "a b"}]
)
def test_a_malformed_reference_is_refused(router: Router, action: str, payload: Any) -> None:
    error = router.refused(action, payload)
    assert [detail["field"] for detail in error["details"]] == ["payload.request_id"]


NOVEMBER = {"start_date": "2026-11-01", "end_date": "2026-11-30"}
GOOD: dict[str, Row] = {
    "create_upload": ARCHIVE | {"files": [file()]}, "delay": {}, "generate_report": NOVEMBER,
}  # fmt: skip


@pytest.mark.parametrize(
    ("action", "changes", "field"),
    [
        ("create_upload", {"template_id": None}, "template_id"),
        ("create_upload", {"template_id": "a b"}, "template_id"),
        ("create_upload", {"files": None}, "files"),
        ("create_upload", {"files": []}, "files"),
        ("create_upload", {"files": [file(size=-1)]}, "files.0.size"),
        ("create_upload", {"files": [file(size="5")]}, "files.0.size"),
        ("create_upload", {"files": [file(), file(size=6 * 1024**3)]}, "files.1.size"),
        ("create_upload", {"files": [file(name="")]}, "files.0.name"),
        ("create_upload", {"files": [file(md5hash="xyz")]}, "files.0.md5hash"),
        ("create_upload", {"files": [file(mime="text")]}, "files.0.mime"),
        ("create_upload", {"files": [file(colour="red")]}, "files.0.colour"),
        ("create_upload", {"user_id": "user-9"}, "user_id"),
        ("delay", {"seconds": 61}, "seconds"),
        ("delay", {"seconds": -1}, "seconds"),
        ("delay", {"seconds": "1"}, "seconds"),
        ("delay", {"steps": 0}, "steps"),
        ("delay", {"steps": 1.5}, "steps"),
        ("delay", {"fail_at": 0}, "fail_at"),
        ("delay", {"transient": 1}, "transient"),
        ("delay", {"colour": "red"}, "colour"),
        ("generate_report", {"start_date": "2026-11-31"}, "start_date"),
        ("generate_report", {"start_date": "1.11.2026"}, "start_date"),
        ("generate_report", {"start_date": 1}, "start_date"),
        ("generate_report", {"start_date": "2026-12-01"}, ""),
        ("generate_report", {"start_date": "2025-11-29"}, ""),
        ("generate_report", {"format": "xml"}, "format"),
        ("generate_report", {"group_by": "user"}, "group_by"),
        ("generate_report", {"tenant_id": "tenant-2"}, "tenant_id"),
    ],
)
def test_a_malformed_payload_is_refused_with_the_field(
    router: Router, action: str, changes: Row, field: str
) -> None:
    """Dates are in order and at most a year apart."""
    payload = {name: value for name, value in (GOOD[action] | changes).items() if value is not None}
    error = router.refused(action, payload)
    assert error["code"] == "VALIDATION_ERROR"
    assert [d["field"] for d in error["details"]] == [f"payload.{field}".removesuffix(".")]


def test_subscribing_returns_the_state_and_counts_a_listener(router: Router, stack: Stack) -> None:
    progress = {"seq": 4, "percentage": 40, "message": "Step 4", "at": iso(time.time())}
    stack.put("requests", request(status="PROCESSING", progress=progress))
    data = router.data("subscribe", {"request_id": "req-1", "since_seq": 2})
    assert (data["subscribed"], data["seq"], data["progress"]) == (True, 4, progress)
    (row,) = stack.items("subscriptions")
    assert (row["request_key"], row["connection_id"]) == (f"{OWNER}#req-1", "conn-1")
    assert stack.request()["subscriber_count"] == 1


@pytest.mark.parametrize("field", ["token_expires_at", "ttl"])
def test_a_subscription_lasts_until_api_gateway_closes_the_socket(
    router: Router, stack: Stack, field: str
) -> None:
    """A newer token may prolong the connection meanwhile."""
    now = int(time.time())
    stack.put("connections", connection(connected_at=iso(now - 600), **{field: now + 60}))
    stack.put("requests", request())
    assert router.data("subscribe", REQ_1)["subscribed"] is True
    (row,) = stack.items("subscriptions")
    assert row["ttl"] == now + 7200 - 600


def test_subscribing_twice_counts_once(router: Router, stack: Stack) -> None:
    stack.put("requests", request())
    first = router.data("subscribe", REQ_1)
    second = router.data("subscribe", REQ_1)
    assert first == second
    assert stack.request()["subscriber_count"] == 1
    assert len(stack.items("subscriptions")) == 1


def test_two_connections_of_a_user_are_two_listeners(router: Router, stack: Stack) -> None:
    stack.put("connections", connection("conn-2"))
    stack.put("requests", request())
    message = {"action": "subscribe", "payload": REQ_1}
    router.say(message, "conn-1")
    router.say(message, "conn-2")
    assert stack.request()["subscriber_count"] == 2


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED"])
def test_an_ended_request_stays_as_it_is(router: Router, stack: Stack, status: str) -> None:
    """A subscription and a cancellation return its state, and no message is posted."""
    row = ended(status=status)
    stack.put("requests", row)
    data = router.data("subscribe", REQ_1)
    assert (data["status"], data["subscribed"]) == (status, False)
    assert router.cancel() == status.lower()
    assert stack.items("subscriptions") == stack.sockets.posts == []
    assert stack.request() == row


def test_a_colleagues_request_needs_tenant_read(router: Router, stack: Stack) -> None:
    stack.put("requests", request(owner=COLLEAGUE))
    theirs = REQ_1 | {"user_id": "user-2"}
    assert router.refused("subscribe", theirs)["code"] == "FORBIDDEN"
    stack.put("connections", connection(permissions=["tenant:read"]))
    assert router.data("subscribe", theirs)["subscribed"] is True
    assert stack.request(owner=COLLEAGUE)["subscriber_count"] == 1


def test_tenant_read_does_not_reach_another_tenant(router: Router, stack: Stack) -> None:
    """However the user's id is spelled."""
    stack.put("requests", request(owner=STRANGER, tenant_id="tenant-2"))
    stack.put("connections", connection(permissions=["tenant:read"]))
    for user in ("user-9", "tenant-2#user-9", "../tenant-2#user-9", "%23user-9"):
        payload = {"request_id": "req-1", "user_id": user}
        assert router.refused("subscribe", payload)["code"] == "NOT_FOUND"


@pytest.mark.parametrize("user", ["", "user-1"])
def test_the_own_user_id_needs_no_permission(router: Router, stack: Stack, user: str) -> None:
    stack.put("requests", request())
    payload = {"request_id": "req-1", "user_id": user}
    assert router.data("subscribe", payload)["subscribed"] is True
    assert router.data("unsubscribe", payload)["was_subscribed"] is True


def test_subscriptions_of_a_connection_are_bounded(router: Router, stack: Stack) -> None:
    """One too many is refused with the field and the remedy. One that exists stays, one of a job
    that has ended counts for nothing, and unsubscribing makes room.
    """
    stack.monkeypatch.setattr(router.module, "MAX_SUBSCRIPTIONS", 2)
    stack.put("requests", *(request(f"req-{number}") for number in (1, 2, 3)), ended("req-4"))
    for name in ("req-1", "req-2", "req-2"):
        assert router.data("subscribe", {"request_id": name})["subscribed"] is True
    refused = router.refused("subscribe", {"request_id": "req-3"})
    assert (refused["code"], refused["retryable"]) == ("VALIDATION_ERROR", False)
    assert [each["field"] for each in refused["details"]] == ["payload.request_id"]
    assert "unsubscribe" in refused["message"]
    assert router.data("subscribe", {"request_id": "req-4"})["subscribed"] is False
    assert stack.request("req-3")["subscriber_count"] == 0
    router.data("unsubscribe", {"request_id": "req-1"})
    assert router.data("subscribe", {"request_id": "req-3"})["subscribed"] is True


def test_a_second_unsubscribe_succeeds_and_changes_nothing(router: Router, stack: Stack) -> None:
    """As does one from an unknown request."""
    stack.put("requests", request())
    router.data("subscribe", REQ_1)
    names = ("req-1", "req-1", "req-0")
    answers = [router.data("unsubscribe", {"request_id": name}) for name in names]
    assert [answer["was_subscribed"] for answer in answers] == [True, False, False]
    assert stack.items("subscriptions") == []
    assert stack.request()["subscriber_count"] == 0


# Cancellations


@pytest.fixture
def listener(stack: Stack) -> None:
    """A waiting request, to which conn-2 listens."""
    stack.put("requests", request(subscriber_count=1))
    stack.put("connections", connection("conn-2"))
    stack.put("subscriptions", subscription("req-1", "conn-2"))


def test_cancelling_a_waiting_request_ends_it(router: Router, stack: Stack, listener: None) -> None:
    """It leaves the in-flight index, and its listeners get one message."""
    assert router.data("cancel", REQ_1) == REQ_1 | {"status": "cancelled"}
    row = stack.request()
    assert (row["status"], row["error"]["code"]) == ("CANCELLED", "CANCELLED")
    assert not {"lease_shard", "lease_until"} & row.keys()
    assert row["ended_at"]
    for who in ("conn-1", "conn-2"):
        (message,) = stack.sockets.to(who)
        assert (message["type"], message["request_id"]) == ("error", "req-1")
        assert (message["error"]["code"], message["seq"]) == ("CANCELLED", row["seq"])


INSTRUCT: Row = {"project": "amelia", "thread": "t-1", "instruction": "summarise"}


def test_an_instruction_is_a_row_that_names_its_execution(router: Router, stack: Stack) -> None:
    """It waits for its workspace, so it needs no slot of the tenant's lane."""
    stack.monkeypatch.setattr(router.module, "MAX_RUNNING_PER_TENANT", 1)
    upload = {"key": upload_prefix(OWNER) + "a/b"}
    router.ask("instruct", INSTRUCT | {"attachments": [upload]}, id="req:1")
    row = stack.request("req:1")
    workspace = tenant_workspace("tenant-1", "user-1", "amelia")
    assert workspace.key == "tenant-1+amelia#user-1"
    assert row["execution"] == execution_name(workspace, "req+1")
    assert json.loads(row["payload"]) == INSTRUCT | {"attachments": [upload]}
    assert "lane" not in row


@pytest.mark.parametrize(
    ("payload", "more", "field"),
    [
        ({"project": "a+b"}, {}, "payload.project"),
        ({"thread": "a b"}, {}, "payload.thread"),
        ({"attachments": [{"key": "uploads/x"}]}, {}, "payload.attachments.0.key"),
        ({}, {"metadata": {"on_disconnect": "cancel"}}, "metadata.on_disconnect"),
    ],
)
def test_an_instruction_that_can_not_be_run_is_refused(
    router: Router, stack: Stack, payload: Row, more: Row, field: str
) -> None:
    body = router.refused("instruct", INSTRUCT | payload, id="req-2", **more)
    assert [each["field"] for each in body["details"]] == [field]
    assert stack.request("req-2") == {}


def test_keys_that_are_too_long_together_are_refused(router: Router) -> None:
    keys = [{"key": f"{upload_prefix(OWNER)}{'x' * 900}{n}"} for n in range(20)]
    body = router.refused("instruct", INSTRUCT | {"attachments": keys})
    assert body["details"][0]["field"] == "payload.attachments"


def test_a_user_whose_id_can_not_name_a_workspace_is_refused(router: Router, stack: Stack) -> None:
    stack.put("connections", connection(user_id="user 1"))
    body = router.refused("instruct", INSTRUCT)
    assert body["details"][0]["field"] == "payload.user"


def test_cancelling_a_job_of_the_flow_interrupts_its_worker(router: Router, stack: Stack) -> None:
    """Each time, since the first call may have been lost after the row was written."""
    running = {"status": "PROCESSING", "lease_owner": "claim-1/7", "execution": "e"}
    payload = INSTRUCT | {"attachments": []}
    stack.put("requests", request("req-1", "instruct", payload, **running))
    sent: list[Row] = []
    answer: Row = {}

    def invoke(**call: Any) -> Row:
        assert call["FunctionName"] == PREFIX + "send-interrupt"
        sent.append(json.loads(call["Payload"]))
        return answer

    create = router.module.session.create_client
    stack.monkeypatch.setattr(
        router.module.session,
        "create_client",
        lambda name, **more: (
            SimpleNamespace(invoke=invoke) if name == "lambda" else create(name, **more)
        ),
    )
    assert [router.cancel(), router.cancel()] == ["cancelling"] * 2
    assert stack.request()["cancel_requested"] is True
    assert sent[0] == sent[1]
    assert sent[0]["projectUserId"] == "tenant-1+amelia#user-1"
    assert sent[0]["target"] == {"claimId": "claim-1", "fence": 7}
    answer["FunctionError"] = "Unhandled"
    assert router.ask("cancel", REQ_1)["error"]["code"] == "INTERNAL_ERROR"


def test_the_end_of_a_cancelled_request_counts_its_events(router: Router, stack: Stack) -> None:
    """So that a client asks for those of an earlier attempt that it has missed."""
    stack.put("requests", request(attempts=1, event_count=2, event_tail="1,2"))
    assert router.cancel() == "cancelled"
    assert stack.sockets.posts[-1][1]["event_count"] == 2


@pytest.mark.parametrize("field", [None, "token_expires_at", "ttl", "connected_at"])
def test_a_listener_without_rights_is_not_told_of_a_cancellation(
    router: Router, stack: Stack, listener: None, field: str | None
) -> None:
    """Nor is one without a row. Their subscription is deleted."""
    if field:
        stack.put("connections", connection("conn-2", **past(field)))
    else:
        key = {"connection_id": {"S": "conn-2"}}
        stack.dynamodb.delete_item(TableName=f"{PREFIX}connections", Key=key)
    assert router.cancel() == "cancelled"
    assert stack.sockets.attempts == {"conn-1": 1}
    assert stack.items("subscriptions") == []


def test_a_cancellation_that_can_not_be_announced_is_made(
    router: Router, stack: Stack, listener: None, output: Output
) -> None:
    """Without their rows, the listeners get no message; they stay subscribed."""
    stack.fail(router.module.dynamodb, "BatchGetItem")
    assert router.cancel() == "cancelled"
    assert (stack.request()["status"], stack.sockets.attempts) == ("CANCELLED", {})
    assert output.logged("message not delivered")
    assert len(stack.items("subscriptions")) == 1


def test_an_unanswered_cancellation_is_sent(router: Router, stack: Stack, listener: None) -> None:
    """botocore's repetition finds the request cancelled, by this very write."""
    lost = stack.lose_answer(router.module.dynamodb, "UpdateItem")
    assert router.cancel() == "cancelled"
    assert lost["UpdateItem"] == 1
    assert stack.sockets.kinds("conn-1") == stack.sockets.kinds("conn-2") == ["error"]


def test_an_enqueuing_whose_answer_is_lost_is_acknowledged(router: Router, stack: Stack) -> None:
    """As it would be with the answer."""
    lost = stack.lose_answer(router.module.dynamodb, "PutItem")
    assert router.ask("delay", {}, id="req-1")["status"] == "queued"
    assert (lost["PutItem"], len(stack.items("requests"))) == (1, 1)


def test_a_cancellation_is_posted_to_its_sender_if_subscribers_cannot_be_read(
    router: Router, stack: Stack, listener: None
) -> None:
    """The end is stored, so that the answer stays, and so does the post to the first connection."""
    stack.fail(router.module.dynamodb, "Query")
    assert router.cancel() == "cancelled"
    assert stack.sockets.kinds("conn-1") == ["error"]


def test_a_cancellation_needs_the_request_as_it_was_read(router: Router, stack: Stack) -> None:
    """One that was run and put back in between has progress, and `seq` must go on from there."""
    stack.put("requests", request())
    progress = {"seq": 6, "percentage": 1}
    router.meanwhile(request(attempts=1, lease_until=int(time.time()) + 301, progress=progress))
    assert router.cancel() == "cancelled"
    assert stack.request()["seq"] == 7


def test_a_second_cancel_returns_the_end_and_posts_nothing(router: Router, stack: Stack) -> None:
    stack.put("requests", request())
    router.data("cancel", REQ_1)
    before = stack.everything()
    assert router.cancel() == "cancelled"
    assert stack.everything() == before
    assert len(stack.sockets.posts) == 1


@pytest.mark.parametrize("status", ["PROCESSING", "RETRYING"])
def test_cancelling_a_running_request_flags_it(router: Router, stack: Stack, status: str) -> None:
    """The worker ends it and posts the message."""
    stack.put("requests", request(status=status, attempts=1, lease_owner="worker"))
    for _ in range(2):
        assert router.cancel() == "cancelling"
    row = stack.request()
    assert (row["status"], row["cancel_requested"]) == (status, True)
    assert stack.sockets.posts == []


def test_cancelling_a_request_that_waits_for_its_next_attempt_queues_it(
    router: Router, stack: Stack
) -> None:
    """So that a worker ends it now, not after the wait."""
    stack.put(
        "requests", request(status="RETRYING", attempts=1, lease_until=int(time.time()) + 5000)
    )
    assert router.cancel() == "cancelling"
    row = stack.request()
    assert (row["status"], row["cancel_requested"]) == ("PENDING", True)


@pytest.mark.parametrize(
    ("changes", "payload", "code"),
    [
        ({}, {"result": {"by": "me"}}, ""), ({}, {"error": "no"}, ""), ({}, {"result": None}, ""),
        ({"callback_answer": "{}"}, {"result": 1}, "CALLBACK_USED"),
        ({"callback": {}}, {"result": 1}, "NOT_FOUND"),
        ({"callback": {"expires": 1}}, {"result": 1}, "CALLBACK_OVER"),
        ({}, {"result": 1, "error": "no"}, "VALIDATION_ERROR"), ({}, {}, "VALIDATION_ERROR"),
        ({}, {"error": None}, "VALIDATION_ERROR"), ({}, {"result": "x" * 8192}, "VALIDATION_ERROR"),
        ({}, {"result": 1, "token": "x.y"}, "NOT_FOUND"),
    ],
)  # fmt: skip
def test_a_token_is_returned(
    router: Router, stack: Stack, changes: Row, payload: Row, code: str
) -> None:
    """By any caller that has it: the job's owner is another user."""
    token, digest = new_token(STRANGER, "req-1")
    given = changes.get("callback", {"expires": int(time.time()) + 60})
    callback = {"digest": digest, "step": "ask", "sent": True, **given} if given else {}
    row = request(status="RETRYING", owner=STRANGER) | changes | {"callback": callback}
    stack.put("requests", row)
    calls = stack.calls(router.module.dynamodb)
    if code:
        error = router.refused("callback", {"token": token, **payload})
        assert (error["code"], token in json.dumps(error)) == (code, False)
        assert stack.request("req-1", STRANGER) == row
        return
    assert router.data("callback", {"token": token, **payload}) == {"returned": True}
    assert calls.counts() == {"GetItem": 2, "UpdateItem": 1}
    stored = stack.request("req-1", STRANGER)
    assert (stored["status"], json.loads(stored["callback_answer"])) == ("PENDING", payload)


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_waiting_assembly_is_cancelled_by_a_worker(
    router: Router, stack: Stack, attempts: int
) -> None:
    """The worker must end the document."""
    begun = {"started_at": iso(time.time()), "attempts": attempts}  # 0: it was handed over
    stack.put("requests", request(assembly_id="a" * 64, action="process_assembly", **begun))
    assert router.cancel() == "cancelling"
    row = stack.request()
    assert (row["status"], row["cancel_requested"]) == ("PENDING", True)
    assert stack.sockets.posts == []


def test_a_request_taken_during_the_cancel_gets_the_flag(router: Router, stack: Stack) -> None:
    stack.put("requests", request())
    router.meanwhile(request(status="PROCESSING", attempts=1))
    assert router.cancel() == "cancelling"
    assert stack.request()["cancel_requested"] is True


def test_a_request_that_ends_during_the_cancel_keeps_its_end(router: Router, stack: Stack) -> None:
    stack.put("requests", request(status="PROCESSING", attempts=1))
    final = ended()
    router.meanwhile(final)
    assert router.cancel() == "completed"
    assert stack.request() == final


def test_the_seq_of_a_cancellation_is_above_its_progress(router: Router, stack: Stack) -> None:
    progress = {"seq": 4, "percentage": 40, "message": "Step 4", "at": iso(time.time())}
    stack.put("requests", request(attempts=1, progress=progress))
    assert router.cancel() == "cancelled"
    (message,) = stack.sockets.to("conn-1")
    assert (message["seq"], stack.request()["seq"]) == (5, 5)


def test_a_lost_listener_is_deleted(router: Router, stack: Stack, listener: None) -> None:
    """After a 410 for the last message."""
    stack.sockets.gone.add("conn-2")
    assert router.cancel() == "cancelled"
    assert [row["connection_id"] for row in stack.items("connections")] == ["conn-1"]
    assert stack.items("subscriptions") == []


# Failures


@pytest.mark.parametrize(
    ("message", "operation"),
    [
        ({"action": "ping"}, "GetItem"),
        ({"action": "delay"}, "PutItem"),
        ({"action": "status", "payload": REQ_1}, "GetItem"),
        ({"action": "subscribe", "payload": REQ_1}, "TransactWriteItems"),
        ({"action": "cancel", "payload": REQ_1}, "UpdateItem"),
    ],
)
@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "ThrottlingException", "InternalServerError"]
)
def test_a_throttled_table_gives_SERVICE_UNAVAILABLE(
    router: Router, stack: Stack, output: Output, message: Any, operation: str, code: str
) -> None:
    """Retryable, with a time to wait; only the log has the cause."""
    stack.put("requests", request())
    stack.fail(router.module.dynamodb, operation, code)
    before = stack.everything()
    answer = router.say(message)
    error = answer["error"]
    assert (error["code"], error["retryable"]) == ("SERVICE_UNAVAILABLE", True)
    assert error["retry_after_ms"] > 0
    assert MARK not in json.dumps(answer)
    assert MARK in output.logged("an AWS call failed")[0]["stack"]
    assert stack.everything() == before


def test_other_errors_are_INTERNAL_ERROR(router: Router, stack: Stack, output: Output) -> None:
    def broken(request: Any) -> Any:
        raise RuntimeError(MARK)

    actions = router.module.ACTIONS
    stack.monkeypatch.setitem(actions, "echo", replace(actions["echo"], run=broken))
    message = router.ask("echo")
    assert (message["error"]["code"], message["error"]["retryable"]) == ("INTERNAL_ERROR", True)
    assert MARK not in json.dumps(message)
    assert MARK in output.logged("action failed")[0]["stack"]


def test_logs_hold_ids_and_no_payload(router: Router, output: Output) -> None:
    """Not even an unknown action's name."""
    router.ask("echo", {"text": "private-text-of-a-user"})
    router.ask("private-name-of-an-action")
    router.ask("delay", {"private-field": "private-value"})
    assert "private" not in output.text
    (line, *_) = output.logged("request refused")
    ids = [line[name] for name in ("connection_id", "user_id", "tenant_id", "request_id")]
    assert ids == ["conn-1", "user-1", "tenant-1", "ask-1"]


def test_answers_and_refusals_are_counted(router: Router, output: Output) -> None:
    router.ask("echo")
    router.ask("reboot")
    assert [line["Action"] for line in output.metric("MessageAnswered")] == ["response", "error"]
    assert output.metric("RequestRefused")[0]["ErrorType"] == "INVALID_ACTION"
    assert len(output.metric("ProcessingLatency")) == 2


@pytest.mark.parametrize("name", ["DYNAMODB_TABLE", "FILES_BUCKET", "WEBSOCKET_ENDPOINT"])
def test_a_missing_variable_stops_the_container(stack: Stack, name: str) -> None:
    with pytest.raises(KeyError, match=name):
        stack.function("router", **{name: None})
