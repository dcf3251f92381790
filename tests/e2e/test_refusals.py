"""Refusals of other users, bad tokens and bad input, each with its error."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from jobplane.stage.signing import jwt_secret
from tests.e2e.deployed import PATIENCE, Deployed, Message, Receiver, Socket, md5, unique, until

pytestmark = pytest.mark.e2e

OTHER_SECRET = "another-secret-of-more-than-32-bytes!"


def unsigned(claims: Message) -> str:
    return jwt.encode(claims, key="", algorithm="none")


def signed_by_hand(header: Message, claims: Message, secret: str) -> str:
    """A token with a header that no library writes."""

    def part(value: Message) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    text = f"{part(header)}.{part(claims)}"
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def bad_tokens(secret: str) -> dict[str, str]:
    claims: Message = {"user_id": "u", "tenant_id": "t", "exp": int(time.time()) + 600}

    def encoded(secret: str = secret, algorithm: str = "HS256", **changes: Any) -> str:
        merged = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(merged, secret, algorithm=algorithm)

    return {
        "empty": "",
        "garbage": "a.b.c",
        "none": unsigned(claims),
        "wrong key": encoded(OTHER_SECRET),
        "wrong algorithm": encoded(algorithm="HS512"),
        "expired": encoded(exp=int(time.time()) - 60),
        "not yet valid": encoded(nbf=int(time.time()) + 600),
        "no exp": encoded(exp=None),
        "exp is a text": signed_by_hand({"alg": "HS256"}, claims | {"exp": "soon"}, secret),
        "no user": encoded(user_id=None),
        "no tenant": encoded(tenant_id=None),
        "empty user": encoded(user_id=""),
        "user is a list": encoded(user_id=["u"]),
        "permissions are a string": encoded(permissions="admin"),
        "oversize": encoded(padding="x" * 8000),
        "algorithm in lower case": signed_by_hand({"alg": "hs256"}, claims, secret),
        "key in the header": signed_by_hand(
            {"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}, "kid": "../../dev/null"},
            claims,
            OTHER_SECRET,
        ),
    }


async def test_a_bad_token_opens_no_socket(deployed: Deployed) -> None:
    """All get the same refusal, and no connection is stored."""
    before = deployed.count("connections")
    outcomes = set()
    for name, token in bad_tokens(jwt_secret(deployed.stage)).items():
        try:
            async with connect(f"{deployed.info['websocket_url']}?Authorization={token}"):
                outcomes.add(f"accepted: {name}")
        except (InvalidHandshake, ConnectionClosed) as refusal:
            outcomes.add(type(refusal).__name__)

    assert len(outcomes) == 1, outcomes
    assert "accepted" not in outcomes.pop()
    assert deployed.count("connections") <= before


async def test_a_bad_token_gets_401_over_http(deployed: Deployed) -> None:
    answers = set()
    async with httpx.AsyncClient(base_url=deployed.http_url, trust_env=False) as client:
        for token in bad_tokens(jwt_secret(deployed.stage)).values():
            header = f"Bearer {token}".strip()
            answer = await client.get(f"/status/{'0' * 64}", headers={"Authorization": header})
            answers.add((answer.status_code, answer.text, "www-authenticate" in answer.headers))

    assert len(answers) == 1, answers
    ((status, _, challenged),) = answers
    assert (status, challenged) == (401, True)


async def test_an_expired_token_closes_its_socket(deployed: Deployed) -> None:
    """After an error."""
    async with short_lived(deployed) as socket:
        answer = await until_refused(socket)
        assert answer["error"]["code"] == "UNAUTHORIZED"
        await until(lambda: socket.connection.close_code is not None, "the close")


@asynccontextmanager
async def short_lived(deployed: Deployed) -> AsyncIterator[Socket]:
    """A socket whose token expires soon after the handshake."""
    async with AsyncExitStack() as stack:
        for ttl in (1, 4, 16):
            token = deployed.token(unique("user"), "acme", ttl=ttl)
            with suppress(InvalidHandshake):
                socket = await stack.enter_async_context(deployed.socket("", token=token))
                break
        else:
            raise AssertionError("every token ran out before its socket was open")
        yield socket


async def until_refused(socket: Any) -> Message:
    """Send messages until the token has expired."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer: Message = await socket.ask({"action": "ping"})
        if answer["type"] == "error":
            return answer
    raise AssertionError("the token never ran out")


async def test_another_users_job_can_not_be_reached(deployed: Deployed) -> None:
    """Nor by the same user id of another tenant, over any path."""
    owner, body = unique("user"), unique("text").encode()
    async with deployed.socket(owner) as socket:
        payload = await deployed.upload(socket, "tpl_fingerprint", {"a.txt": body})
        end = await socket.run("process_assembly", payload, id="job")
        assembly_id = end["result"]["assembly_id"]

    for user, tenant in ((unique("user"), "acme"), (owner, "other")):
        async with deployed.http(user, tenant) as http:
            assert (await http.get(f"/status/{assembly_id}")).status_code == 403
            forced = await http.get(f"/status/{assembly_id}", params={"triggerWebhook": "true"})
            assert forced.status_code == 403
            claimed = await http.get(f"/status/{assembly_id}", params={"userId": owner})
            assert claimed.status_code == 403
            batch = await http.post("/status/batch", json={"assemblyIds": [assembly_id]})
            assert batch.json()["statuses"] == {assembly_id: None}
            assert assembly_id not in (await http.get("/assemblies")).text
        async with deployed.socket(user, tenant) as socket:
            for action in ("status", "subscribe", "cancel"):
                answer = await socket.ask({"action": action, "payload": {"request_id": "job"}})
                assert answer["error"]["code"] == "NOT_FOUND", action
            stolen = await socket.ask({"action": "process_assembly", "payload": payload})
            assert stolen["error"]["code"] == "FORBIDDEN"
            spoofed = await socket.ask(
                {
                    "action": "status",
                    "payload": {"request_id": "job"},
                    "metadata": {"user_id": owner, "tenant_id": "acme"},
                }
            )
            assert spoofed["error"]["code"] == "NOT_FOUND"
    direct = {"assemblyId": assembly_id}
    assert deployed.invoke("status", direct)["statusCode"] == 401
    assert deployed.invoke("status", direct | {"userId": "somebody"})["statusCode"] == 403
    assert deployed.invoke("status", direct | {"userId": owner})["statusCode"] == 200


FILE = {"name": "a", "size": 1, "md5hash": "0" * 32}
UPLOAD = FILE | {"key": "x"}
BAD_MESSAGES: dict[str, tuple[Any, str, str]] = {
    "not JSON": ("hello", "INVALID_MESSAGE", ""),
    "an array": ([1, 2], "INVALID_MESSAGE", ""),
    "a string": ('"text"', "INVALID_MESSAGE", ""),
    "half a surrogate": ('{"action": "echo", "payload": {"x": "\\ud800"}}', "INVALID_MESSAGE", ""),
    "NaN": ('{"action": "echo", "payload": {"x": NaN}}', "INVALID_MESSAGE", ""),
    "huge": ({"action": "echo", "payload": {"x": "y" * 97 * 1024}}, "PAYLOAD_TOO_LARGE", ""),
    "no action": ({"payload": {}}, "VALIDATION_ERROR", "action"),
    "action is a number": ({"action": 5}, "VALIDATION_ERROR", "action"),
    "unknown action": ({"action": "launch"}, "INVALID_ACTION", ""),
    "payload is a list": ({"action": "echo", "payload": []}, "VALIDATION_ERROR", "payload"),
    "bad id": ({"action": "echo", "id": "a b"}, "VALIDATION_ERROR", "id"),
    "metadata of numbers": (
        {"action": "echo", "metadata": {"n": 1}},
        "VALIDATION_ERROR",
        "metadata.n",
    ),
    "unknown mode": (
        {"action": "echo", "metadata": {"mode": "later"}},
        "VALIDATION_ERROR",
        "metadata.mode",
    ),
    "unknown field": (
        {"action": "delay", "payload": {"second": 1}},
        "VALIDATION_ERROR",
        "payload.second",
    ),
    "too long": (
        {"action": "delay", "payload": {"seconds": 61}},
        "VALIDATION_ERROR",
        "payload.seconds",
    ),
    "malformed md5": (
        {
            "action": "process_assembly",
            "payload": {"template_id": "tpl_archive", "uploads": [UPLOAD | {"md5hash": "zz"}]},
        },
        "VALIDATION_ERROR",
        "payload.uploads.0.md5hash",
    ),
    "unknown template": (
        {
            "action": "create_upload",
            "payload": {"template_id": "tpl_archiv", "files": [FILE]},
        },
        "VALIDATION_ERROR",
        "payload.template_id",
    ),
    "unknown template of uploads": (
        {"action": "process_assembly", "payload": {"template_id": "archive", "uploads": [UPLOAD]}},
        "VALIDATION_ERROR",
        "payload.template_id",
    ),
    "foreign key": (
        {
            "action": "process_assembly",
            "payload": {"template_id": "tpl_archive", "uploads": [UPLOAD]},
        },
        "FORBIDDEN",
        "payload.uploads.0.key",
    ),
    "ten thousand files": (
        {
            "action": "process_assembly",
            "payload": {"template_id": "tpl_archive", "uploads": [UPLOAD] * 10_000},
        },
        "PAYLOAD_TOO_LARGE",
        "",
    ),
    "a thousand and one files": (
        {
            "action": "create_upload",
            "payload": {
                "template_id": "tpl_archive",
                "files": [{"name": "a", "size": 1, "md5hash": "0" * 32}] * 1001,
            },
        },
        "VALIDATION_ERROR",
        "payload.files",
    ),
    "date that does not exist": (
        {
            "action": "generate_report",
            "payload": {"start_date": "2026-02-30", "end_date": "2026-03-01"},
        },
        "VALIDATION_ERROR",
        "payload.start_date",
    ),
    "unknown request": (
        {"action": "status", "payload": {"request_id": "unknown"}},
        "NOT_FOUND",
        "",
    ),
}


async def test_a_bad_message_gets_its_error_with_the_field(deployed: Deployed) -> None:
    """Nothing is stored."""
    async with deployed.socket(unique("user")) as socket:
        before = deployed.count("requests")
        for name, (message, code, field) in BAD_MESSAGES.items():
            text = message if isinstance(message, str) else json.dumps(message)
            error = (await socket.ask(text))["error"]
            assert error["code"] == code, (name, error)
            fields = [part["field"] for part in error.get("details", []) if field]
            assert not field or field in fields, (name, error)
            assert "Traceback" not in json.dumps(error)
            assert "arn:" not in json.dumps(error)
        assert deployed.count("requests") == before


async def test_a_binary_frame_ends_the_connection(deployed: Deployed) -> None:
    """With code 1003, as on AWS."""
    url = f"{deployed.info['websocket_url']}?Authorization={deployed.token(unique('user'), 'acme')}"
    async with connect(url) as socket:
        await socket.send(b'{"action": "ping"}')
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1003


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["jobplane.v1"], "jobplane.v1"),
        (["chat", "jobplane.v1"], "jobplane.v1"),
        (["chat"], None),
        (None, None),
    ],
)
async def test_the_handshake_answers_only_our_subprotocol(
    deployed: Deployed, offered: list[Any] | None, chosen: str | None
) -> None:
    """If it is offered; a socket without one works."""
    url = f"{deployed.info['websocket_url']}?Authorization={deployed.token(unique('user'), 'acme')}"
    async with connect(url, subprotocols=offered) as socket:
        assert socket.subprotocol == chosen
        await socket.send('{"action": "ping"}')
        assert json.loads(await socket.recv())["type"] == "pong"


BAD_JOBS: dict[str, tuple[str, dict[str, bytes], str, str]] = {
    "malformed CSV": ("tpl_table", {"t.csv": b"a,b\n1,2\n3,4,5\n"}, "PROCESSING_ERROR", "row 3"),
    "malformed NDJSON": (
        "tpl_records",
        {"r.ndjson": b'{"a": 1}\n{oops\n'},
        "PROCESSING_ERROR",
        "line 2",
    ),
}


@pytest.mark.parametrize("name", BAD_JOBS)
async def test_a_malformed_file_ends_its_assembly_with_code_and_place(
    deployed: Deployed, name: str
) -> None:
    template, files, code, place = BAD_JOBS[name]
    user = unique("user")
    async with deployed.socket(user) as socket, deployed.http(user) as http:
        payload = await deployed.upload(socket, template, files)
        end = await socket.run("process_assembly", payload)
        document = (await http.get(f"/status/{end['error']['details']['assembly_id']}")).json()

        assert end["error"]["code"] == "PROCESSING_FAILED"
        assert document["error"] == end["error"]["details"]["error"] == code
        assert place in document["message"]
        assert "ok" not in document


async def test_a_missing_or_changed_upload_ends_the_assembly(deployed: Deployed) -> None:
    user, body = unique("user"), unique("text").encode()
    async with deployed.socket(user) as socket:
        payload = await deployed.upload(socket, "tpl_fingerprint", {"a.txt": body})
        (upload,) = payload["uploads"]
        missing = payload | {"uploads": [upload | {"key": upload["key"] + "x"}]}
        altered = payload | {"uploads": [upload | {"md5hash": md5(b"other")}]}
        for changed, code in ((missing, "INPUT_MISSING"), (altered, "MD5_MISMATCH")):
            end = await socket.run("process_assembly", changed)
            assert end["error"]["details"]["error"] == code
            assert "a.txt" in end["error"]["message"]
        # A valid request runs the failed document of the same md5 again.
        assert (await socket.run("process_assembly", payload))["type"] == "complete"


async def test_unusual_files_are_processed_safely(deployed: Deployed) -> None:
    """Empty ones, names in other scripts, names that look like paths."""
    files = {"empty": b"", "文書.txt": b"1", "../../etc/passwd": b"2", "a/b\\c.txt": b"3"}
    async with deployed.socket(unique("user")) as socket:
        payload = await deployed.upload(socket, "tpl_archive", files)
        end = await socket.run("process_assembly", payload)

        assert end["type"] == "complete", end
        names = [file["name"] for file in end["result"]["results"]["compressed"]]
        assert len(names) == len(set(names)) == 4
        assert not any("/" in name or "\\" in name or name.startswith(".") for name in names)
        assert "文書.txt.gz" in names


async def test_a_presigned_put_refuses_a_body_with_another_md5(deployed: Deployed) -> None:
    body = b"announced"
    async with deployed.socket(unique("user")) as socket:
        answer = await socket.ask(
            {
                "action": "create_upload",
                "payload": {
                    "template_id": "tpl_fingerprint",
                    "files": [{"name": "a", "size": len(body), "md5hash": md5(body)}],
                },
            }
        )
        (upload,) = answer["data"]["uploads"]
        assert "content-md5" in upload["url"]
        assert "content-length" in upload["url"]
        async with httpx.AsyncClient(trust_env=False) as client:
            headers = upload["headers"]
            refused = await client.put(upload["url"], content=b"different", headers=headers)
        assert refused.status_code == 400


@pytest.mark.parametrize(
    "target",
    [
        "http://10.0.0.1/hook",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:127.0.0.1]/hook",
        "http://2130706433/hook",
        "http://user:secret@127.0.0.1/hook",
        "ftp://127.0.0.1/hook",
    ],
)
async def test_a_webhook_to_a_private_address_is_refused(
    deployed: Deployed, webhooks: Receiver, target: str
) -> None:
    """In any spelling; the document has the reason."""
    before = len(webhooks.received)
    deployed.set_webhook(target, "whsec_c2VjcmV0LW9mLXRoZS1lbmQtdG8tZW5kLXRlc3Rz")
    try:
        async with deployed.socket(unique("user")) as socket:
            payload = await deployed.upload(socket, "tpl_fingerprint", {"a": unique("x").encode()})
            end = await socket.run("process_assembly", payload)
        webhook = await until(
            lambda: (
                (found := deployed.assembly(end["result"]["assembly_id"])["webhook"])["status"]
                != "pending"
                and found
            ),
            "the webhook's state",
        )
        assert webhook["status"] == "refused", webhook
        assert len(webhooks.received) == before
    finally:
        deployed.set_webhook(webhooks.url, "whsec_c2VjcmV0LW9mLXRoZS1lbmQtdG8tZW5kLXRlc3Rz")
