"""What programs expect that poll an assembly's document, in each state of its job."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError

from jobplane.trying.inprocess import InProcess
from jobplane_client import (
    ForbiddenError,
    NotFoundError,
    StatusClient,
    UnauthorizedError,
    mint_token,
    progress_message,
)
from jobplane_keys import owner_key, to_item
from jobplane_models.assemblies import AssemblyDocument
from tests.loopback import serving

OWNER = owner_key("tenant-1", "user-1")
SECRET = "a-secret-of-a-receiver-in-tests"
BODY = b"name,size\nann,1\n"
type Document = dict[str, Any]


class Callers:
    """One stage, and an assembly for each test."""

    def __init__(self, aws: InProcess) -> None:
        self.aws = aws
        self.jobs, self.status = aws.load("jobs"), aws.load("status")
        self.processor, self.router = aws.load("processor"), aws.load("router")
        self.file: Document = {}
        self.assembly_id = ""

    def post(self, route: str, body: Any, job: str = "") -> Document:
        token = mint_token(self.aws.jwt_secret, user="user-1", tenant="tenant-1")
        event = {
            "routeKey": route,
            "headers": {"authorization": f"Bearer {token}"},
            "pathParameters": {"request_id": job},
            "body": json.dumps(body),
        }
        answer: Document = json.loads(self.jobs.handler(event, self.aws.context("jobs"))["body"])
        return answer

    def upload(self, name: str) -> None:
        """Announce a file, and upload it."""
        digest = hashlib.md5(BODY + name.encode(), usedforsecurity=False).hexdigest()
        file = {"name": name, "size": len(BODY + name.encode()), "mime": "text/csv"}
        announced = {"template_id": "tpl_archive", "files": [file | {"md5hash": digest}]}
        made = self.post("POST /uploads", announced)["uploads"][0]
        self.file = file | {"md5hash": digest, "key": made["key"]}

    def put(self) -> None:
        place = {"Bucket": self.processor.FILES_BUCKET, "Key": self.file["key"]}
        self.aws.client("s3").put_object(**place, Body=BODY + self.file["name"].encode())

    def start(self, job: str, **metadata: str) -> Document:
        payload = {"template_id": "tpl_archive", "uploads": [self.file]}
        message = {"id": job, "action": "process_assembly", "payload": payload}
        answer = self.post("POST /jobs", message | {"metadata": metadata})
        self.assembly_id = answer["assembly_id"]
        return answer

    def work(self, job: str) -> None:
        self.processor.work(OWNER, job, self.processor.Invocation("one", time.time() + 300))

    def cancel(self, job: str) -> str:
        return str(self.post("POST /jobs/{request_id}/cancel", {}, job)["status"])

    def webhooks(self) -> list[Document]:
        """The messages of the queue `webhooks` for this assembly, which are taken from it."""
        sqs, url = self.aws.client("sqs"), self.router.WEBHOOKS_QUEUE_URL
        found = []
        while batch := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found += [json.loads(message["Body"]) for message in batch]
        return [each for each in found if each["assembly_id"] == self.assembly_id]

    def look_up(self, assembly_id: str | None = None) -> tuple[int, Document, dict[str, str]]:
        event = {"assemblyId": assembly_id or self.assembly_id, "userId": "user-1"}
        answer = self.status.handler(event, self.aws.context("status"))
        return answer["statusCode"], json.loads(answer["body"]), answer["headers"]

    def row(self) -> Document:
        found = self.router.waiting().read(self.assembly_id, time.time())
        assert found
        return dict(found)

    def ask_to_cancel(self, job: str) -> None:
        """As $disconnect does."""
        place = (self.aws.client("dynamodb"), self.aws.tables["requests"], OWNER, job)
        assert self.router.RequestLease(*place).ask_to_cancel()


@pytest.fixture(scope="module")
def stage() -> Iterator[Callers]:
    """To make a stage takes longer than to use it."""
    with InProcess() as aws:
        yield Callers(aws)


@pytest.fixture
def callers(stage: Callers, request: pytest.FixtureRequest) -> Callers:
    """The stage, with a new file."""
    stage.upload(request.node.name)
    return stage


@pytest.fixture(scope="module")
def delivery(stage: Callers) -> ModuleType:
    """deliver-webhook, which may post to a receiver on loopback."""
    rules = {"WEBHOOK_ALLOW_HTTP": "true", "WEBHOOK_HOSTS": "127.0.0.1"}
    return stage.aws.load("deliver-webhook", rules)


def queued(callers: Callers, name: str) -> None:
    callers.start(f"{name}-1")


def running(callers: Callers, name: str) -> None:
    """As a worker leaves it that is killed in its first step."""
    callers.start(f"{name}-1")
    with pytest.MonkeyPatch.context() as patch:

        def killed(*_: Any) -> None:
            raise SystemExit

        patch.setattr(callers.processor, "run_steps", killed)
        with pytest.raises(SystemExit):
            callers.work(f"{name}-1")


def completed(callers: Callers, name: str) -> None:
    callers.put()
    queued(callers, name)
    callers.work(f"{name}-1")


def failed(callers: Callers, name: str) -> None:
    """Its file has not been uploaded."""
    queued(callers, name)
    callers.work(f"{name}-1")


def cancelled(callers: Callers, name: str) -> None:
    queued(callers, name)
    assert callers.cancel(f"{name}-1") == "cancelled"


def cancelled_by_its_worker(callers: Callers, name: str) -> None:
    queued(callers, name)
    callers.ask_to_cancel(f"{name}-1")
    callers.work(f"{name}-1")


STATES = {
    queued: ("processing", None, "Waiting", "5"),
    running: ("processing", None, "0 % (0/3 steps)", "2"),
    completed: ("complete", "ASSEMBLY_COMPLETED", "Completed in", None),
    failed: ("error", "INPUT_MISSING", "INPUT_MISSING: ", None),
    cancelled: ("error", "ASSEMBLY_CANCELED", "Cancelled", None),
    cancelled_by_its_worker: ("error", "ASSEMBLY_CANCELED", "Cancelled", None),
}
ENDS = [completed, failed, cancelled, cancelled_by_its_worker]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_state_is_shown_and_ends_a_poll(callers: Callers, state: Any) -> None:
    """A hook that polls stops at `ok: ASSEMBLY_COMPLETED` or any `error`, a card reads the fields
    that it shows, and a client's cache keeps what has completed.
    """
    name = state.__name__
    state(callers, name)
    shown, code, line, most = STATES[state]
    status, document, headers = callers.look_up()
    assert status == 200
    card = "complete" if document.get("ok") == "ASSEMBLY_COMPLETED" else "processing"
    card = "error" if document.get("error") else card
    assert card == shown
    assert code in (document.get("ok"), document.get("error"), None)
    assert ("ok" in document) + ("error" in document) == (code is not None)
    assert AssemblyDocument.model_validate(document).terminal == (code is not None)
    assert progress_message(document).startswith(line)
    (upload,) = document["uploads"]
    assert (upload["size"], upload["mime"]) == (callers.file["size"], "text/csv")
    assert document["message"]
    assert (document["user"], document["execution"]) == ({"userId": "user-1"}, 1)
    assert document["bytes_expected"] == callers.file["size"]
    files = [file for made in document["results"].values() for file in made]
    assert all(file["ssl_url"].startswith("http") for file in files)
    assert bool(files) == (shown == "complete")
    if shown == "complete":
        assert document["execution_duration"] >= 0
    # The callers of Next.js routes: `success` is a status of 200, and the body is the document.
    assert headers.get("Retry-After") == (None if most is None else "1")
    assert headers.get("Cache-Control", "").startswith("private, max-age") == (shown == "complete")


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_every_end_queues_the_webhook(callers: Callers, end: Any) -> None:
    """Also that of a job that no worker has had."""
    callers.webhooks()
    end(callers, f"hook-{end.__name__}")
    row = callers.row()
    assert row["webhook"] == {"status": "pending", "attempts": 0}
    told = {name: row[name] for name in ("assembly_id", "execution", "template_id")}
    assert callers.webhooks() == [told]


def test_a_scheduled_job_that_is_cancelled_queues_the_webhook(callers: Callers) -> None:
    callers.start("hook-later-1", delay_seconds="3600")
    assert callers.cancel("hook-later-1") == "cancelled"
    assert [each["execution"] for each in callers.webhooks()] == [1]


def test_a_webhook_that_could_not_be_queued_is_queued_by_the_next_cancel_or_by_a_worker(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the job has not ended."""

    def refused(*_: Any) -> None:
        raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, "SendMessage")

    for job, again in (("hook-cut-1", callers.cancel), ("hook-cut-2", callers.work)):
        callers.start(job)
        with monkeypatch.context() as patch:
            patch.setattr(callers.router, "queue_webhook", refused)
            answer = callers.post("POST /jobs/{request_id}/cancel", {}, job)
        assert (answer["code"], answer["retryable"]) == ("SERVICE_UNAVAILABLE", True)
        assert (callers.webhooks(), callers.look_up()[1]["error"]) == ([], "ASSEMBLY_CANCELED")
        again(job)
        assert len(callers.webhooks()) == 1
        callers.start(f"{job}-next")
        callers.cancel(f"{job}-next")
        callers.webhooks()


def test_the_document_is_there_from_the_acknowledgement_on(callers: Callers) -> None:
    """It keeps its id, its time of creation and the ids of its uploads."""
    name = "there"
    callers.put()
    asked = callers.start(f"{name}-1")
    _, waiting, _ = callers.look_up()
    assert (asked["execution"], waiting["request_id"]) == (1, f"{name}-1")
    assert "stalled" not in waiting
    assert callers.start(f"{name}-1") == asked
    callers.work(f"{name}-1")
    _, ended, _ = callers.look_up()
    kept = ("assembly_id", "created_at", "execution", "request_id")
    assert [ended[each] for each in kept] == [waiting[each] for each in kept]
    assert ended["uploads"][0]["id"] == waiting["uploads"][0]["id"]
    assert callers.start(f"{name}-2")["execution"] == 1
    assert callers.look_up()[1] | {"results": {}} == ended | {"results": {}}


@pytest.mark.parametrize("end", [failed, cancelled, cancelled_by_its_worker])
def test_a_new_job_shows_no_end_of_an_earlier_one(callers: Callers, end: Any) -> None:
    name = f"again-{end.__name__}"
    end(callers, name)
    assert callers.start(f"{name}-2")["execution"] == 2
    _, waiting, _ = callers.look_up()
    assert not {"ok", "error", "execution_start", "execution_duration"} & waiting.keys()
    assert waiting["message"] == "Waiting for a worker"
    callers.put()
    callers.work(f"{name}-2")
    _, document, _ = callers.look_up()
    assert (document["ok"], document["execution"]) == ("ASSEMBLY_COMPLETED", 2)
    # The old job, sent again, changes nothing.
    callers.start(f"{name}-1")
    assert callers.look_up()[1]["ok"] == "ASSEMBLY_COMPLETED"


def test_a_job_that_comes_second_neither_begins_nor_ends_the_document(callers: Callers) -> None:
    callers.put()
    callers.start("second-1")
    callers.start("second-2")
    assert callers.cancel("second-2") == "cancelled"
    assert callers.look_up()[1]["request_id"] == "second-1"
    callers.start("second-3")
    callers.work("second-3")
    _, document, _ = callers.look_up()
    assert (document["request_id"], document["execution"]) == ("second-3", 1)
    callers.work("second-1")
    assert callers.look_up()[1] | {"results": {}} == document | {"results": {}}


def test_a_document_that_router_has_not_written_ends_with_its_job(callers: Callers) -> None:
    """Its write may come late: it must find the end."""
    for job, end in (("late-1", callers.cancel), ("late-2", callers.work)):
        callers.start(job)
        row = callers.row()
        table = callers.aws.tables["assemblies"]
        key = to_item({"assembly_id": callers.assembly_id})
        callers.aws.client("dynamodb").delete_item(TableName=table, Key=key)
        if job == "late-2":
            callers.ask_to_cancel(job)
        end(job)
        assert callers.look_up()[1]["error"] == "ASSEMBLY_CANCELED"
        late = callers.router.waiting()
        request = callers.router.request_of(OWNER, job, time.time())
        payload = {"template_id": row["template_id"], "uploads": row["uploads"]}
        late.add(request, payload, time.time(), is_new=False)
        assert callers.look_up()[1]["error"] == "ASSEMBLY_CANCELED"


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_receiver_of_webhooks_learns_of_every_end(
    callers: Callers, delivery: ModuleType, end: Any
) -> None:
    """It compares the signature with that of the JSON that it has parsed and written again, and
    then tells the user of a success or of an error.
    """
    told: list[tuple[str, str]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assembly = json.loads(body)
            written = json.dumps(assembly, separators=(",", ":"), ensure_ascii=False).encode()
            signed = hmac.digest(SECRET.encode(), written, "sha256").hex()
            is_ours = self.headers["X-Transflow-Signature"] == f"sha256={signed}"
            if is_ours and assembly.get("ok") == "ASSEMBLY_COMPLETED":
                told.append((assembly["user"]["userId"], "completed"))
            elif is_ours and assembly.get("error"):
                told.append((assembly["user"]["userId"], assembly["error"]))
            self.send_response(200 if is_ours else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    end(callers, f"told-{end.__name__}")
    with serving(Receiver) as port:
        hook = delivery.Hook("tpl_archive", f"http://127.0.0.1:{port}/", (SECRET,), False)
        assert delivery.attempt(hook, callers.row(), 1, 10).result == "delivered"
    code = STATES[end][1]
    assert told == [("user-1", "completed" if code == "ASSEMBLY_COMPLETED" else code)]


def test_a_batch_has_each_state_and_null_for_what_is_absent(callers: Callers) -> None:
    found: Document = {}
    for state in STATES:
        callers.upload(f"batch-{state.__name__}")
        state(callers, f"batch-{state.__name__}")
        found[callers.assembly_id] = STATES[state][1]
    batch = client_of(callers).get_batch_status([*found, "absent"], "user-1")
    assert batch.pop("absent") is None
    shown = {name: each and (each.ok or each.error) for name, each in batch.items()}
    assert shown == found


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_cache_keeps_what_has_completed_only(callers: Callers, end: Any) -> None:
    """One that has failed, or was cancelled, may be run again."""
    end(callers, f"cache-{end.__name__}")
    lookups = list[None]()
    client = client_of(callers, lambda **_: lookups.append(None))
    documents = [client.get_status(callers.assembly_id, "user-1") for _ in range(3)]
    assert all(document.terminal for document in documents)
    assert len(lookups) == (1 if end is completed else 3)


def test_the_errors_of_a_look_up_are_told_apart(callers: Callers) -> None:
    queued(callers, "errors")
    client = client_of(callers)
    with pytest.raises(ForbiddenError):
        client.get_status(callers.assembly_id, "user-2")
    with pytest.raises(NotFoundError):
        client.get_status("absent", "user-1")
    with pytest.raises(UnauthorizedError):
        client.get_status(callers.assembly_id)


def client_of(
    callers: Callers,
    on_invoke: Callable[..., None] = lambda **_: None,
    sleep: Callable[[float], None] = time.sleep,
) -> StatusClient:
    """A client that looks up by invokes."""
    client = callers.aws.client("lambda")
    client.meta.events.register_first("provide-client-params.lambda.Invoke", on_invoke)
    name = callers.aws.function("status").deployed_name(callers.aws.template.stage)
    return StatusClient(name, client=client, sleep=sleep)


def test_a_short_job_is_waited_for_a_second(callers: Callers) -> None:
    """It works meanwhile for 0.4 seconds, and the client asks when `Retry-After` says so."""
    callers.put()
    callers.start("short-1")
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        callers.work("short-1")

    client = client_of(callers, sleep=wait)
    assert client.wait(callers.assembly_id, 30, user_id="user-1").completed
    assert sum(waited) <= 1.5


def test_what_is_asked_for_seldom_is_asked_for_later(callers: Callers) -> None:
    queued(callers, "seldom")
    table = callers.aws.tables["assemblies"]
    for age, after in ((0, "1"), (3, "3"), (3600, "5")):
        row = callers.row() | {"updated_at": callers.router.iso_time(time.time() - age - 0.3)}
        callers.aws.client("dynamodb").put_item(TableName=table, Item=to_item(row))
        assert callers.look_up()[2]["Retry-After"] == after
    assert callers.look_up("absent")[2]["Retry-After"] == "2"
