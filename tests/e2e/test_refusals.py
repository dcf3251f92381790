"""Refusals of other users, bad tokens and bad input, each with its error."""

import asyncio
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


def bad_tokens(secret: str) -> dict[str, str]:
    """One of each kind; tests/unit/test_tokens.py has more."""
    claims: Message = {"user_id": "u", "tenant_id": "t", "exp": int(time.time()) + 600}
    return {
        "empty": "",
        "garbage": "a.b.c",
        "none": jwt.encode(claims, key="", algorithm="none"),
        "wrong key": jwt.encode(claims, "another-secret-of-more-than-32-bytes!"),
        "expired": jwt.encode(claims | {"exp": int(time.time()) - 60}, secret),
        "user is a list": jwt.encode(claims | {"user_id": ["u"]}, secret),
        "oversize": jwt.encode(claims | {"padding": "x" * 8000}, secret),
    }


async def test_a_bad_token_opens_no_socket(deployed: Deployed) -> None:
    """All get the same refusal, and no connection is stored."""
    before = deployed.count("connections")
    outcomes = set()
    for name, token in bad_tokens(jwt_secret(deployed.stage)).items():
        try:
            async with connect(deployed.socket_url(token=token)):
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
        async with asyncio.timeout(PATIENCE):
            while (answer := await socket.ask({"action": "ping"}))["type"] != "error":
                pass
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
                answer = await socket.ask(asked(action, request_id="job"))
                assert answer["error"]["code"] == "NOT_FOUND", action
            stolen = await socket.ask({"action": "process_assembly", "payload": payload})
            assert stolen["error"]["code"] == "FORBIDDEN"
            spoof = {"metadata": {"user_id": owner, "tenant_id": "acme"}}
            spoofed = await socket.ask(asked("status", request_id="job") | spoof)
            assert spoofed["error"]["code"] == "NOT_FOUND"
    direct = {"assemblyId": assembly_id}
    assert deployed.invoke("status", direct)["statusCode"] == 401
    assert deployed.invoke("status", direct | {"userId": "somebody"})["statusCode"] == 403
    assert deployed.invoke("status", direct | {"userId": owner})["statusCode"] == 200


UPLOAD = {"name": "a", "size": 1, "md5hash": "0" * 32, "key": "x"}


def asked(action: str, **payload: Any) -> Message:
    return {"action": action, "payload": payload}


def processed(*uploads: Message) -> Message:
    return asked("process_assembly", template_id="tpl_archive", uploads=list(uploads))


# One of each kind; tests/unit/test_router.py has more.
BAD_MESSAGES: dict[str, tuple[Any, str, str]] = {
    "not JSON": ("hello", "INVALID_MESSAGE", ""),
    "half a surrogate": ('{"action": "echo", "payload": {"x": "\\ud800"}}', "INVALID_MESSAGE", ""),
    "huge": (asked("echo", x="y" * 97 * 1024), "PAYLOAD_TOO_LARGE", ""),
    "ten thousand files": (processed(*[UPLOAD] * 10_000), "PAYLOAD_TOO_LARGE", ""),
    "unknown action": ({"action": "launch"}, "INVALID_ACTION", ""),
    "no action": ({"payload": {}}, "VALIDATION_ERROR", "action"),
    "too long": (asked("delay", seconds=61), "VALIDATION_ERROR", "payload.seconds"),
    "malformed md5": (
        processed(UPLOAD | {"md5hash": "zz"}), "VALIDATION_ERROR", "payload.uploads.0.md5hash",
    ),
    "foreign key": (processed(UPLOAD), "FORBIDDEN", "payload.uploads.0.key"),
    "unknown request": (asked("status", request_id="unknown"), "NOT_FOUND", ""),
}  # fmt: skip


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
    async with connect(deployed.socket_url(unique("user"))) as socket:
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
    async with connect(deployed.socket_url(unique("user")), subprotocols=offered) as socket:
        assert socket.subprotocol == chosen
        await socket.send('{"action": "ping"}')
        assert json.loads(await socket.recv())["type"] == "pong"


@pytest.mark.parametrize(
    ("template", "name", "body", "place"),
    [
        ("tpl_table", "t.csv", b"a,b\n1,2\n3,4,5\n", "row 3"),
        ("tpl_records", "r.ndjson", b'{"a": 1}\n{oops\n', "line 2"),
    ],
    ids=["malformed CSV", "malformed NDJSON"],
)
async def test_a_malformed_file_ends_its_assembly_with_code_and_place(
    deployed: Deployed, template: str, name: str, body: bytes, place: str
) -> None:
    user = unique("user")
    async with deployed.socket(user) as socket, deployed.http(user) as http:
        payload = await deployed.upload(socket, template, {name: body})
        end = await socket.run("process_assembly", payload)
        document = (await http.get(f"/status/{end['error']['details']['assembly_id']}")).json()

        assert end["error"]["code"] == "PROCESSING_FAILED"
        assert document["error"] == end["error"]["details"]["error"] == "PROCESSING_ERROR"
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
        file = {"name": "a", "size": len(body), "md5hash": md5(body)}
        answer = await socket.ask(
            asked("create_upload", template_id="tpl_fingerprint", files=[file])
        )
        (upload,) = answer["data"]["uploads"]
        assert "content-md5" in upload["url"]
        assert "content-length" in upload["url"]
        async with httpx.AsyncClient(trust_env=False) as client:
            headers = upload["headers"]
            refused = await client.put(upload["url"], content=b"different", headers=headers)
        assert refused.status_code == 400


async def test_a_webhook_to_a_private_address_is_refused(
    deployed: Deployed, webhooks: Receiver
) -> None:
    """The document has the reason."""
    before = len(webhooks.received)
    deployed.set_webhook("http://169.254.169.254/latest/meta-data")
    try:
        assembly_id = await deployed.complete(unique("user"))
        status = await until(
            lambda: {deployed.assembly(assembly_id)["webhook"]["status"]} - {"pending"},
            "the webhook's state",
        )
        assert status == {"refused"}
        assert len(webhooks.received) == before
    finally:
        deployed.set_webhook(webhooks.url)
