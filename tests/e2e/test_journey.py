"""A job from upload to download: socket, progress, look-up, webhook."""

import gzip
import hashlib
import json
import random

import httpx
import pytest

from jobplane_client import verify_webhook
from tests.e2e.deployed import (
    SIGNING_SECRET,
    Deployed,
    Receiver,
    assert_ended_once,
    md5,
    unique,
    until,
)

pytestmark = pytest.mark.e2e


async def test_a_job_is_processed_looked_up_delivered_and_downloaded(
    deployed: Deployed, webhooks: Receiver
) -> None:
    user, body = unique("user"), unique("text").encode() * 1000
    async with deployed.socket(user) as socket, deployed.http(user) as http:
        payload = await deployed.upload(socket, "tpl_archive", {"brief-ä.txt": body, "b.txt": b"b"})
        end = await socket.run("process_assembly", payload, id="job")

        assert end["type"] == "complete", end
        assert_ended_once(socket.of("job"))
        document = (await http.get(f"/status/{end['result']['assembly_id']}")).json()
        assert document["ok"] == "ASSEMBLY_COMPLETED"
        assert document["bytes_received"] == len(body) + 1
        assert [upload["name"] for upload in document["uploads"]] == ["brief-ä.txt", "b.txt"]
        assert not {"ttl", "rev", "owner", "lease_until"} & document.keys()

        archive = document["results"]["compressed"][0]
        downloaded = httpx.get(archive["ssl_url"], trust_env=False).content
        assert gzip.decompress(downloaded) == body
        hashed = document["results"]["hashed"][0]
        assert hashed["meta"]["sha256"] == hashlib.sha256(downloaded).hexdigest()
        assert archive["original_id"] == document["uploads"][0]["id"]

    ((headers, sent),) = await until(lambda: webhooks.of(document["assembly_id"]), "the webhook")
    verify_webhook(headers, sent, [SIGNING_SECRET])
    assert json.loads(sent)["ok"] == "ASSEMBLY_COMPLETED"
    await until(
        lambda: deployed.assembly(document["assembly_id"])["webhook"]["status"] == "delivered",
        "the delivery on the document",
    )


async def test_a_repeated_assembly_gets_the_finished_document(deployed: Deployed) -> None:
    """The same files, template and user; no second run."""
    user, body = unique("user"), unique("text").encode()
    async with deployed.socket(user) as socket:
        payload = await deployed.upload(socket, "tpl_fingerprint", {"a.txt": body})
        first = await socket.run("process_assembly", payload)
        again = await socket.run("process_assembly", payload)

        assert again["type"] == "complete"
        assert again["result"]["assembly_id"] == first["result"]["assembly_id"]
        assert again["result"]["created_at"] == first["result"]["created_at"]
        assert deployed.assembly(first["result"]["assembly_id"])["execution"] == 1
        file = {"name": "a.txt", "size": len(body), "md5hash": md5(body)}
        offer = {"template_id": "tpl_fingerprint", "files": [file]}
        known = await socket.ask({"action": "create_upload", "payload": offer})
        assert known["data"]["completed"] is True


async def test_a_large_result_has_a_checksum_of_its_parts(deployed: Deployed) -> None:
    body = random.Random(unique("seed")).randbytes(17 * 1024 * 1024)
    async with deployed.socket(unique("user")) as socket:
        payload = await deployed.upload(socket, "tpl_archive", {"noise.bin": body})
        end = await socket.run("process_assembly", payload)

        assert end["type"] == "complete", end
    stored = deployed.assembly(end["result"]["assembly_id"])["results"]["compressed"][0]
    head = deployed.s3.head_object(
        Bucket=deployed.info["buckets"]["files"], Key=stored["key"], ChecksumMode="ENABLED"
    )
    assert head["ChecksumType"] == "COMPOSITE"
    assert head["ChecksumCRC32"].endswith("-3")


async def test_a_second_request_for_a_running_assembly_waits_for_its_end(
    deployed: Deployed,
) -> None:
    user = unique("user")
    body = b'{"n": 1}\n' * 2_000_000
    async with deployed.socket(user) as socket:
        payload = await deployed.upload(
            socket, "tpl_records", {"rows.ndjson": body}, "application/x-ndjson"
        )
        for request_id in ("first", "second"):
            await socket.ask({"id": request_id, "action": "process_assembly", "payload": payload})
        ends = [await socket.end_of(request_id) for request_id in ("first", "second")]

        assert [end["type"] for end in ends] == ["complete", "complete"]
        assert ends[0]["result"]["request_id"] == ends[1]["result"]["request_id"]
        assert deployed.assembly(ends[0]["result"]["assembly_id"])["execution"] == 1
        for request_id in ("first", "second"):
            assert_ended_once(socket.of(request_id))


async def test_a_report_counts_the_tenants_own_requests(deployed: Deployed) -> None:
    """It needs a permission, and its result is a link."""
    tenant, user = unique("tenant"), unique("user")
    payload = {"start_date": "2020-01-01", "end_date": "2020-12-31", "group_by": "status"}
    async with deployed.socket(user, tenant, "reports") as socket:
        await socket.run("delay", {"seconds": 0.0, "steps": 1})
        echo = await socket.run("echo", {}, metadata={"mode": "async"})
        today = deployed.row(user, echo["request_id"], tenant)["created_at"][:10]
        empty = await socket.run("generate_report", payload)
        by_action = {"start_date": today, "end_date": today, "group_by": "action", "format": "csv"}
        full = await socket.run("generate_report", by_action)
        text = httpx.get(full["result"]["url"], trust_env=False).text

        assert empty["result"]["rows"] == 0
        assert text.splitlines()[0].startswith("action,requests,")
        assert any(line.startswith("delay,1,1,") for line in text.splitlines())
    async with deployed.socket(user, tenant) as socket:
        refused = await socket.ask({"action": "generate_report", "payload": payload})
        assert refused["error"]["code"] == "FORBIDDEN"
