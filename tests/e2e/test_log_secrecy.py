"""No log has tokens, secrets, signatures of links, or content of clients."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from jobplane.stage.signing import jwt_secret
from tests.e2e.deployed import Deployed, Receiver, Socket, receiver, unique, until
from tests.e2e.test_flow import Flow

pytestmark = pytest.mark.e2e

SIGNED = re.compile(r"X-Amz-Signature|X-Amz-Credential|Signature=|eyJ[\w-]+\.[\w-]+")


@dataclass
class Secrets:
    """Secret texts, by kind."""

    known: dict[str, str] = field(default_factory=dict)

    def new(self, what: str) -> str:
        """A text that occurs nowhere else."""
        return self.add(what, unique("hidden"))

    def add(self, what: str, value: str) -> str:
        assert len(value) >= 8, what
        self.known[what] = value
        return value

    def add_link(self, what: str, url: str) -> None:
        """Add the signature of a link."""
        self.add(what, parse_qs(urlsplit(url).query)["X-Amz-Signature"][0])

    def found_in(self, text: str) -> set[str]:
        return {what for what, value in self.known.items() if value in text}


@pytest.fixture
def hooks(deployed: Deployed, webhooks: Receiver) -> Iterator[tuple[Receiver, str, str]]:
    """A receiver with a secret in its URL, and one that signs."""
    in_url, signing = unique("hidden"), unique("hidden-signing-key")
    with receiver() as there:
        deployed.set_webhook(f"{there.url}/{in_url}?key={in_url}", signing)
        try:
            yield there, in_url, signing
        finally:
            deployed.set_webhook(webhooks.url)


def log_texts(deployed: Deployed) -> dict[str, str]:
    """The texts of every log group of the stage."""
    logs = deployed.stage.client("logs")
    texts = {}
    for page in logs.get_paginator("describe_log_groups").paginate():
        for group in (each["logGroupName"] for each in page["logGroups"]):
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
            texts[group] = "\n".join(event["message"] for p in pages for event in p["events"])
    return texts


async def say_all(deployed: Deployed, socket: Socket, secrets: Secrets) -> tuple[str, str]:
    """Have every action work on, or refuse, texts of ours; ids of a job that ends well and of one
    that fails.
    """
    text = secrets.new("value of a payload")
    metadata = {secrets.new("name of metadata"): secrets.new("value of metadata")}
    await socket.ask({"action": "echo", "payload": {"text": text}, "metadata": metadata})
    await socket.run("echo", {"text": text}, metadata=metadata | {"mode": "async"})
    await socket.ask({"action": secrets.new("unknown action"), "payload": {"text": text}})
    await socket.ask({"action": "delay", "payload": {"seconds": text}})
    await socket.ask({"action": "status", "payload": {secrets.new("unknown field"): text}})
    await socket.ask(f'{{"action": "echo", "payload": "{secrets.new("malformed JSON")}')
    await socket.run("delay", {"seconds": 0, "steps": 2, "fail_at": 1}, metadata=metadata)

    content = secrets.new("content of a file").encode()
    payload = await deployed.upload(socket, "tpl_fingerprint", {"a.txt": content})
    payload["fields"] = {"note": secrets.new("field of a job")}
    named = ("name", "size", "mime", "md5hash")
    announced = [{name: file[name] for name in named} for file in payload["uploads"]]
    offer = {"template_id": "tpl_fingerprint", "files": announced}
    again = await socket.ask({"action": "create_upload", "payload": offer})
    secrets.add_link("link of an upload", again["data"]["uploads"][0]["url"])
    done = await socket.run("process_assembly", payload)
    assert done["type"] == "complete", done

    broken = f'a,b\n"{secrets.new("content of a malformed file")}'.encode()
    payload = await deployed.upload(socket, "tpl_table", {"b.csv": broken}, "text/csv")
    failed_id = unique("req")
    acknowledged = await socket.ask(
        {"id": failed_id, "action": "process_assembly", "payload": payload}
    )
    failed = await socket.end_of(failed_id)
    assert failed["type"] == "error", failed
    return done["result"]["assembly_id"], acknowledged["assembly_id"]


def change_file(deployed: Deployed, note: str) -> None:
    """Change a file's status, with a secret text."""
    key = {"date_prefix": "2026-11-22", "file_key": f"{unique('file')}.ndjson"}
    deployed.put("files", {**key, "status": "pending#1"})
    change = {"new_status": "manifested", "additional_fields": {"note": note}}
    try:
        changed = deployed.invoke("state-manager", {"operation": "update_state", **key, **change})
        assert changed["statusCode"] == 200, changed
    finally:
        deployed.delete("files", **key)


async def run_flow(deployed: Deployed, secrets: Secrets) -> None:
    """A job that succeeds and one that fails, with secret texts."""
    flow = Flow(deployed)
    instruction = secrets.new("instruction to a worker")
    execution = flow.start("m1", instruction=instruction)
    job = await flow.receive()
    assert job["instruction"] == instruction
    secrets.add("task token", job["taskToken"])
    flow.succeed(job, text=secrets.new("result of a worker"))
    await flow.end_of(execution)
    execution = flow.start("m2", instruction=instruction)
    job = await flow.receive()
    flow.fail(job, "Broken", text=secrets.new("cause of a failure"))
    await flow.end_of(execution)


async def test_no_log_has_a_secret(deployed: Deployed, hooks: tuple[Receiver, str, str]) -> None:
    """All log groups of the stage, at the level DEBUG, hold nothing of what was sent, signed or
    handed out: in jobs that succeed and fail, refused tokens and messages, look-ups, webhooks, the
    job flow, an operator's change.
    """
    there, in_url, signing = hooks
    secrets, user = Secrets(), unique("user")
    secrets.add("secret of the webhook", signing)
    secrets.add("URL of the webhook", in_url)
    secrets.add("secret of the tokens", jwt_secret(deployed.stage))
    url = deployed.info["websocket_url"]

    in_query = secrets.add("token in a query", deployed.token(user, "acme"))
    in_header = secrets.add("token in a header", deployed.token(user, "acme", ttl=3500))
    async with connect(url, additional_headers={"Authorization": f"Bearer {in_header}"}):
        pass
    expired = secrets.add("expired token", deployed.token(user, "acme", ttl=-3600))
    for refused in (secrets.new("malformed token"), f"{in_query[:-9]}{unique('x')}", expired):
        with suppress(InvalidStatus):
            async with connect(f"{url}?token={refused}"):
                pass
    secrets.add("signature of a token", in_query.rpartition(".")[2])
    async with deployed.socket(user, token=in_query) as socket:
        completed, failed = await say_all(deployed, socket, secrets)

    await until(lambda: there.of(completed) and there.of(failed), "both webhooks")
    for number, (headers, _) in enumerate([*there.of(completed), *there.of(failed)]):
        for name in ("webhook-signature", "X-Transflow-Signature"):
            secrets.add(f"{name} {number}", headers[name].partition("=")[2] or headers[name][3:])
    over_http = secrets.add("token over HTTP", deployed.token(user, "acme", ttl=3400))
    async with httpx.AsyncClient(base_url=deployed.http_url, trust_env=False) as http:
        known = {"Authorization": f"Bearer {over_http}"}
        answer = await http.get(f"/status/{completed}?triggerWebhook=true", headers=known)
        assert answer.status_code in (200, 429), answer.text
        await http.get(f"/status/{completed}?note={secrets.new('query of a look-up')}")
        body = {"assemblyIds": [completed], "note": secrets.new("body of a look-up")}
        await http.post("/status/batch", headers=known, json=body)
        await http.get(f"/status/{completed}", headers={"Authorization": f"Bearer {expired}"})
    change_file(deployed, secrets.new("field of a file"))
    await run_flow(deployed, secrets)

    texts = log_texts(deployed)
    for function in (
        "connect", "router", "processor", "deliver-webhook", "status", "claim", "state-manager",
    ):  # fmt: skip
        assert '"level"' in texts[f"/aws/lambda/{deployed.stage.names.of(function)}"]
    assert completed in texts[f"/aws/lambda/{deployed.stage.names.of('status')}"]
    told = {group: found for group, text in texts.items() if (found := secrets.found_in(text))}
    assert told == {}
    assert {group: SIGNED.findall(text) for group, text in texts.items()} == dict.fromkeys(
        texts, []
    )
