"""connect: accepted and refused handshakes, and the stored row."""

import json
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from types import ModuleType
from typing import Any

import boto3
import pytest

from jobplane_keys import ValidationError
from jobplane_parameters import ParameterError
from tests.loopback import serving
from tests.unit.stack import (
    AWS,
    MARK,
    ROOT,
    SECRET,
    USER,
    Context,
    Output,
    Stack,
    connection,
    environment,
    event,
    iso,
    load,
    token,
)

COOKIE = {"Cookie": "a-cookie-of-theirs"}
REFUSAL = {"error": "Authentication failed", "code": "UNAUTHORIZED"}
OTHER_SECRET = "another-secret-of-32-bytes-or-more"


@pytest.fixture
def connect(stack: Stack) -> ModuleType:
    return stack.function("connect")


def knock(
    connect: ModuleType,
    query: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    connection_id: str = "conn-1",
) -> tuple[int, dict[str, Any]]:
    """Status and body of a handshake."""
    handshake = event("connect", "token-missing")
    handshake["headers"] |= headers or {}
    if query is not None:
        handshake["queryStringParameters"] = query
    handshake["requestContext"]["connectionId"] = connection_id
    answer = connect.handler(handshake, Context())
    assert answer["headers"] == {"Content-Type": "application/json"}
    return answer["statusCode"], json.loads(answer["body"])


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("jobplane.v1", "jobplane.v1"),
        ("graphql-ws, jobplane.v1", "jobplane.v1"),
        ("graphql-ws", None),
        ("jobplane.v10", None),
        ("", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("name", ["Sec-WebSocket-Protocol", "sec-websocket-protocol"])
def test_an_offered_subprotocol_of_ours_is_answered(
    connect: ModuleType, name: str, offered: str | None, chosen: str | None
) -> None:
    """A browser closes a socket whose answer has none of its subprotocols, or another."""
    handshake = event("connect", "token-missing")
    handshake["queryStringParameters"] = {"token": token()}
    if offered is not None:
        handshake["headers"] = {name: offered}
    answer = connect.handler(handshake, Context())
    assert answer["statusCode"] == 200
    assert answer["headers"].get("Sec-WebSocket-Protocol") == chosen


@pytest.mark.parametrize("given", [None, [], "x", {}, {"requestContext": {"connectionId": 7}}])
def test_an_event_without_a_connection_id_is_refused(connect: ModuleType, given: Any) -> None:
    """API Gateway sends no such handshake: the function raises ValidationError."""
    with pytest.raises(ValidationError):
        connect.handler(given, Context())


@pytest.mark.parametrize(
    "odd",
    [{"queryStringParameters": ["token"]}, {"headers": "Authorization"}, {"headers": {"a": 1}}],
)
def test_parameters_that_are_not_a_mapping_of_texts_are_ignored(
    connect: ModuleType, odd: dict[str, Any]
) -> None:
    assert connect.handler(event("connect", "token-missing") | odd, Context())["statusCode"] == 401


@pytest.mark.parametrize(
    ("identity", "agent"),
    [({"userAgent": "half \ud800", "sourceIp": ["203.0.113.7"]}, "half ?"), (None, ""),
     ({"userAgent": "x" * 10_000}, "x" * 512)],
    ids=["unstorable", "none", "long"],
)  # fmt: skip
def test_unstorable_attributes_of_a_caller_are_replaced_or_cut(
    stack: Stack, connect: ModuleType, identity: Any, agent: str
) -> None:
    """A single surrogate becomes ?, and a value that is not a text is stored as null."""
    handshake = event("connect", "accepted")
    place = {"stage": 7, "domainName": "sockets.example.com", "identity": identity}
    handshake["requestContext"] |= place
    assert connect.handler(handshake, Context())["statusCode"] == 200
    row = stack.get("connections", connection_id="conn-1")
    assert [row[name] for name in ("user_agent", "source_ip", "endpoint")] == [
        agent, "", "sockets.example.com/",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("query", "Authorization"), ("query", "authorization"), ("query", "AUTHORIZATION"),
        ("query", "token"), ("query", "Token"), ("query", "TOKEN"),
        ("headers", "Authorization"), ("headers", "authorization"), ("headers", "AUTHORIZATION"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "Bearer ", "bearer ", "BEARER   "])
def test_names_and_the_bearer_scheme_are_case_insensitive(
    connect: ModuleType, place: str, name: str, prefix: str
) -> None:
    sent: Any = {place: {name: prefix + token()}}
    assert knock(connect, **sent) == (200, {"message": "Connected successfully"})


def test_query_authorization_comes_first(stack: Stack, connect: ModuleType) -> None:
    """Then query token, then the header; a wrong one is refused whatever comes after it."""
    header = {"Authorization": token("in-header")}
    both = {"token": token("in-token"), "Authorization": token("in-authorization")}
    knock(connect, both, header, "conn-1")
    knock(connect, {"token": both["token"]}, header, "conn-2")
    knock(connect, {"token": "", "Authorization": ""}, header, "conn-3")
    query = {"Authorization": "nonsense", "token": both["token"]}
    assert knock(connect, query, header, "conn-4") == (401, REFUSAL)
    users = {row["connection_id"]: row["user_id"] for row in stack.items("connections")}
    assert users == {"conn-1": "in-authorization", "conn-2": "in-token", "conn-3": "in-header"}


def test_a_row_expires_with_its_socket_if_its_token_lasts_longer(
    stack: Stack, connect: ModuleType
) -> None:
    """API Gateway closes every socket after two hours. The user may be named by `sub`."""
    before = int(time.time())
    knock(connect, {"token": token(exp=before + 86400, user_id=None, sub="subject-7")})
    row = stack.get("connections", connection_id="conn-1")
    assert before + 7200 <= row["ttl"] <= int(time.time()) + 7200
    assert row["user_id"] == "subject-7"


def test_the_stored_row_has_exactly_the_documented_attributes(
    stack: Stack, connect: ModuleType
) -> None:
    expires = int(time.time()) + 1234
    knock(connect, {"token": token(permissions=["reports", "tenant:read"], exp=expires)})
    row = stack.get("connections", connection_id="conn-1")
    assert row.pop("ttl") == row["token_expires_at"]
    assert row.pop("connected_at") == row.pop("last_seen_at")
    assert row == {
        "connection_id": "conn-1", "user_id": "user-1", "tenant_id": "tenant-1",
        "permissions": ["reports", "tenant:read"],
        "endpoint": "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/local",
        "source_ip": "203.0.113.7",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
        "token_expires_at": expires,
    }  # fmt: skip


NOW = int(time.time())
FAULTS = {
    "unsigned": (lambda: token(key=None, algorithm="none"), "invalid_jwt"),
    "wrong key": (lambda: token(key=OTHER_SECRET), "invalid_jwt"),
    "wrong algorithm": (lambda: token(algorithm="HS512"), "invalid_jwt"),
    "expired": (lambda: token(exp=NOW - 3600), "expired"),
    "no exp": (lambda: token(exp=None), "invalid_jwt"),
    "exp no number": (lambda: token(exp="soon"), "invalid_jwt"),
    "not yet valid": (lambda: token(nbf=NOW + 3600), "invalid_jwt"),
    "issued in the future": (lambda: token(iat=NOW + 3600), "invalid_jwt"),
    "no user": (lambda: token(user_id=None), "invalid_jwt"),
    "empty user": (lambda: token(user_id=" "), "invalid_jwt"),
    "user no string": (lambda: token(user_id=["user-1"]), "invalid_jwt"),
    "no tenant": (lambda: token(tenant_id=None), "invalid_jwt"),
    "tenant no string": (lambda: token(tenant_id={"a": 1}), "invalid_jwt"),
    "permissions no list": (lambda: token(permissions="reports"), "invalid_jwt"),
    "permissions no strings": (lambda: token(permissions=[1]), "invalid_jwt"),
    "oversize": (lambda: token(pad="x" * 4096), "invalid_jwt"),
    "no token": (lambda: "", "missing_token"),
    "spaces": (lambda: "   ", "missing_token"),
    "no JWT": (lambda: "nonsense", "invalid_jwt"),
    "three parts of nothing": (lambda: "..", "invalid_jwt"),
    "cut": (lambda: token()[:-10], "invalid_jwt"),
    "not ASCII": (lambda: "é.ü.ß", "invalid_jwt"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_token_fault_has_the_same_answer(
    stack: Stack, connect: ModuleType, output: Output, fault: str
) -> None:
    """Only the metric has the reason."""
    make, reason = FAULTS[fault]
    sent = make()
    assert knock(connect, {"Authorization": sent}, COOKIE) == (401, REFUSAL)
    assert_no_secret(output.text, sent)
    assert stack.items("connections") == []
    (metric,) = output.metric("AuthenticationFailed")
    assert metric["ErrorType"] == reason
    assert not output.metric("ConnectionEstablished")


def test_a_token_is_accepted_up_to_thirty_seconds_late(connect: ModuleType) -> None:
    """The leeway for clocks that differ."""
    now = int(time.time())
    assert knock(connect, {"token": token(exp=now - 20)})[0] == 200
    assert knock(connect, {"token": token(nbf=now + 20, iat=now + 20)})[0] == 200
    assert knock(connect, {"token": token(exp=now - 40)})[0] == 401


def test_a_tenant_that_is_not_served_gets_the_same_refusal(stack: Stack, output: Output) -> None:
    """Only the metric has the reason."""
    connect = stack.function("connect", ALLOWED_TENANTS="tenant-2, tenant-3")
    assert knock(connect, {"token": token()}) == (401, REFUSAL)
    assert knock(connect, {"token": token(tenant="tenant-3")})[0] == 200
    (metric,) = output.metric("AuthenticationFailed")
    assert metric["ErrorType"] == "tenant_not_allowed"


def test_issuer_and_audience_are_checked_when_set(stack: Stack) -> None:
    """By JWT_ISSUER and JWT_AUDIENCE."""
    connect = stack.function("connect", JWT_ISSUER="https://us", JWT_AUDIENCE="jobs")
    assert knock(connect, {"token": token(iss="https://us", aud="jobs")})[0] == 200
    assert knock(connect, {"token": token(iss="https://them", aud="jobs")})[0] == 401
    assert knock(connect, {"token": token(iss="https://us", aud="mail")})[0] == 401
    assert knock(connect, {"token": token()})[0] == 401


def test_all_secrets_of_jwt_secret_are_accepted(stack: Stack) -> None:
    connect = stack.function("connect", JWT_SECRET=f"{SECRET} {OTHER_SECRET}")
    assert knock(connect, {"token": token(key=OTHER_SECRET)})[0] == 200
    assert knock(connect, {"token": token()})[0] == 200
    assert knock(connect, {"token": token(key="x" * 32)})[0] == 401


def test_without_the_secret_every_handshake_fails_until_it_exists(
    stack: Stack, output: Output
) -> None:
    """The log has the command that creates it."""
    name = "/jobplane/test/a-secret-that-comes-late"
    connect = stack.function("connect", JWT_SECRET=f"ssm:{name}")
    wanted = f"SSM parameter {name} does not exist: aws ssm put-parameter --name {name}"
    assert [line for line in output.lines if str(line.get("message")).startswith(wanted)]
    for presented in (token(), token(key=OTHER_SECRET)):
        with pytest.raises(ParameterError, match=wanted):
            knock(connect, {"token": presented})
        assert not stack.items("connections")
    boto3.client("ssm").put_parameter(Name=name, Value=f"{OTHER_SECRET} {SECRET}", Type="String")
    later = time.time() + 60
    stack.monkeypatch.setattr(connect.verifier._parameter, "_clock", lambda: later)
    assert knock(connect, {"token": token()})[0] == 200


class Throttling(BaseHTTPRequestHandler):
    """An SSM that throttles two calls before each answer."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked += 1
        is_refused = self.asked % 3
        answer = {"Parameter": {"Value": SECRET}}
        refusal = {"__type": "ThrottlingException", "message": "Rate exceeded"}
        body = json.dumps(refusal if is_refused else answer).encode()
        self.send_response(400 if is_refused else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def test_throttled_reads_of_the_secret_are_repeated() -> None:
    script = f"import connect; print(connect.verifier.verify({token()!r}).user_id)"
    variables = {**AWS, **environment("connect"), "JWT_SECRET": "ssm:/jobplane/test/throttled"}
    with serving(Throttling) as port:
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT / "functions" / "connect",
            env=variables | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"},
            capture_output=True,
            text=True,
            check=True,
        )
    assert (done.stdout, done.stderr) == (f"{USER}\n", "")
    assert Throttling.asked == 3


def test_a_connection_above_the_cap_is_refused_with_429(stack: Stack, output: Output) -> None:
    connect = stack.function("connect", MAX_CONNECTIONS_PER_USER="2")
    stack.put("connections", connection("conn-a"), connection("conn-b"))
    status, body = knock(connect, {"token": token()})
    assert (status, body["code"]) == (429, "RATE_LIMITED")
    assert len(stack.items("connections")) == 2
    assert output.metric("ConnectionRefused")[0]["ErrorType"] == "too_many_connections"


def test_a_cap_of_zero_makes_no_query(stack: Stack) -> None:
    connect = stack.function("connect", MAX_CONNECTIONS_PER_USER="0")
    stack.put("connections", *(connection(f"conn-{number}") for number in range(2, 30)))
    calls = stack.calls(connect.dynamodb)
    assert knock(connect, {"token": token()})[0] == 200
    assert calls.counts() == {"PutItem": 1}


@pytest.mark.parametrize(
    ("changes", "seconds_ago", "cap", "status"),
    [
        ({}, 0, "1", 429),
        ({}, 0, "2", 200),
        ({"ttl": 1}, 0, "1", 200),
        ({"tenant_id": "tenant-2"}, 0, "1", 200),
        ({}, 2 * 3600 + 1, "1", 200),
        ({}, 2 * 3600 - 60, "1", 429),
    ],
    ids=["at the cap", "below", "expired", "other tenant", "ended", "about to end"],
)
def test_only_live_connections_of_the_user_count_for_the_cap(
    stack: Stack, changes: dict[str, Any], seconds_ago: int, cap: str, status: int
) -> None:
    """API Gateway closes a socket after two hours, and `$disconnect` may never come."""
    connect = stack.function("connect", MAX_CONNECTIONS_PER_USER=cap)
    changes = changes | {"connected_at": iso(time.time() - seconds_ago)}
    stack.put("connections", connection("conn-old", **changes))
    assert knock(connect, {"token": token()})[0] == status


def test_the_count_reads_every_page(stack: Stack) -> None:
    """A page may hold only rows of other tenants."""
    connect = stack.function("connect", MAX_CONNECTIONS_PER_USER="1")
    strangers = [
        connection(f"conn-{n}", tenant_id="tenant-2", connected_at=f"2026-01-01T00:00:{n:02d}.000Z")
        for n in range(5)
    ]
    stack.put("connections", *strangers, connection("conn-mine"))
    paged = connect.dynamodb.query
    stack.monkeypatch.setattr(connect.dynamodb, "query", lambda **q: paged(**q, Limit=2))
    assert knock(connect, {"token": token()})[0] == 429


def test_a_handshake_costs_one_count_query_and_one_put(stack: Stack, connect: ModuleType) -> None:
    """A refused token costs no call."""
    calls = stack.calls(connect.dynamodb)
    knock(connect, {"token": "nonsense"})
    assert calls == []
    knock(connect, {"token": token()})
    assert calls.counts() == {"Query": 1, "PutItem": 1}
    assert calls.of("Query")[0]["Select"] == "COUNT"


@pytest.mark.parametrize("operation", ["PutItem", "Query"])
@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "InternalServerError", "AccessDenied"]
)
def test_a_failing_table_gives_a_500_without_internals(
    stack: Stack, connect: ModuleType, output: Output, operation: str, code: str
) -> None:
    """The answer has INTERNAL_ERROR; the log has the cause."""
    stack.fail(connect.dynamodb, operation, code)
    assert knock(connect, {"token": token()}) == (
        500,
        {"error": "Could not connect", "code": "INTERNAL_ERROR"},
    )
    (line,) = output.logged("connection not stored")
    assert MARK in line["stack"]
    assert not output.metric("ConnectionEstablished")
    assert output.metric("ConnectionRefused")[0]["ErrorType"] == "internal_error"


def test_a_repeated_event_leaves_one_connection(stack: Stack) -> None:
    """It does not count against itself."""
    connect = stack.function("connect", MAX_CONNECTIONS_PER_USER="1")
    handshake = event("connect", "accepted-again")
    first = connect.handler(handshake, Context())
    assert first["statusCode"] == 200
    assert connect.handler(handshake, Context()) == first
    assert len(stack.items("connections")) == 1


def test_a_handshake_emits_ConnectionEstablished_and_ProcessingLatency(
    connect: ModuleType, output: Output
) -> None:
    sent = token()
    knock(connect, {"Authorization": f"Bearer {sent}"}, COOKIE)
    assert_no_secret(output.text, sent)
    (established,) = output.metric("ConnectionEstablished")
    assert established["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Environment"]]
    assert (established["tenant_id"], established["connection_id"]) == ("tenant-1", "conn-1")
    (latency,) = output.metric("ProcessingLatency")
    assert latency["ProcessingLatency"] >= 0
    (line,) = output.logged("connection established")
    assert (line["user_id"], line["tenant_id"]) == ("user-1", "tenant-1")


def assert_no_secret(text: str, sent: str) -> None:
    """The log has neither the secret, the cookie, nor a long part of the token."""
    parts = [part for part in sent.strip().split(".") if len(part) > 8]
    assert not any(secret in text for secret in (SECRET, COOKIE["Cookie"], *parts))


@pytest.mark.parametrize(
    ("secret", "named"),
    [
        *((secret, "JWT_SECRET") for secret in (None, "", "short", "x" * 31, f"{SECRET} short")),
        ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:x", "reference"),
        ("ssm:jobplane/prod/jwt-secret-of-the-stage", "ssm:/path/name"),
    ],
)
def test_a_missing_or_short_secret_stops_the_container(
    stack: Stack, secret: str | None, named: str
) -> None:
    with pytest.raises((KeyError, ValueError), match=named):
        load("connect", JWT_SECRET=secret)


def newer(connect: ModuleType, payload: Any) -> dict[str, Any]:
    """The answer to a message with a newer token."""
    message = event("connect", "authenticate")
    message["body"] = json.dumps({"id": "req-1", "action": "authenticate", "payload": payload})
    answer = connect.handler(message, Context())
    assert answer["statusCode"] == 200
    body: dict[str, Any] = json.loads(answer["body"])
    assert body["request_id"] == "req-1"
    return body


def test_a_newer_token_prolongs_the_connection_and_replaces_the_permissions(
    stack: Stack, connect: ModuleType
) -> None:
    now = int(time.time())
    stack.put("connections", connection("conn-1", token_expires_at=now + 60, ttl=now + 60))
    body = newer(connect, {"token": token(permissions=["reports"], exp=now + 600)})
    assert body["data"] == {"expires_at": iso(now + 600)}
    row = stack.get("connections", connection_id="conn-1")
    assert (row["token_expires_at"], row["ttl"]) == (now + 600, now + 600)
    assert row["permissions"] == ["reports"]


def test_a_token_that_ends_before_the_present_one_changes_nothing(
    stack: Stack, connect: ModuleType
) -> None:
    """It came late. The answer says until when the connection lasts."""
    now = int(time.time())
    before = connection("conn-1", token_expires_at=now + 600, ttl=now + 600)
    stack.put("connections", before)
    body = newer(connect, {"token": token(permissions=["tenant:read"], exp=now + 300)})
    assert body["data"] == {"expires_at": iso(now + 600)}
    assert stack.get("connections", connection_id="conn-1") == before


def test_a_connection_is_prolonged_to_two_hours_after_its_handshake_at_most(
    stack: Stack, connect: ModuleType
) -> None:
    now = int(time.time())
    began = now - 3600
    row = connection("conn-1", connected_at=iso(began), token_expires_at=now + 60)
    stack.put("connections", row)
    body = newer(connect, {"token": token(exp=now + 86_400)})
    assert body["data"] == {"expires_at": iso(began + 7200)}


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"user_id": "user-2"}, "FORBIDDEN"),
        ({"tenant_id": "tenant-2"}, "FORBIDDEN"),
        ({"permissions": ["reports"]}, "FORBIDDEN"),
        # A handshake accepts it, as clocks differ by seconds.
        ({"exp": int(time.time()) - 5}, "UNAUTHORIZED"),
        ({"exp": 1}, "UNAUTHORIZED"),
    ],
    ids=["user", "tenant", "permission", "just expired", "expired"],
)
def test_another_token_changes_nothing(
    stack: Stack, connect: ModuleType, claims: dict[str, Any], code: str
) -> None:
    before = connection("conn-1", permissions=["tenant:read"])
    stack.put("connections", before)
    given = token(**{"permissions": ["tenant:read"]} | claims)
    assert newer(connect, {"token": given})["error"]["code"] == code
    assert stack.get("connections", connection_id="conn-1") == before


@pytest.mark.parametrize("ended", [{"token_expires_at": 1}, {"ttl": 1}], ids=["token", "row"])
def test_an_ended_connection_is_not_prolonged(
    stack: Stack, connect: ModuleType, ended: dict[str, Any]
) -> None:
    """Its row is as it was: its jobs may be cancelled already."""
    before = connection("conn-1", **ended)
    stack.put("connections", before)
    error = newer(connect, {"token": token()})["error"]
    assert (error["code"], error["message"][-13:]) == ("UNAUTHORIZED", "connect again")
    assert stack.get("connections", connection_id="conn-1") == before


@pytest.mark.parametrize("payload", [None, [], "x", {}, {"token": 7}, {"token": ""}])
def test_a_message_without_a_token_names_the_field(connect: ModuleType, payload: Any) -> None:
    error = newer(connect, payload)["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert [detail["field"] for detail in error["details"]] == ["payload.token"]


@pytest.mark.parametrize("body", [None, "", "[]", "{", '{"id": 7}', 7])
def test_a_body_that_is_not_a_request_is_refused(connect: ModuleType, body: Any) -> None:
    answer = connect.handler(event("connect", "authenticate") | {"body": body}, Context())
    error = json.loads(answer["body"])
    assert (error["type"], error["error"]["code"]) == ("error", "VALIDATION_ERROR")


def test_a_failure_of_the_table_is_answered_and_counted(
    stack: Stack, connect: ModuleType, output: Output
) -> None:
    stack.fail(connect.dynamodb, "UpdateItem", "InternalServerError")
    error = newer(connect, {"token": token()})["error"]
    assert (error["code"], error["retryable"]) == ("SERVICE_UNAVAILABLE", True)
    assert output.metric("ConnectionRefused")[0]["ErrorType"] == "internal_error"
