"""process_assembly: templates over real files, their documents, and repeated requests."""

import gzip
import hashlib
import io
import json
import random
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from jobplane_keys import (
    MAX_ITEM_BYTES,
    assembly_id,
    from_value,
    item_size,
    owner_key,
    packed,
    public_assembly,
    upload_prefix,
)
from jobplane_models.assemblies import AssemblyDocument
from jobplane_models.payloads import MAX_FILES
from jobplane_robots import (
    RobotContext,
    RobotError,
    RobotOptions,
    RobotResult,
    load_templates,
    robot,
)
from tests.unit.stack import (
    BUCKET,
    OWNER,
    PREFIX,
    Output,
    Processor,
    Row,
    client_error,
    message,
    request,
    until,
)

CSV = b"name,size\nann,1\nbob,2\n"
NDJSON = b'{"name":"ann","size":1}\n{"name":"bob","size":2}\n'


def upload(name: str, body: bytes, **changes: Any) -> Row:
    """An entry of `uploads`, as the router has validated it."""
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    sent = {"name": name, "size": len(body), "mime": "text/plain", "md5hash": digest}
    return sent | {"key": f"{upload_prefix(OWNER)}job/{digest}"} | changes


def job_of(template: str, *uploads: Row, request_id: str = "req-1", **changes: Any) -> Row:
    """A queued process_assembly."""
    payload = {"template_id": template, "uploads": list(uploads), "fields": {}}
    found = assembly_id([file["md5hash"] for file in uploads], template, OWNER)
    return request(
        request_id, action="process_assembly", payload=payload, assembly_id=found, **changes
    )


class Assemblies:
    """The processor with uploads and templates."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor
        self.stack = processor.stack

    def templates(self, **steps: Row) -> None:
        """An index with one template `t` of these steps, without a webhook."""
        loaded = load_templates({"templates": [{"id": "t", "steps": steps}]})
        self.processor.set(templates=lambda: loaded)

    def step(self, name: str, robot: str, **settings: Any) -> None:
        """An index whose template `t` has one step, for the uploaded files."""
        self.templates(**{name: {"robot": robot, "use": ":original"} | settings})

    def run_archive(self, **changes: Any) -> Row:
        """Run the template `tpl_archive` with one file."""
        return self.run("tpl_archive", self.put("a.txt", b"hello"), **changes)

    def work_elsewhere(self, request_id: str) -> None:
        """Another invocation works on a request."""
        module = self.processor.module
        module.work(OWNER, request_id, module.Invocation("other", time.time() + 300))

    def put_in_parts(self, entry: Row, *parts: bytes) -> None:
        """Upload a file's content as a multipart upload."""
        s3, target = self.stack.s3, {"Bucket": BUCKET, "Key": entry["key"]}
        target["UploadId"] = s3.create_multipart_upload(**target)["UploadId"]
        sent = []
        for number, part in enumerate(parts, 1):
            tag = s3.upload_part(**target, PartNumber=number, Body=part)["ETag"]
            sent.append({"PartNumber": number, "ETag": tag})
        s3.complete_multipart_upload(**target, MultipartUpload={"Parts": sent})

    def put(self, name: str, body: bytes, **changes: Any) -> Row:
        """Upload a file; its entry."""
        entry = upload(name, body, **changes)
        self.stack.upload(entry["key"], body)
        return entry

    def run(self, template: str, *uploads: Row, **changes: Any) -> Row:
        """Queue and run a job; the request's row."""
        return self.processor.run(job_of(template, *uploads, **changes))

    def document(self, row: Row) -> Row:
        return self.stack.get("assemblies", assembly_id=row["assembly_id"])

    def outputs(self, row: Row, step: str) -> dict[str, bytes]:
        """The stored files of a step, by name."""
        files = self.document(row)["results"][step]
        return {file["name"]: self.stack.object(file["key"]) for file in files}


@pytest.fixture
def assemblies(processor: Processor) -> Assemblies:
    return Assemblies(processor)


def failure(assemblies: Assemblies, row: Row) -> tuple[str, str]:
    """Code and text of a failed assembly, equal in document, request and message."""
    document = assemblies.document(row)
    assert row["status"] == "FAILED", row
    assert row["error"]["code"] == "PROCESSING_FAILED"
    details = {"assembly_id": row["assembly_id"], "error": document["error"]}
    assert (row["error"]["details"], row["error"]["message"]) == (details, document["message"])
    assert "ok" not in document
    assert [message["error"] for message in assemblies.processor.terminal()] == [row["error"]]
    return document["error"], document["message"]


def hashed(body: bytes, name: str = "sha256") -> str:
    return hashlib.new(name, body, usedforsecurity=False).hexdigest()


def test_file_hash_adds_hashes_to_the_results_meta(assemblies: Assemblies) -> None:
    assemblies.step("h", "/file/hash", algorithms=["md5", "sha256"])
    row = assemblies.run("t", assemblies.put("a.txt", b"hello"))
    (file,) = assemblies.document(row)["results"]["h"]
    assert file["meta"] == {"md5": hashed(b"hello", "md5"), "sha256": hashed(b"hello")}
    assert assemblies.outputs(row, "h") == {"a.txt": b"hello"}


def test_a_compressed_file_is_decompressed_to_the_original(assemblies: Assemblies) -> None:
    assemblies.templates(
        packed={"robot": "/file/compress", "use": ":original", "level": 9},
        again={"robot": "/file/decompress", "use": "packed"},
    )
    row = assemblies.run("t", assemblies.put("a.txt", b"hello" * 1000))
    ((name, packed),) = assemblies.outputs(row, "packed").items()
    assert (name, gzip.decompress(packed)) == ("a.txt.gz", b"hello" * 1000)
    assert assemblies.outputs(row, "again") == {"a.txt": b"hello" * 1000}


def test_file_filter_drops_a_declined_file_with_a_warning(assemblies: Assemblies) -> None:
    assemblies.step("f", "/file/filter", accepts={"extension": ["txt"]})
    row = assemblies.run("t", assemblies.put("a.txt", b"a"), assemblies.put("b.bin", b"b"))
    assert list(assemblies.outputs(row, "f")) == ["a.txt"]
    (warning,) = assemblies.document(row)["warnings"]
    assert warning.startswith("b.bin: ")


def test_document_split_gives_ordered_parts_of_the_whole(assemblies: Assemblies) -> None:
    assemblies.step("p", "/document/split", lines=2)
    body = b"".join(b"line %d\n" % number for number in range(5))
    row = assemblies.run("t", assemblies.put("a.txt", body))
    parts = assemblies.outputs(row, "p")
    assert len(parts) == 3
    assert b"".join(parts.values()) == body


def test_image_resize_makes_an_image_smaller(assemblies: Assemblies) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = io.BytesIO()
    image.new("RGB", (80, 40), "red").save(picture, "PNG")
    assemblies.step("small", "/image/resize", width=20, height=20)
    row = assemblies.run("t", assemblies.put("a.png", picture.getvalue(), mime="image/png"))
    ((_, body),) = assemblies.outputs(row, "small").items()
    assert image.open(io.BytesIO(body)).size == (20, 10)


@pytest.mark.parametrize(
    ("template", "name", "body", "same"),
    [
        ("tpl_fingerprint", "a.txt", b"hello", "hashed"),
        ("tpl_archive", "a.txt", b"hello", "verified"),
        ("tpl_records", "a.ndjson", NDJSON, "validated"),
        ("tpl_table", "a.csv", CSV, "table"),
    ],
)
def test_every_shipped_template_completes(
    assemblies: Assemblies, template: str, name: str, body: bytes, same: str
) -> None:
    """All its steps have results, one of which has the file's own lines."""
    row = assemblies.run(template, assemblies.put(name, body))
    document = assemblies.document(row)
    steps = assemblies.processor.module.templates()[template].steps
    assert row["status"] == "COMPLETED"
    assert list(document["results"]) == list(steps)
    assert (document["steps_completed"], document["steps_total"]) == (len(steps), len(steps))
    for step, files in document["results"].items():
        attempt = rf"results/{row['assembly_id']}/1-1-[0-9a-f]{{8}}/{step}/"
        assert all(re.match(attempt, file["key"]) for file in files)
    keys = {f["key"] for files in document["results"].values() for f in files}
    assert set(assemblies.stack.keys("results/")) == keys
    stored = [output.splitlines() for output in assemblies.outputs(row, same).values()]
    assert stored == [body.splitlines()]


def test_the_fields_of_an_upload_that_are_the_clients_own_come_back(
    assemblies: Assemblies,
) -> None:
    own = {"field": "photo", "meta": {"album": 7}}
    row = assemblies.run(
        "tpl_archive", assemblies.put("a.txt", b"a", **own), assemblies.put("b.txt", b"b")
    )
    first, second = public_assembly(assemblies.document(row))["uploads"]
    assert first.items() >= own.items()
    assert (second["field"], "meta" in second) == ("file", False)


def test_a_document_has_public_and_internal_fields(assemblies: Assemblies) -> None:
    """Public fields fit the model; internal ones serve the next writer."""
    assemblies.step("h", "/file/hash")
    row = assemblies.run("t", assemblies.put("Report.final.txt", b"hello"))
    document = assemblies.document(row)
    assert document["ok"] == "ASSEMBLY_COMPLETED"
    assert (document["bytes_expected"], document["bytes_received"]) == (5, 5)
    assert document["progress_pct"] == 100
    assert document["execution"] == 1
    assert document["execution_duration"] >= 0
    assert document["last_job_completed"] == document["updated_at"]
    assert document["user"] == {"userId": "user-1"}
    assert (document["owner"], document["request_id"]) == (OWNER, "req-1")
    assert 30 * 86400 - 60 < document["ttl"] - time.time() <= 30 * 86400
    assert document["rev"] > 1
    assert not {"error", "lease_until", "current_step", "webhook"} & document.keys()
    (source,), (result,) = document["uploads"], document["results"]["h"]
    assert (source["basename"], source["ext"]) == ("Report.final", "txt")
    assert source["id"].startswith("upload_")
    assert result["id"].startswith("result_")
    assert result["original_id"] == source["id"]


def test_the_complete_message_has_the_public_document(assemblies: Assemblies) -> None:
    """With links for an hour, without keys."""
    assemblies.step("h", "/file/hash")
    row = assemblies.run("t", assemblies.put("a.txt", b"hello"))
    (message,) = assemblies.processor.terminal()
    result = message["result"]
    assert AssemblyDocument.model_validate(result).completed
    query = parse_qs(urlsplit(result["results"]["h"][0]["ssl_url"]).query)
    assert (query["X-Amz-Expires"], len(query["X-Amz-Signature"])) == (["3600"], 1)
    assert '"key"' not in json.dumps(result)
    assert result.keys() == public_assembly(assemblies.document(row)).keys()


def test_a_result_has_neither_key_nor_link_of_an_upload(assemblies: Assemblies) -> None:
    row = assemblies.run_archive()
    (stored,) = json.loads(row["result"])["uploads"]
    (told,) = assemblies.processor.terminal()[0]["result"]["uploads"]
    assert stored == told
    assert not {"key", "ssl_url"} & told.keys()


def test_the_document_is_written_at_the_start_and_after_each_step(assemblies: Assemblies) -> None:
    """Every write is conditional on the revision."""
    calls = assemblies.stack.calls(assemblies.processor.module.dynamodb)
    assemblies.run_archive()
    begun = [call["TransactItems"][0]["Update"] for call in calls.of("TransactWriteItems")]
    later = [c for c in calls.of("UpdateItem") if c["TableName"].endswith("assemblies")]
    writes = [*begun, *later]
    assert all("ConditionExpression" in write for write in writes)
    values = [write["ExpressionAttributeValues"] for write in writes]
    steps = [f"Processing: {step}" for step in ("verified", "compressed", "hashed")]
    messages = [v[":set_message"]["S"] for v in values if ":set_message" in v]
    assert messages == ["Receiving files", *steps, "Processing completed"]
    assert [int(v[":set_rev"]["N"]) for v in values] == list(range(1, len(values) + 1))


def test_progress_counts_bytes_of_a_single_large_file(assemblies: Assemblies) -> None:
    assemblies.processor.set(PROGRESS_INTERVAL_SECONDS=0.0)
    assemblies.step("h", "/file/hash")
    assemblies.run("t", assemblies.put("big.bin", bytes(20 * 1024 * 1024)))
    heard = assemblies.processor.sockets.to("conn-1")
    steps = [m["percentage"] for m in heard if m.get("message") == "Step h"]
    assert len(set(steps)) > 3
    assert heard[-2]["percentage"] == 100
    named = [m for m in heard if m["type"] == "progress" and "metadata" in m]
    assert all(m["metadata"]["step"] == m["message"] for m in named)


@robot("/acme/waits", options=RobotOptions, waits=True)
def waits(source: Any, options: Any, outputs: Any, context: RobotContext) -> RobotResult:
    """Reads its file, then waits for a service in four parts."""
    with context.open(source) as stream:
        stream.read(2**20)
    for part in range(1, 5):
        context.report(part / 4, f"part {part}")
        time.sleep(0.02)
    return RobotResult()


@pytest.fixture
def waiting(assemblies: Assemblies, monkeypatch: pytest.MonkeyPatch) -> Assemblies:
    """A template with a robot of a package that waits."""
    point = EntryPoint("/acme/waits", "acme:waits", "jobplane.robots")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    monkeypatch.setitem(sys.modules, "acme", sys.modules[__name__])
    assemblies.processor.set(PROGRESS_INTERVAL_SECONDS=0.0)
    assemblies.step("w", "/acme/waits")
    return assemblies


def test_progress_of_a_robot_that_waits_is_what_it_reports(waiting: Assemblies) -> None:
    """The bytes that it has read at once are not; each file has the part of its size."""
    waiting.run("t", waiting.put("a.txt", bytes(300)), waiting.put("b.txt", bytes(100)))
    heard = waiting.processor.sockets.to("conn-1")
    told = {m["message"]: m["percentage"] for m in heard if m.get("message", "").startswith("Step")}
    seen = {text: percentage for text, percentage in told.items() if "part" in text}
    assert len(seen) >= 3
    # Half of the job is before this step; the last of its names is that of the second file.
    assert all(percentage > 50 + 37 for percentage in seen.values())
    shown = [m["percentage"] for m in heard if "part" in m.get("message", "")]
    assert shown == sorted(shown)
    assert min(shown) == pytest.approx(50 + 50 * 0.75 / 4, abs=0.1)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("../../etc/passwd", "passwd"),
        ("ünïcödé 日本.txt", "ünïcödé 日本.txt"),
        ("a\\b\\c.txt", "c.txt"),
        ("..", "file"),
        ("ctrl\x07.txt", "ctrl.txt"),
    ],
)
def test_result_keys_stay_below_their_step(assemblies: Assemblies, name: str, stored: str) -> None:
    assemblies.step("h", "/file/hash")
    row = assemblies.run("t", assemblies.put(name, b"hello"))
    assert list(assemblies.outputs(row, "h")) == [stored]


@pytest.mark.parametrize(
    ("first", "second", "stored"),
    [
        (("a.txt", b"one"), ("a.txt", b"two"), {"a.txt": b"one", "a-2.txt": b"two"}),
        (("a.txt", b"one"), ("b.txt", b"one"), {"a.txt": b"one", "b.txt": b"one"}),
        (("a.txt", b"one"), ("a.txt", b"one"), {"a.txt": b"one", "a-2.txt": b"one"}),
    ],
    ids=["one name", "equal bytes", "both"],
)
def test_files_of_one_name_or_of_equal_bytes_stay_two(
    assemblies: Assemblies, first: Any, second: Any, stored: Any
) -> None:
    """A second file of a name gets a number; each result names the upload it was made from."""
    again = {"robot": "/file/hash", "use": "h"}
    assemblies.templates(h={"robot": "/file/hash", "use": ":original"}, c=again)
    row = assemblies.run("t", assemblies.put(*first), assemblies.put(*second))
    document = assemblies.document(row)
    ids = [upload["id"] for upload in document["uploads"]]
    for step in ("h", "c"):
        assert assemblies.outputs(row, step) == stored
        assert [file["original_id"] for file in document["results"][step]] == ids


def test_an_empty_file_is_processed(assemblies: Assemblies) -> None:
    row = assemblies.run("tpl_archive", assemblies.put("empty.txt", b""))
    assert row["status"] == "COMPLETED"
    ((_, packed),) = assemblies.outputs(row, "compressed").items()
    assert gzip.decompress(packed) == b""


def test_a_multipart_upload_is_verified_by_its_bytes(assemblies: Assemblies) -> None:
    """Its ETag is not an md5."""
    body = random.Random(7).randbytes(6 * 1024 * 1024)
    entry = upload("big.bin", body)
    assemblies.put_in_parts(entry, body[: 5 * 1024 * 1024], body[5 * 1024 * 1024 :])
    assemblies.step("h", "/file/hash")
    row = assemblies.run("t", entry)
    assert row["status"] == "COMPLETED"
    assert assemblies.document(row)["results"]["h"][0]["meta"] == {"sha256": hashed(body)}


def test_the_digest_of_its_parts_verifies_a_multipart_upload_unread(
    assemblies: Assemblies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its md5 is unknown: a step that wants one verifies the size, with a warning."""
    monkeypatch.setattr(assemblies.processor.module, "verify", None)
    body = random.Random(7).randbytes(6 * 1024 * 1024)
    entry = upload("big.bin", body)
    parts = body[: 5 * 1024 * 1024], body[5 * 1024 * 1024 :]
    digests = [hashlib.md5(part, usedforsecurity=False).digest() for part in parts]
    entry["md5hash"] = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    assemblies.put_in_parts(entry, *parts)
    row = assemblies.run("tpl_archive", entry)
    assert row["status"] == "COMPLETED"
    ((_, packed),) = assemblies.outputs(row, "compressed").items()
    assert gzip.decompress(packed) == body
    assert "only the size was verified" in str(assemblies.document(row)["warnings"])


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("template", ["t", "tpl_archive"])
def test_another_md5_reaches_no_step(assemblies: Assemblies, template: str, in_parts: bool) -> None:
    """Whether or not the template verifies it as well; the text has the file and its md5."""
    if template == "t":
        assemblies.step("h", "/file/hash")
    entry = upload("big.bin", b"announced")
    if in_parts:
        assemblies.put_in_parts(entry, b"something else")
    else:
        assemblies.stack.upload(entry["key"], b"something else")
    row = assemblies.run(template, entry)
    code, text = failure(assemblies, row)
    assert (code, text[:9], entry["md5hash"] in text) == ("MD5_MISMATCH", "big.bin: ", True)
    assert assemblies.document(row)["results"] == {}


def test_a_large_output_is_a_multipart_upload(assemblies: Assemblies) -> None:
    assemblies.processor.set(PART_BYTES=5 * 1024 * 1024)
    assemblies.step("p", "/document/split", bytes=2**30)
    body = random.Random(7).randbytes(11 * 1024 * 1024)
    row = assemblies.run("t", assemblies.put("big.bin", body))
    (file,) = assemblies.document(row)["results"]["p"]
    assert assemblies.stack.object(file["key"]) == body
    assert (file["size"], file["md5hash"]) == (len(body), hashed(body, "md5"))
    head = assemblies.stack.s3.head_object(Bucket=BUCKET, Key=file["key"])
    assert head["ETag"].strip('"').endswith("-3")


def test_an_unknown_template_fails_with_TEMPLATE_UNKNOWN(assemblies: Assemblies) -> None:
    code, text = failure(assemblies, assemblies.run("tpl_no", assemblies.put("a.txt", b"a")))
    assert (code, "tpl_no" in text) == ("TEMPLATE_UNKNOWN", True)


def test_a_missing_upload_fails_with_INPUT_MISSING(assemblies: Assemblies) -> None:
    there, missing = assemblies.put("a.txt", b"a"), upload("b.txt", b"b")
    row = assemblies.run("tpl_archive", there, missing)
    assert failure(assemblies, row) == ("INPUT_MISSING", "b.txt: has not been uploaded")


def test_an_object_above_the_size_limit_fails(assemblies: Assemblies) -> None:
    """Whatever size was announced."""
    assemblies.processor.set(MAX_UPLOAD_BYTES=4)
    row = assemblies.run("tpl_archive", assemblies.put("a.txt", b"hello", size=1))
    assert failure(assemblies, row) == ("FILE_TOO_LARGE", "a.txt: larger than 4 bytes")


@pytest.mark.parametrize(
    ("template", "name", "body", "place"),
    [
        ("tpl_table", "people.csv", b"a,b\n1,2\n1,2,3\n", "line 3"),
        ("tpl_table", "open.csv", b'a,b\n1,"2\n3,4\n', "line"),
        ("tpl_table", "latin.csv", b"a,b\n1,\xff\n", "latin.csv"),
        ("tpl_records", "rows.ndjson", NDJSON + b"{oops}\n", "line 3"),
        ("tpl_records", "nan.ndjson", b'{"a":NaN}\n', "line 1"),
    ],
)
def test_malformed_content_fails_with_file_and_place(
    assemblies: Assemblies, template: str, name: str, body: bytes, place: str
) -> None:
    """The failed step leaves no outputs."""
    code, text = failure(assemblies, assemblies.run(template, assemblies.put(name, body)))
    assert code == "PROCESSING_ERROR"
    assert text.startswith(f"{name}, ")
    assert place in text
    assert assemblies.stack.keys("results/") == []


def test_an_unexpected_error_of_a_robot_gives_a_general_text(assemblies: Assemblies) -> None:
    assemblies.step("h", "/file/hash")
    assemblies.processor.set(run_step=_raising(RuntimeError("internal detail")))
    row = assemblies.run("t", assemblies.put("a.txt", b"a"))
    document = assemblies.document(row)
    assert (row["status"], document["error"]) == ("FAILED", "PROCESSING_ERROR")
    assert "internal detail" not in json.dumps([row, document, assemblies.processor.sockets.posts])


def _raising(error: BaseException) -> Any:
    def run(*_: Any) -> Any:
        raise error

    return run


def test_the_text_of_a_RobotError_is_shown(assemblies: Assemblies) -> None:
    assemblies.step("h", "/file/hash")
    assemblies.processor.set(run_step=_raising(RobotError("is odd", file="a.txt")))
    row = assemblies.run("t", assemblies.put("a.txt", b"a"))
    assert failure(assemblies, row) == ("PROCESSING_ERROR", "a.txt: is odd")


def once(assemblies: Assemblies, first: BaseException | Callable[[], None]) -> None:
    """An error of the first step that is run, or what happens before it."""
    whole, left = assemblies.processor.module.run_step, [first]

    def run_step(*arguments: Any) -> Any:
        if left:
            found = left.pop()
            if isinstance(found, BaseException):
                raise found
            found()
        return whole(*arguments)

    assemblies.processor.set(run_step=run_step)


def test_throttled_storage_costs_one_attempt(assemblies: Assemblies) -> None:
    """The second attempt goes on with the same execution."""
    once(assemblies, client_error("SlowDown", 503))
    row = assemblies.run_archive()
    assert (row["status"], row["attempts"]) == ("COMPLETED", 2)
    assert assemblies.document(row)["execution"] == 1
    assert len(assemblies.stack.messages("webhooks")) == 1


def cancel_at(assemblies: Assemblies, target: Any, name: str) -> None:
    """Cancel the request at the first call of `name`; the worker notices it there."""
    module = assemblies.processor.module
    whole = getattr(target, name)
    jobs: list[Any] = []
    process = module.ACTIONS["process_assembly"]

    def remembered(job: Any) -> Any:
        jobs.append(job)
        return process(job)

    assemblies.processor.action("process_assembly", remembered)

    def then_cancel(*arguments: Any, **named: Any) -> Any:
        found = whole(*arguments, **named)
        row = assemblies.stack.request()
        assemblies.stack.put("requests", row | {"cancel_requested": True})
        until(lambda: jobs[0].report(1, "Going on"))
        return found

    assemblies.stack.monkeypatch.setattr(target, name, then_cancel)


def test_a_cancelled_assembly_ends_canceled_everywhere(assemblies: Assemblies) -> None:
    cancel_at(assemblies, assemblies.processor.module, "run_step")
    row = assemblies.run_archive()
    document = assemblies.document(row)
    assert (row["status"], document["ok"]) == ("CANCELLED", "ASSEMBLY_CANCELED")
    assert not {"error", "lease_until"} & document.keys()
    assert [m["error"]["code"] for m in assemblies.processor.terminal()] == ["CANCELLED"]
    assert len(assemblies.stack.messages("webhooks")) == 1


def test_cancelling_a_waiting_request_does_not_end_the_others_run(assemblies: Assemblies) -> None:
    row = job_of("tpl_archive", assemblies.put("a.txt", b"hello"), cancel_requested=True)
    running = elsewhere(row)
    assemblies.stack.put("assemblies", running)
    assert assemblies.processor.run(row)["status"] == "CANCELLED"
    assert assemblies.document(row) == running
    assert assemblies.stack.messages("webhooks") == []


def test_cancelling_aborts_a_multipart_upload(assemblies: Assemblies) -> None:
    assemblies.processor.set(PART_BYTES=5 * 1024 * 1024)
    assemblies.step("p", "/document/split", bytes=2**30)
    cancel_at(assemblies, assemblies.processor.module.s3(), "upload_part")
    body = random.Random(7).randbytes(11 * 1024 * 1024)
    row = assemblies.run("t", assemblies.put("big.bin", body))
    assert row["status"] == "CANCELLED"
    assert assemblies.stack.keys("results/") == []
    assert not assemblies.stack.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_the_webhook_is_queued_once_for_each_execution(assemblies: Assemblies) -> None:
    row = assemblies.run("tpl_fingerprint", assemblies.put("a.txt", b"hello"))
    assert assemblies.stack.messages("webhooks") == [
        {"assembly_id": row["assembly_id"], "execution": 1, "template_id": "tpl_fingerprint"}
    ]
    assert assemblies.document(row)["webhook"] == {"status": "pending", "attempts": 0}


def test_a_webhook_that_was_delivered_is_not_queued_again(assemblies: Assemblies) -> None:
    """A later attempt reads it in the ended document."""
    sent = {"uploads": [], "webhook": {"status": "delivered", "attempts": 1}}
    row = beside(assemblies, request_id="req-1", ok="ASSEMBLY_COMPLETED", **sent)
    assert assemblies.processor.run(row)["status"] == "COMPLETED"
    assert assemblies.stack.messages("webhooks") == []


def test_the_webhooks_message_has_the_trace_of_the_request(assemblies: Assemblies) -> None:
    header = "Root=1-6921a0c2-3f1d2c4b5a69788796a5b4c3;Parent=53995c3f42cd8ad8;Sampled=0"
    assemblies.run("tpl_fingerprint", assemblies.put("a.txt", b"hello"), trace_header=header)
    sqs = assemblies.stack.sqs
    url = sqs.get_queue_url(QueueName=f"{PREFIX}webhooks")["QueueUrl"]
    (message,) = sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"])["Messages"]
    assert message["Attributes"]["AWSTraceHeader"] == header


@pytest.mark.parametrize(
    ("code", "status", "times"), [("RequestThrottled", 403, 1), ("InternalError", 500, 4)]
)
def test_a_throttled_webhook_queue_does_not_change_the_result(
    assemblies: Assemblies, code: str, status: int, times: int
) -> None:
    """Even if it uses up all attempts."""
    module, stack = assemblies.processor.module, assemblies.stack
    failed = stack.fail(module.sqs(), "SendMessage", code, status=status, times=times)
    row = assemblies.run("tpl_fingerprint", assemblies.put("a.txt", b"hello"))
    assert failed["SendMessage"] == times
    assert row["status"] == "COMPLETED"
    assert len(stack.messages("webhooks")) == 1


def test_a_refused_webhook_message_does_not_change_the_result(assemblies: Assemblies) -> None:
    sqs = assemblies.processor.module.sqs()
    assemblies.stack.fail(sqs, "SendMessage", "AccessDenied", status=403)
    row = assemblies.run("tpl_fingerprint", assemblies.put("a.txt", b"hello"))
    assert (row["status"], row["attempts"]) == ("COMPLETED", 1)
    assert assemblies.document(row)["webhook"] == {"status": "pending", "attempts": 0}


def test_a_later_attempt_queues_the_webhook_of_a_cancelled_assembly(assemblies: Assemblies) -> None:
    """After an attempt that died between the document's end and the webhook."""
    cancel_at(assemblies, assemblies.processor.module, "run_step")
    module, stack = assemblies.processor.module, assemblies.stack
    stack.fail(module.sqs(), "SendMessage", "InternalError", status=500, times=1)
    row = assemblies.run_archive()
    assert (row["status"], assemblies.document(row)["ok"]) == ("CANCELLED", "ASSEMBLY_CANCELED")
    assert len(stack.messages("webhooks")) == 1


def test_a_template_without_a_webhook_queues_no_message(assemblies: Assemblies) -> None:
    assemblies.step("h", "/file/hash")
    row = assemblies.run("t", assemblies.put("a.txt", b"hello"))
    assert assemblies.stack.messages("webhooks") == []
    assert "webhook" not in assemblies.document(row)


def test_a_request_for_a_completed_assembly_gets_its_document(assemblies: Assemblies) -> None:
    """It runs nothing and sends no webhook."""
    entry = assemblies.put("a.txt", b"hello")
    first = assemblies.run("tpl_archive", entry)
    before = assemblies.document(first)
    assemblies.stack.messages("webhooks")
    assemblies.processor.set(run_step=_raising(AssertionError("it ran")))
    second = assemblies.run("tpl_archive", entry, request_id="req-2")
    assert second["status"] == "COMPLETED"
    assert json.loads(second["result"]) == json.loads(first["result"])
    assert assemblies.document(first) == before
    assert assemblies.stack.messages("webhooks") == []


def test_a_failed_assembly_can_be_run_again(assemblies: Assemblies) -> None:
    """The second request is execution 2, with its own webhook."""
    entry = upload("a.txt", b"hello")
    first = assemblies.run("tpl_archive", entry)
    assert failure(assemblies, first)[0] == "INPUT_MISSING"
    created = assemblies.document(first)["created_at"]
    assemblies.stack.upload(entry["key"], b"hello")
    second = assemblies.run("tpl_archive", entry, request_id="req-2")
    document = assemblies.document(second)
    assert (second["status"], document["ok"]) == ("COMPLETED", "ASSEMBLY_COMPLETED")
    assert (document["execution"], document["request_id"]) == (2, "req-2")
    assert document["created_at"] == created
    assert "error" not in document
    assert [m["execution"] for m in assemblies.stack.messages("webhooks")] == [1, 2]


def test_a_canceled_assembly_can_be_run_again(assemblies: Assemblies) -> None:
    entry = assemblies.put("a.txt", b"hello")
    with pytest.MonkeyPatch.context() as patch:
        assemblies.stack.monkeypatch, kept = patch, assemblies.stack.monkeypatch
        cancel_at(assemblies, assemblies.processor.module, "run_step")
        assert assemblies.run("tpl_archive", entry)["status"] == "CANCELLED"
        assemblies.stack.monkeypatch = kept
    row = assemblies.run("tpl_archive", entry, request_id="req-2")
    assert (row["status"], assemblies.document(row)["execution"]) == ("COMPLETED", 2)


def test_an_expired_document_counts_as_missing(assemblies: Assemblies) -> None:
    entry = assemblies.put("a.txt", b"hello")
    first = assemblies.run("tpl_archive", entry)
    stale = assemblies.document(first) | {"ttl": int(time.time()) - 1}
    assemblies.stack.put("assemblies", stale)
    row = assemblies.run("tpl_archive", entry, request_id="req-2")
    document = assemblies.document(row)
    assert (document["request_id"], document["execution"]) == ("req-2", 1)
    assert document["ttl"] > time.time()


def elsewhere(row: Row, **changes: Any) -> Row:
    """A document of an assembly that another request runs."""
    now, begun = int(time.time()), "2026-11-22T10:00:00.000Z"
    return {
        "assembly_id": row["assembly_id"], "owner": OWNER, "user_id": "user-1",
        "tenant_id": "tenant-1", "created_at": begun, "execution_start": begun,
        "template_id": "tpl_archive", "request_id": "req-other",
        "message": "Processing: verified", "execution": 1, "rev": 3,
        "lease_until": now + 100, "ttl": now + 1000,
    } | changes  # fmt: skip


def beside(assemblies: Assemblies, **changes: Any) -> Row:
    """A queued job whose assembly another request runs, or has ended."""
    row = job_of("tpl_archive", assemblies.put("a.txt", b"hello"))
    assemblies.stack.put("assemblies", elsewhere(row, **changes))
    return row


def test_a_request_for_a_running_assembly_is_parked(assemblies: Assemblies) -> None:
    """Without spending an attempt; the document has its id."""
    row = beside(assemblies)
    after = assemblies.processor.run(row)
    assert (after["status"], after["attempts"]) == ("RETRYING", 0)
    assert "lease_owner" not in after
    assert assemblies.document(row)["followers"] == [f"{OWNER}#req-1"]
    assert assemblies.processor.sockets.kinds() == ["progress"]


def test_one_of_two_concurrent_requests_for_an_assembly_waits(assemblies: Assemblies) -> None:
    row = beside(assemblies)
    read = assemblies.processor.module.read_assembly
    looks: list[str] = []

    def too_early(assembly_id: str) -> Any:
        looks.append(assembly_id)
        return None if len(looks) == 1 else read(assembly_id)

    assemblies.processor.set(read_assembly=too_early)
    assert assemblies.processor.run(row)["status"] == "RETRYING"
    document = assemblies.document(row)
    assert (document["request_id"], document["rev"]) == ("req-other", 3)
    assert document["followers"] == [f"{OWNER}#req-1"]


def test_the_end_requeues_the_waiting_request(assemblies: Assemblies) -> None:
    """It then answers from the document."""
    entry = assemblies.put("a.txt", b"hello")
    waiting = job_of("tpl_archive", entry, request_id="req-2")
    parked: list[str] = []

    def park() -> None:
        assemblies.stack.put("requests", waiting)
        assemblies.work_elsewhere("req-2")
        parked.append(assemblies.stack.request("req-2")["status"])

    once(assemblies, park)
    assemblies.run("tpl_archive", entry)
    woken = assemblies.stack.request("req-2")
    assert (parked, woken["status"]) == (["RETRYING"], "PENDING")
    assemblies.processor.deliver(message(woken))
    first, second = assemblies.stack.request("req-1"), assemblies.stack.request("req-2")
    assert (second["status"], second["attempts"]) == ("COMPLETED", 1)
    assert json.loads(second["result"]) == json.loads(first["result"])
    assert len(assemblies.stack.messages("webhooks")) == 1


def test_a_request_that_joined_a_failure_fails_with_it(assemblies: Assemblies) -> None:
    """It does not run the assembly again; a request that comes later does."""
    entry = assemblies.put("a.txt", b"hello")
    waiting = job_of("tpl_archive", entry, request_id="req-2")
    runs: list[int] = []

    def run_steps(*_: Any) -> None:
        runs.append(1)
        if len(runs) == 1:
            assemblies.stack.put("requests", waiting)
            assemblies.work_elsewhere("req-2")
        raise assemblies.processor.module.AssemblyError("MD5_MISMATCH", "a.txt: another content")

    assemblies.processor.set(run_steps=run_steps)
    assemblies.run("tpl_archive", entry)
    woken = assemblies.stack.request("req-2")
    assemblies.processor.deliver(message(woken))
    second = assemblies.stack.request("req-2")
    assert (second["status"], len(runs)) == ("FAILED", 1)
    assert assemblies.document(second)["request_id"] == "req-1"

    assert assemblies.run("tpl_archive", entry, request_id="req-3")["status"] == "FAILED"
    assert len(runs) == 2
    assert assemblies.document(second)["request_id"] == "req-3"


def test_the_end_does_not_requeue_a_request_that_a_worker_has_taken(assemblies: Assemblies) -> None:
    end = {"lease_owner": "other", "lease_until": int(time.time()) + 100}
    taken = request("req-2", status="RETRYING", attempts=1, **end)
    assemblies.stack.put("requests", taken)
    followed = {"uploads": [], "followers": frozenset({f"{OWNER}#req-2"})}
    row = beside(assemblies, request_id="req-1", ok="ASSEMBLY_COMPLETED", **followed)
    assert assemblies.processor.run(row)["status"] == "COMPLETED"
    assert assemblies.stack.request("req-2") == taken


def test_a_request_is_requeued_if_the_assembly_ends_meanwhile(assemblies: Assemblies) -> None:
    row = beside(assemblies)
    whole = assemblies.processor.module.put_back

    def put_back(*arguments: Any, **options: Any) -> bool:
        done = elsewhere(row, ok="ASSEMBLY_COMPLETED")
        del done["lease_until"]
        assemblies.stack.put("assemblies", done)
        found: bool = whole(*arguments, **options)
        return found

    assemblies.processor.set(put_back=put_back)
    assert assemblies.processor.run(row)["status"] == "PENDING"


@pytest.mark.parametrize(
    ("changes", "execution"),
    [({"lease_until": int(time.time()) - 1}, 2), ({"request_id": "req-1"}, 1)],
    ids=["expired lease", "second attempt"],
)
def test_a_begun_job_is_taken_over(assemblies: Assemblies, changes: Row, execution: int) -> None:
    """As the next execution, unless its lease is that of the same request."""
    row = beside(assemblies, **changes)
    after = assemblies.processor.run(row | {"attempts": 1})
    document = assemblies.document(row)
    assert after["status"] == "COMPLETED"
    assert (document["request_id"], document["execution"]) == ("req-1", execution)


THREE = {"a.txt": b"one\n", "b.txt": b"two\n", "c.txt": b"three\n"}


def files_of_three(assemblies: Assemblies) -> tuple[list[Row], list[str]]:
    """Uploads for a template of two steps, and the files that robots are run for from now on."""
    split: Row = {"robot": "/document/split", "lines": 1}
    assemblies.templates(p=split | {"use": ":original"}, q=split | {"use": "p"})
    module, ran = assemblies.processor.module, list[str]()
    whole = module.run_robot

    def run_robot(step: Any, source: Any, *more: Any) -> Any:
        ran.append(f"{step.name} {source.name[0]}")
        return whole(step, source, *more)

    assemblies.processor.set(run_robot=run_robot)
    return [assemblies.put(name, body) for name, body in THREE.items()], ran


def go_on_with(assemblies: Assemblies, error: str, at: int) -> None:
    """The n-th opening of a file raises an error of the module, once."""
    whole, opened = assemblies.processor.module.open_object, list[str]()

    def open_object(key: str) -> Any:
        opened.append(key)
        if len(opened) == at:
            raise getattr(assemblies.processor.module, error)()
        return whole(key)

    assemblies.processor.set(open_object=open_object)


@pytest.mark.parametrize("store_every", [0.0, 60.0])
@pytest.mark.parametrize("at", [2, 3, 5])
def test_an_assembly_goes_on_at_the_file_where_it_was(
    assemblies: Assemblies, monkeypatch: pytest.MonkeyPatch, at: int, store_every: float
) -> None:
    """In the next invocation, with the document as it was; only the file under way is repeated."""
    monkeypatch.setattr("jobplane_leases.jobs.STORE_SECONDS", store_every)
    uploads, ran = files_of_three(assemblies)
    go_on_with(assemblies, "OutOfTimeError", at)
    row = assemblies.run("t", *uploads)
    before = assemblies.document(row)
    assert (row["status"], row["attempts"]) == ("PENDING", 0)
    assemblies.processor.deliver(message(row))
    after, document = assemblies.stack.request(), assemblies.document(row)
    assert (after["status"], after["attempts"], document["execution"]) == ("COMPLETED", 1, 1)
    expected = [f"{step} {name}" for step in "pq" for name in "abc"]
    assert ran == expected[:at] + expected[at - 1 :]
    for name in ("uploads", "execution_start", "created_at"):
        assert document[name] == before[name]
    assert before["results"].items() <= document["results"].items()
    for step, files in document["results"].items():
        assert [assemblies.stack.object(file["key"]) for file in files] == [*THREE.values()]
        ids = [upload["id"] for upload in document["uploads"]]
        assert ([file["original_id"] for file in files], step in "pq") == (ids, True)
    # What is read is counted once, by whatever attempt.
    assert document["bytes_usage"] == 4 * sum(map(len, THREE.values()))


def test_results_of_another_template_are_not_used(
    assemblies: Assemblies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment has changed it between two attempts."""
    monkeypatch.setattr("jobplane_leases.jobs.STORE_SECONDS", 0.0)
    uploads, ran = files_of_three(assemblies)
    go_on_with(assemblies, "OutOfTimeError", 5)
    row = assemblies.run("t", *uploads)
    assemblies.step("p", "/document/split", lines=2)
    assemblies.processor.deliver(message(row))
    document = assemblies.document(row)
    assert (document["ok"], [*document["results"]]) == ("ASSEMBLY_COMPLETED", ["p"])
    assert ran[5:] == ["p a", "p b", "p c"]


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_after_the_documents_end_the_request_ends(
    assemblies: Assemblies, is_cancelled: bool
) -> None:
    """The worker died between the two; a cancellation comes too late."""
    entry = assemblies.put("a.txt", b"hello")
    done = assemblies.run("tpl_archive", entry)
    document = assemblies.document(done)
    assemblies.processor.set(run_step=_raising(AssertionError("it ran")))
    progress = {"seq": 9, "percentage": 100}
    again = job_of("tpl_archive", entry, attempts=1, progress=progress)
    after = assemblies.processor.run(again | {"cancel_requested": is_cancelled})
    assert (after["status"], after["attempts"]) == ("COMPLETED", 2)
    assert after["result"] == done["result"]
    assert assemblies.processor.terminal()[-1]["success"] is True
    assert assemblies.document(done) == document


def test_the_next_attempt_posts_one_message_for_a_cancellation(assemblies: Assemblies) -> None:
    """The worker died after it had ended the document."""
    pending = {"webhook": {"status": "pending", "attempts": 0}}
    row = beside(assemblies, request_id="req-1", ok="ASSEMBLY_CANCELED", **pending)
    assert assemblies.processor.run(row | {"attempts": 1})["status"] == "CANCELLED"
    assert len(assemblies.stack.messages("webhooks")) == 1


def test_a_cancellation_after_the_documents_failure_has_no_effect(assemblies: Assemblies) -> None:
    entry = upload("b.txt", b"b")
    failed = assemblies.run("tpl_archive", entry)
    again = job_of("tpl_archive", entry, attempts=1, cancel_requested=True, progress={"seq": 9})
    after = assemblies.processor.run(again)
    assert (after["status"], after["error"]) == ("FAILED", failed["error"])


def lost(row: Row) -> Row:
    """A request whose last worker has died."""
    return row | {"status": "PROCESSING", "attempts": 4, "lease_until": 1, "lease_owner": "gone"}


def test_a_request_without_attempts_gets_the_end_of_its_document(assemblies: Assemblies) -> None:
    """Completed, failed or cancelled before the last worker died."""
    stack, processor = assemblies.stack, assemblies.processor
    entry, missing = assemblies.put("a.txt", b"hello"), upload("b.txt", b"b")
    ends = [assemblies.run("tpl_archive", entry), assemblies.run("tpl_archive", missing)]
    rows = [job_of("tpl_archive", entry), job_of("tpl_archive", missing)]
    canceled = job_of("tpl_archive", assemblies.put("c.txt", b"c"))
    stack.put("assemblies", elsewhere(canceled, request_id="req-1", ok="ASSEMBLY_CANCELED"))
    for row, end in zip(rows, ends, strict=True):
        stack.put("requests", lost(row))
        assert processor.sweep() == {"failed": 1}
        after = stack.request()
        assert [after.get(name) for name in ("status", "result", "error")] == [
            end.get(name) for name in ("status", "result", "error")
        ]
    stack.put("requests", lost(canceled))
    processor.sweep()
    after = stack.request()
    assert (after["status"], after["error"]["code"]) == ("CANCELLED", "CANCELLED")


def test_a_request_gets_the_documents_end_written_during_the_sweep(assemblies: Assemblies) -> None:
    """Between the sweeper's read and write."""
    entry = assemblies.put("a.txt", b"hello")
    done = assemblies.run("tpl_archive", entry)
    ended = assemblies.document(done)
    running = {name: value for name, value in ended.items() if name != "ok"}
    assemblies.stack.put("assemblies", running)
    assemblies.stack.put("requests", lost(job_of("tpl_archive", entry)))
    whole = assemblies.processor.module.read_assembly

    def read_assembly(assembly_id: str) -> Any:
        found = whole(assembly_id)
        assemblies.stack.put("assemblies", ended | {"rev": ended["rev"] + 1})
        return found

    assemblies.processor.set(read_assembly=read_assembly)
    assemblies.processor.sweep()
    after = assemblies.stack.request()
    assert (after["status"], after["result"]) == ("COMPLETED", done["result"])


def test_an_interrupted_timeout_is_completed_with_the_same_code(assemblies: Assemblies) -> None:
    """The sweeper died between document and request."""
    timed_out = {"error": "TIMEOUT", "message": "The job takes longer than a worker may run"}
    row = beside(assemblies, request_id="req-1", **timed_out)
    assemblies.stack.put("requests", lost(row))
    assert assemblies.processor.sweep() == {"failed": 1}
    error = assemblies.stack.request()["error"]
    assert (error["code"], error["retryable"]) == ("TIMEOUT", True)


def test_an_assembly_goes_on_although_answers_were_lost(assemblies: Assemblies) -> None:
    """The refused repetition finds its own revision."""
    dynamodb = assemblies.processor.module.dynamodb
    whole = dynamodb.update_item

    def twice(**update: Any) -> Any:
        if update["TableName"].endswith("assemblies"):
            whole(**update)
        return whole(**update)

    assemblies.stack.monkeypatch.setattr(dynamodb, "update_item", twice)
    row = assemblies.run_archive()
    assert (row["status"], row["attempts"]) == ("COMPLETED", 1)


def test_no_step_is_repeated_while_the_end_can_not_be_written(assemblies: Assemblies) -> None:
    module, stack = assemblies.processor.module, assemblies.stack
    stack.closing_waits(*(0.0,) * 5)
    calls = stack.calls(module.s3())
    failed = stack.fail(
        module.dynamodb, "UpdateItem", times=5, when=lambda body: "ASSEMBLY_COMPLETED" in body
    )
    row = assemblies.run("tpl_fingerprint", assemblies.put("a.txt", b"hello"))
    assert (failed["UpdateItem"], row["status"], row["attempts"]) == (5, "COMPLETED", 1)
    assert calls.counts()["HeadObject"] == 1


@pytest.mark.parametrize("second", ["the same request", "a request that joins"])
def test_a_worker_that_wakes_up_late_deletes_nothing(assemblies: Assemblies, second: str) -> None:
    """It aborts what it has made itself, and the results of the worker that replaced it stay."""
    stack, module = assemblies.stack, assemblies.processor.module
    assemblies.step("parts", "/document/split", lines=1000)
    entry = assemblies.put("big.txt", b"".join(b"%063d\n" % n for n in range(20_000)))
    row, twin = job_of("t", entry), job_of("t", entry, request_id="req-2")
    whole, opened = module.open_object, 0

    def lapse(table: str, **key: str) -> None:
        stack.put(table, stack.get(table, **key) | {"lease_until": int(time.time()) - 1})

    def be_replaced() -> None:
        lapse("assemblies", assembly_id=row["assembly_id"])
        if second == "the same request":
            lapse("requests", owner=OWNER, request_id="req-1")
        else:
            stack.put("requests", twin)
        assemblies.work_elsewhere("req-1" if second == "the same request" else "req-2")

    class Slow(io.BytesIO):
        """After some chunks its reader stands still until another worker has done the job."""

        def read(self, size: int | None = -1, /) -> bytes:
            if 500_000 < self.tell() and not stack.keys("results/elsewhere"):
                stack.upload("results/elsewhere", b"")
                be_replaced()
            return super().read(size)

    def open_object(key: str) -> Any:
        nonlocal opened
        opened += 1
        return Slow(whole(key).read()) if opened == 1 else whole(key)

    assemblies.processor.set(open_object=open_object)
    assemblies.processor.run(row)
    document = assemblies.document(row)
    promised = {file["key"] for file in document["results"]["parts"]}
    assert (document["ok"], len(promised)) == ("ASSEMBLY_COMPLETED", 20)
    assert promised <= set(stack.keys("results/"))


def test_a_job_fails_before_its_document_exceeds_an_item(assemblies: Assemblies) -> None:
    assemblies.processor.set(MAX_DOCUMENT_BYTES=1000)
    row = assemblies.run_archive()
    text = "The files' descriptions take more than 1000 bytes; send fewer files at a time"
    assert failure(assemblies, row) == ("PROCESSING_ERROR", text)


def test_a_thousand_files_end_well(assemblies: Assemblies) -> None:
    """With names of 255 characters; their document and their request fit into their items."""
    assemblies.step("kept", "/file/filter", accepts={"mime": ["text/*"]})
    entries = [upload(f"{n:.>251}.txt", b"%d" % n) for n in range(MAX_FILES)]
    assemblies.stack.upload(entries[0]["key"], b"0")
    for entry in entries[1:]:
        entry |= {"key": entries[0]["key"], "md5hash": entries[0]["md5hash"]}
    row = assemblies.processor.run(packed(job_of("t", *entries)))
    document = assemblies.document(row)
    assert (row["status"], document["ok"]) == ("COMPLETED", "ASSEMBLY_COMPLETED")
    names = [file["name"] for file in document["results"]["kept"]]
    assert names == [entry["name"] for entry in entries]
    for table, key in (("assemblies", "assembly_id"), ("requests", "request_id")):
        (item,) = assemblies.stack.dynamodb.scan(TableName=PREFIX + table)["Items"]
        assert from_value(item[key]) == row[key]
        assert item_size(item) < MAX_ITEM_BYTES
    (message,) = assemblies.processor.terminal()
    assert message["result"].keys() == {"url"}


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"MAX_RESULTS": 5}, "The steps make more than 5 files; send fewer files at a time"),
        (
            {"SMALL_OUTPUT_BYTES": 15, "MAX_OUTPUT_GROWTH": 1},
            "a-part-0004.txt: gives more output than allowed, 1 bytes",
        ),
        (
            {"MAX_OUTPUT_BYTES": 7},
            "a.txt: gives more output than allowed, 7 bytes",
        ),
    ],
)
def test_the_steps_of_a_job_have_one_limit(assemblies: Assemblies, limits: Row, text: str) -> None:
    """Of files and of bytes, whatever each robot may."""
    split: Row = {"robot": "/document/split", "lines": 1}
    assemblies.templates(first=split | {"use": ":original"}, second=split | {"use": "first"})
    assemblies.processor.set(**limits)
    row = assemblies.run("t", assemblies.put("a.txt", b"1\n2\n3\n4\n"))
    assert failure(assemblies, row) == ("FILE_TOO_LARGE", text)


def test_a_job_keeps_its_first_warnings(assemblies: Assemblies) -> None:
    assemblies.processor.set(MAX_WARNINGS=3)
    assemblies.step("none", "/file/filter", accepts={"mime": ["image/*"]})
    files = [assemblies.put(f"{n}.txt", b"%d" % n) for n in range(5)]
    warnings = assemblies.document(assemblies.run("t", *files))["warnings"]
    assert [text[:5] for text in warnings] == ["0.txt", "1.txt", "there"]


def test_a_late_renewal_does_not_change_an_ended_document(assemblies: Assemblies) -> None:
    kind = assemblies.processor.module.Assembly
    end = kind.end

    def then_saved(assembly: Any, *arguments: Any, **state: Any) -> None:
        end(assembly, *arguments, **state)
        assembly.save(message="still at it")

    assemblies.stack.monkeypatch.setattr(kind, "end", then_saved)
    row = assemblies.run_archive()
    document = assemblies.document(row)
    assert document["message"] == "Processing completed"
    assert "lease_until" not in document


def test_an_end_is_written_however_large_the_document_is(assemblies: Assemblies) -> None:
    """Else the job would be posted as completed without an ended document."""
    module = assemblies.processor.module
    whole = module.run_steps

    def run_steps(assembly: Any, template: Any) -> None:
        whole(assembly, template)
        assemblies.processor.set(MAX_DOCUMENT_BYTES=len(json.dumps(assembly.document)))

    assemblies.processor.set(run_steps=run_steps)
    row = assemblies.run_archive()
    document = assemblies.document(row)
    assert (row["status"], document.get("ok")) == ("COMPLETED", "ASSEMBLY_COMPLETED")
    assert document["webhook"]["status"] == "pending"


def test_another_owners_assembly_is_refused(assemblies: Assemblies) -> None:
    """Even if ids collide."""
    stranger = owner_key("tenant-2", "user-1")
    row = beside(assemblies, owner=stranger, ok="ASSEMBLY_COMPLETED")
    before = assemblies.document(row)
    after = assemblies.processor.run(row)
    assert (after["status"], after["error"]["code"]) == ("FAILED", "FORBIDDEN")
    assert assemblies.document(row) == before


def test_a_document_taken_over_stops_its_first_worker(assemblies: Assemblies) -> None:
    """Its writes are conditional on the revision; it leaves document and request."""
    row = job_of("tpl_archive", assemblies.put("a.txt", b"hello"))
    taken = elsewhere(row, rev=77)
    once(assemblies, lambda: assemblies.stack.put("assemblies", taken))
    after = assemblies.processor.run(row)
    assert assemblies.document(row) == taken
    assert after["status"] == "PROCESSING"
    assert assemblies.processor.terminal() == []


def test_an_attempt_that_runs_out_of_time_leaves_the_document_open(assemblies: Assemblies) -> None:
    """Before its first file is done; the next attempt ends it."""
    module = assemblies.processor.module
    errors, whole = [module.OutOfTimeError()], module.head_object

    def head_object(upload: Row) -> Row:
        while errors:
            raise errors.pop()
        found: Row = whole(upload)
        return found

    assemblies.processor.set(backoff_seconds=lambda attempt: 500.0, head_object=head_object)
    row = assemblies.run_archive()
    document = assemblies.document(row)
    assert row["status"] == "RETRYING"
    assert not {"ok", "error"} & document.keys()
    assemblies.processor.deliver(message(row))
    assemblies.stack.put("requests", row | {"lease_until": int(time.time()) - 1})
    assemblies.processor.deliver(message(row))
    assert assemblies.document(row)["ok"] == "ASSEMBLY_COMPLETED"


def test_no_log_line_holds_a_link_or_a_payload(assemblies: Assemblies, output: Output) -> None:
    """Nor the content of a file; ids are at top level."""
    assemblies.run("tpl_archive", assemblies.put("private-name.txt", b"private-text"))
    text = output.text
    assert "X-Amz-Signature" not in text
    assert "private" not in text
    (line,) = output.logged("request ended")
    assert line["assembly_id"]
    assert line["template_id"] == "tpl_archive"
