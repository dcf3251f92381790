"""Status clients: by Lambda invoke and over HTTP, blocking and non-blocking."""

import asyncio
import inspect
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, NoCredentialsError
from botocore.exceptions import ReadTimeoutError as BotoReadTimeoutError

import jobplane_client
from jobplane_client import (
    AsyncStatusClient,
    ForbiddenError,
    HttpStatusClient,
    NotFoundError,
    StatusClient,
    UnauthorizedError,
)
from jobplane_models.assemblies import AssemblyDocument
from tests.unit.client_services import (
    TIME,
    FakeLambda,
    HttpService,
    Reply,
    Script,
    completed,
    document,
    statuses,
)
from tests.unit.clock import Clock

NOT_FOUND = Reply(404, {"error": "Assembly not found", "assembly_id": "a1"})


@dataclass
class Harness:
    """One kind of client, with its service and its clock."""

    kind: str
    script: Script
    clock: Clock
    client: Any
    runner: asyncio.Runner
    remake: Callable[..., Any]

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the client, in a loop if it needs one."""
        outcome = getattr(self.client, name)(*arguments)
        return self.runner.run(outcome) if inspect.iscoroutine(outcome) else outcome

    def fails(self, error: type[Exception], name: str, *arguments: Any) -> Any:
        """The error that a call must raise."""
        with pytest.raises(error) as raised:
            self.call(name, *arguments)
        return raised.value


KINDS = ("lambda", "async-lambda", "http", "async-http")


@pytest.fixture(scope="session")
def trust() -> ssl.SSLContext:
    """Loading certificates takes longer than a test."""
    return ssl.create_default_context()


@pytest.fixture(params=KINDS)
def harness(request: pytest.FixtureRequest, trust: ssl.SSLContext) -> Iterator[Harness]:
    kind = request.param
    script, clock = Script(), Clock(1000.0)
    fake = FakeLambda(script)
    with (
        asyncio.Runner() as runner,
        HttpService(script) if "http" in kind else nullcontext() as service,
        httpx.Client(verify=trust) as http,
    ):
        url = service.url if service else ""
        async_http = httpx.AsyncClient(verify=trust)

        def make(**settings: Any) -> Any:
            sleep = clock.asleep if "async" in kind else clock.sleep
            settings = {"clock": clock, "sleep": sleep, **settings}
            match kind:
                case "lambda":
                    return StatusClient("jobplane-status", client=fake, **settings)
                case "async-lambda":
                    return AsyncStatusClient("jobplane-status", client=fake, **settings)
                case "http":
                    return HttpStatusClient(url, "t1", client=http, **settings)
            return jobplane_client.AsyncHttpStatusClient(url, "t1", client=async_http, **settings)

        yield Harness(kind, script, clock, make(), runner, make)
        runner.run(async_http.aclose())


def test_a_look_up_returns_a_typed_document(harness: Harness) -> None:
    """Unknown fields, of a newer service, are ignored."""
    state = {"status": "delivered", "attempts": 1}
    harness.script.will(Reply(body=completed(webhook=state, novelty=1)))
    found = harness.call("get_status", "a1")
    assert isinstance(found, AssemblyDocument)
    assert found.completed
    assert found.webhook is not None
    assert found.webhook.status == "delivered"


def test_a_look_up_sends_the_documented_event_or_route(harness: Harness) -> None:
    harness.script.will(Reply(body=completed()))
    if "http" in harness.kind:
        harness.call("get_status", "a1")
        asked = {"method": "GET", "path": "/local/status/a1", "authorization": "Bearer t1"}
    else:
        harness.call("get_status", "a1", "u1")
        asked = {"function": "jobplane-status", "assemblyId": "a1", "userId": "u1"}
    assert harness.script.asked == [asked]


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "InvalidRequest"), (401, "Unauthorized"), (403, "Forbidden"), (404, "NotFound"),
        (405, "Refused"), (409, "Conflict"), (429, "RateLimited"), (500, "ServiceUnavailable"),
        (302, "Refused"),
    ],
)  # fmt: skip
def test_each_status_has_its_error(harness: Harness, status: int, name: str) -> None:
    error = getattr(jobplane_client, f"{name}Error")
    body = {"error": "because", "assembly_id": "a1"}
    harness.script.will(Reply(status, body, {"Retry-After": "7"}))
    with pytest.raises(error, match="because") as raised:
        harness.call("get_status", "a1")
    assert type(raised.value) is error
    assert raised.value.status_code == status
    assert raised.value.retry_after == 7
    assert len(harness.script.asked) == 1


def test_an_invalid_request_lists_the_fields_of_the_answer(harness: Harness) -> None:
    faults = [{"field": "assemblyId", "message": "assemblyId is required"}]
    harness.script.will(Reply(400, {"error": "assemblyId is required", "problems": faults}))
    error = harness.fails(jobplane_client.InvalidRequestError, "get_status", "a1")
    assert list(error.fields) == faults
    assert str(error) == "assemblyId is required"


def test_the_text_of_an_error_names_the_invalid_fields() -> None:
    """A traceback then shows what to change."""
    faults = [{"field": "seconds", "message": "a number"}, {"field": "steps", "message": "above 0"}]
    error = jobplane_client.InvalidRequestError("The payload is not valid", fields=faults)
    assert str(error) == "The payload is not valid: seconds: a number; steps: above 0"


@pytest.mark.parametrize("assembly_id", ["", "a/b", "a b", "../x", "ä", "x" * 129, "a\n"])
def test_a_malformed_assembly_id_is_not_sent(harness: Harness, assembly_id: str) -> None:
    """Such an id would change the route."""
    error = harness.fails(jobplane_client.InvalidRequestError, "get_status", assembly_id)
    assert error.fields[0]["field"] == "assemblyId"
    assert harness.script.asked == []


def test_a_404_of_the_gateway_is_not_a_missing_assembly(harness: Harness) -> None:
    """A client that waits must not go on polling."""
    harness.script.will(Reply(404, {"message": "Not Found"}))
    with pytest.raises(jobplane_client.RefusedError, match="no status service") as raised:
        harness.call("wait", "a1", 60)
    assert not isinstance(raised.value, NotFoundError)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_look_up_is_repeated_while_it_is_unavailable(harness: Harness, status: int) -> None:
    harness.script.will(Reply(status, "bad gateway"), Reply(status, "x"), Reply(body=completed()))
    assert harness.call("get_status", "a1").completed
    assert len(harness.clock.slept) == 2
    assert all(nap <= 0.4 for nap in harness.clock.slept)


@pytest.mark.parametrize(
    ("name", "status", "calls"),
    [
        ("get_status", 503, 4),
        ("get_status", 500, 1),
        ("get_status", 501, 1),
        ("get_status", 505, 1),
        ("get_status_with_webhook", 503, 1),
    ],
)
def test_only_a_look_up_is_repeated(harness: Harness, name: str, status: int, calls: int) -> None:
    """After an internal error the repetition would fail as well."""
    harness.script.will(Reply(status, {"error": "Internal error"}))
    harness.fails(jobplane_client.ServiceUnavailableError, name, "a1")
    assert len(harness.script.asked) == calls


def test_retry_after_is_the_shortest_pause(harness: Harness) -> None:
    """A long one is left to the caller."""
    harness.script.will(Reply(503, {}, {"Retry-After": "2"}), Reply(body=completed()))
    harness.call("get_status", "a1")
    assert harness.clock.slept == [2]
    harness.script.will(Reply(503, {}, {"Retry-After": "600"}))
    error = harness.fails(jobplane_client.ServiceUnavailableError, "get_status", "a2")
    assert error.retry_after == 600


def test_retry_after_may_be_an_http_date(harness: Harness) -> None:
    """At most an hour, whatever it says."""
    far = formatdate(4102444800, usegmt=True)
    texts = {far: 3600, "9" * 400: 3600, "soon": None, f"{far[:-3]}+99999999999999999": None}
    for text, seconds in texts.items():
        harness.script.will(Reply(429, {}, {"Retry-After": text}))
        error = harness.fails(jobplane_client.RateLimitedError, "get_status", "a1")
        assert error.retry_after == seconds


FOREIGN = ["<html>", "[]", "null", {}, completed("other"), {"assembly_id": "a1"}]
FOREIGN_BATCHES = [{}, {"statuses": []}, {"statuses": {"a1": {"ok": 1}}}]


@pytest.mark.parametrize(
    ("name", "asked", "body"),
    [("get_status", "a1", body) for body in FOREIGN]
    + [("get_batch_status", ["a1"], body) for body in FOREIGN_BATCHES],
)
def test_a_200_without_documents_fails(harness: Harness, name: str, asked: Any, body: Any) -> None:
    harness.script.will(Reply(200, body))
    harness.fails(jobplane_client.BadPayloadError, name, asked)


def test_triggering_the_webhook_returns_the_outcome_with_the_document(harness: Harness) -> None:
    outcome = {"delivered": False, "attempts": 3, "status_code": 500, "error": "http_500"}
    harness.script.will(Reply(body=completed(webhook={"status": "retrying", **outcome})))
    status = harness.call("get_status_with_webhook", "a1")
    assert status.document.webhook.status == "retrying"
    assert status.delivery == jobplane_client.WebhookDelivery(False, 3, 500, "http_500")
    asked = harness.script.asked[0]
    assert asked.get("triggerWebhook") is True or asked["path"].endswith("?triggerWebhook=true")


def test_triggering_a_webhook_that_the_template_lacks_is_reported(harness: Harness) -> None:
    outcome = {"delivered": False, "attempts": 0, "error": "not_configured"}
    harness.script.will(Reply(body=completed(webhook=outcome)))
    status = harness.call("get_status_with_webhook", "a1")
    assert status.document.webhook is None
    assert status.delivery == jobplane_client.WebhookDelivery(False, 0, None, "not_configured")


def test_a_batch_sends_100_unique_ids_at_a_time(harness: Harness) -> None:
    ids = [f"a{number}" for number in range(205)]
    harness.script.will(Reply(body=statuses(ids, missing=["a7"])))
    found = harness.call("get_batch_status", [*ids, "a0"])
    assert list(found) == ids
    assert [name for name, value in found.items() if value is None] == ["a7"]
    sizes = sorted(len(asked["assemblyIds"]) for asked in harness.script.asked)
    assert sizes == [5, 100, 100]


def test_a_batch_without_ids_makes_no_call(harness: Harness) -> None:
    """A text is refused; else it would be taken for a list of letters."""
    assert harness.call("get_batch_status", []) == {}
    harness.fails(TypeError, "get_batch_status", "abc")
    assert harness.script.asked == []


def test_a_batch_omits_cached_documents(harness: Harness) -> None:
    harness.script.will(Reply(body=completed("a1")), Reply(body=statuses(["a2"])))
    harness.call("get_status", "a1")
    found = harness.call("get_batch_status", ["a1", "a2"])
    assert found["a1"].completed
    assert harness.script.asked[1]["assemblyIds"] == ["a2"]


def test_a_batch_is_halved_after_a_413(harness: Harness) -> None:
    too_large = Reply(413, {"error": "The answer is too large: ask for fewer assemblies"})
    harness.script.will(too_large, Reply(body=statuses(["a1", "a2", "a3", "a4"])))
    found = harness.call("get_batch_status", ["a1", "a2", "a3", "a4"])
    assert all(found.values())
    assert [len(asked["assemblyIds"]) for asked in harness.script.asked] == [4, 2, 2]


def test_a_refused_chunk_raises_for_the_whole_batch(harness: Harness) -> None:
    harness.script.will(Reply(401, {"error": "Authentication required"}))
    harness.fails(UnauthorizedError, "get_batch_status", [f"a{number}" for number in range(300)])


def test_wait_polls_every_5_s_while_queued_and_every_2_s_while_running(harness: Harness) -> None:
    running = document(execution_start="2026-11-22T10:00:00.000Z")
    harness.script.will(
        Reply(body=document()),
        Reply(body=document(ok="ASSEMBLY_UPLOADING")),
        Reply(body=running),
        Reply(body=document(ok="ASSEMBLY_EXECUTING")),
        Reply(body=completed()),
    )
    assert harness.call("wait", "a1", 60).completed
    assert harness.clock.slept == [5, 5, 2, 2]


def test_wait_polls_a_missing_assembly_more_and_more_slowly(harness: Harness) -> None:
    """The pause grows by a fifth up to ten seconds, and starts again once it was found."""
    harness.script.will(
        *[NOT_FOUND] * 12, Reply(body=document()), NOT_FOUND, Reply(body=completed())
    )
    harness.call("wait", "a1", 600)
    missing = harness.clock.slept[:12]
    assert missing[:3] == pytest.approx([2, 2.4, 2.88])
    assert missing == sorted(missing)
    assert missing[-1] == 10
    assert harness.clock.slept[12:] == [5, 2]


def test_wait_prefers_retry_after_to_its_own_pauses(harness: Harness) -> None:
    wish = {"Retry-After": "9"}
    harness.script.will(
        Reply(body=document(), headers=wish),
        Reply(404, NOT_FOUND.body, wish),
        Reply(429, {"error": "slow down"}, wish),
        Reply(body=completed()),
    )
    harness.call("wait", "a1", 600)
    assert harness.clock.slept == [9, 9, 9]


def test_wait_returns_the_document_of_a_failed_job(harness: Harness) -> None:
    harness.script.will(Reply(body=document(error="TIMEOUT")))
    assert harness.call("wait", "a1", 60).error == "TIMEOUT"


def test_the_timeout_of_wait_carries_the_last_document(harness: Harness) -> None:
    harness.script.will(Reply(body=document(progress_pct=40)))
    error = harness.fails(jobplane_client.WaitTimeoutError, "wait", "a1", 12)
    assert error.document.progress_pct == 40
    assert harness.clock.slept == [5, 5, 2]
    assert len(harness.script.asked) == 4


def test_the_timeout_of_wait_for_a_missing_assembly_has_no_document(harness: Harness) -> None:
    harness.script.will(NOT_FOUND)
    error = harness.fails(jobplane_client.WaitTimeoutError, "wait", "a1", 3)
    assert error.document is None
    assert isinstance(error.__cause__, NotFoundError)


def test_wait_goes_on_after_an_outage_of_the_service(harness: Harness) -> None:
    """Longer than the retries of one look-up."""
    harness.script.will(*[Reply(503, {})] * 9, Reply(body=completed()))
    assert harness.call("wait", "a1", 600).completed


def test_wait_raises_a_refusal_at_once(harness: Harness) -> None:
    harness.script.will(Reply(403, {"error": "Access denied"}))
    harness.fails(ForbiddenError, "wait", "a1", 600)


def test_the_document_of_an_ended_job_is_cached_for_five_minutes(harness: Harness) -> None:
    harness.script.will(Reply(body=completed()))
    harness.call("get_status", "a1")
    harness.clock.now += 299
    harness.call("get_status", "a1")
    assert len(harness.script.asked) == 1
    harness.clock.now += 2
    harness.call("get_status", "a1")
    assert len(harness.script.asked) == 2


@pytest.mark.parametrize("read", ["get_status", "get_batch_status", "get_status_with_webhook"])
@pytest.mark.parametrize("end", [{"error": "INPUT_MISSING"}, {"ok": "ASSEMBLY_CANCELED"}])
def test_job_that_may_run_again_is_not_cached(harness: Harness, read: str, end: Any) -> None:
    """After a second run, nothing answers with the failure of the first."""
    failed = document(**end)
    body = {"statuses": {"a1": failed}} if read == "get_batch_status" else failed
    harness.script.will(Reply(body=body), Reply(body=completed()))
    harness.call(read, ["a1"] if read == "get_batch_status" else "a1")
    assert harness.call("get_status", "a1").completed


@pytest.mark.parametrize("end", [{"error": "INPUT_MISSING"}, {"ok": "ASSEMBLY_CANCELED"}])
def test_wait_returns_the_end_of_the_request_that_was_named(harness: Harness, end: Any) -> None:
    """Right after its acknowledgment the document is still that of an earlier request."""
    harness.script.will(
        Reply(body=document(request_id="r1", **end)),
        Reply(body=document(request_id="r2")),
        Reply(body=document(request_id="r2", error="MD5_MISMATCH")),
    )
    assert harness.call("wait", "a1", 60, *named(harness, "r2")).error == "MD5_MISMATCH"


@pytest.mark.parametrize(
    "end", [{"ok": "ASSEMBLY_COMPLETED"}, {"error": "INPUT_MISSING", "joined": ["r2"]}]
)
def test_wait_returns_the_end_that_a_request_joined(harness: Harness, end: dict[str, Any]) -> None:
    harness.script.will(Reply(body=document(request_id="r1", **end)))
    assert harness.call("wait", "a1", 60, *named(harness, "r2")).request_id == "r1"


def test_wait_times_out_with_the_end_of_an_earlier_request(harness: Harness) -> None:
    harness.script.will(*[Reply(body=document(request_id="r1", error="INPUT_MISSING"))] * 30)
    arguments = ("a1", 9, *named(harness, "r2"))
    error = harness.fails(jobplane_client.WaitTimeoutError, "wait", *arguments)
    assert error.document.request_id == "r1"


def named(harness: Harness, request_id: str) -> list[str]:
    """The last arguments of `wait`: over HTTP the user is that of the token."""
    return [request_id] if "http" in harness.kind else ["u1", request_id]


@pytest.mark.parametrize(("settings", "body"), [({}, document()), ({"cache_size": 0}, completed())])
def test_a_running_job_or_size_0_is_not_cached(harness: Harness, settings: Any, body: Any) -> None:
    harness.client = harness.remake(**settings)
    harness.script.will(Reply(body=body))
    harness.call("get_status", "a1")
    harness.call("get_status", "a1")
    assert len(harness.script.asked) == 2


def test_the_cache_drops_the_least_recently_used_document(harness: Harness) -> None:
    harness.client = harness.remake(cache_size=2)
    for name in ("a1", "a2", "a1", "a3"):
        harness.script.will(Reply(body=completed(name)))
        harness.call("get_status", name)
    asked = len(harness.script.asked)
    harness.call("get_status", "a1")
    assert len(harness.script.asked) == asked
    harness.script.will(Reply(body=completed("a2")))
    harness.call("get_status", "a2")
    assert len(harness.script.asked) == asked + 1


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def by_invoke(script: Script, clock: Clock) -> tuple[StatusClient, FakeLambda]:
    fake = FakeLambda(script)
    return StatusClient("jobplane-status", client=fake, sleep=clock.sleep), fake


@pytest.fixture
def service(script: Script) -> Iterator[HttpService]:
    with HttpService(script) as service:
        yield service


def test_the_cache_is_separate_for_each_user(by_invoke: Any, script: Script) -> None:
    script.will(Reply(body=completed()), Reply(403, {"error": "Access denied"}))
    by_invoke[0].get_status("a1", "u1")
    with pytest.raises(ForbiddenError):
        by_invoke[0].get_status("a1", "u2")


def test_an_unaccepted_token_gets_no_cached_document(service: HttpService, script: Script) -> None:
    script.will(Reply(body=completed()), Reply(401, {"error": "Authentication required"}))
    tokens = iter(["good", "forged"])
    with HttpStatusClient(service.url, lambda: next(tokens)) as client:
        client.get_status("a1")
        with pytest.raises(UnauthorizedError):
            client.get_status("a1")
    assert [asked["authorization"] for asked in script.asked] == ["Bearer good", "Bearer forged"]


async def test_a_token_may_be_a_coroutine_function(service: HttpService, script: Script) -> None:
    async def token() -> str:
        return "fresh"

    script.will(Reply(body=completed()))
    async with jobplane_client.AsyncHttpStatusClient(service.url, token) as client:
        await client.get_status("a1")
    assert script.asked[0]["authorization"] == "Bearer fresh"


def test_a_lost_connection_is_repeated(service: HttpService, script: Script, clock: Clock) -> None:
    script.will(ConnectionError(), Reply(body=completed()))
    with HttpStatusClient(service.url, "t1", sleep=clock.sleep) as client:
        assert client.get_status("a1").completed


def test_a_refused_connection_is_repeated_then_raised(clock: Clock) -> None:
    """The error does not hold the token."""
    with (
        HttpStatusClient("http://127.0.0.1:1", "s3cret", sleep=clock.sleep) as client,
        pytest.raises(jobplane_client.ServiceUnavailableError) as raised,
    ):
        client.get_status("a1")
    assert len(clock.slept) == 3
    assert "s3cret" not in repr(raised.value) + str(raised.value.__cause__)


def test_a_missing_answer_raises_a_timeout_without_repetition() -> None:
    asked = []

    def silent(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        raise httpx.ReadTimeout("silence", request=request)

    with httpx.Client(transport=httpx.MockTransport(silent)) as http:
        client = HttpStatusClient("http://status.test", "t1", client=http)
        with pytest.raises(jobplane_client.CallTimeoutError):
            client.get_status("a1")
        client.close()
        assert not http.is_closed
    assert len(asked) == 1


def client_error(code: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Invoke")


LAMBDA = "https://lambda.test"


@pytest.mark.parametrize(
    ("failure", "name", "calls"),
    [
        (client_error("TooManyRequestsException", 429), "ServiceUnavailable", 4),
        (client_error("ServiceException", 500), "ServiceUnavailable", 4),
        (client_error("AccessDeniedException", 403), "Invocation", 1),
        (client_error("ResourceNotFoundException", 404), "Invocation", 1),
        (NoCredentialsError(), "Invocation", 1),
        (ConnectTimeoutError(endpoint_url=LAMBDA), "ServiceUnavailable", 4),
        (BotoReadTimeoutError(endpoint_url=LAMBDA), "CallTimeout", 1),
    ],
)
def test_each_invocation_error_raises_its_own_class(
    by_invoke: Any, script: Script, failure: Exception, name: str, calls: int
) -> None:
    """Throttles are repeated; a missing function or permission is not a missing assembly."""
    script.will(failure)
    with pytest.raises(getattr(jobplane_client, f"{name}Error")):
        by_invoke[0].get_status("a1", "u1")
    assert len(script.asked) == calls


def test_an_error_of_the_function_is_raised_with_its_text(by_invoke: Any, script: Script) -> None:
    client, fake = by_invoke
    script.will(Reply())
    fake.function_error = "Unhandled"
    fake.raw = b'{"errorMessage":"Task timed out after 30 s","errorType":"Sandbox.Timedout"}'
    with pytest.raises(jobplane_client.FunctionError, match="Timedout: Task timed out") as raised:
        client.get_status("a1", "u1")
    assert raised.value.error_type == "Sandbox.Timedout"
    fake.raw = b"not json"
    with pytest.raises(jobplane_client.FunctionError):
        client.get_status("a1", "u1")


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b'{"statusCode":"200","body":"{}"}', b'{"statusCode":200}']
)
def test_another_functions_answer_is_malformed(by_invoke: Any, script: Script, raw: bytes) -> None:
    client, fake = by_invoke
    script.will(Reply())
    fake.raw = raw
    with pytest.raises(jobplane_client.BadPayloadError):
        client.get_status("a1", "u1")


def test_the_default_client_has_a_timeout_and_no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    client = StatusClient("f", region="eu-west-1", endpoint_url="http://127.0.0.1:1")
    config = client._driver.transport._client.meta.config  # type: ignore[attr-defined]
    assert config.read_timeout == 35
    assert config.retries["total_max_attempts"] == 1


RUNNING = {"execution_start": TIME, "steps_total": 5, "steps_completed": 2}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"error": "INPUT_MISSING", "message": "a.csv is gone"}, "INPUT_MISSING: a.csv is gone"),
        ({"error": "boom", "message": "boom"}, "boom"),
        ({"error": "E", "message": "two\nlines \x1b[31m"}, "E: two lines [31m"),
        ({"ok": "ASSEMBLY_COMPLETED", "execution_duration": 5.25}, "Completed in 5.2s"),
        ({"ok": "ASSEMBLY_COMPLETED"}, "Completed"),
        ({"ok": "ASSEMBLY_CANCELED"}, "Cancelled"),
        ({}, "Waiting"),
        ({"ok": "ASSEMBLY_UPLOADING"}, "Waiting"),
        ({"ok": "ASSEMBLY_EXECUTING"}, "Processing"),
        (RUNNING | {"progress_pct": 99.9, "current_step": "resize"}, "99 % (2/5 steps) resize"),
        ({"ok": "ASSEMBLY_EXECUTING", "progress_pct": 0.0, "steps_total": 3}, "0 % (0/3 steps)"),
        ({"ok": "ASSEMBLY_EXECUTING", "progress_pct": 40, "stalled": True}, "40 %, stalled"),
    ],
)
def test_progress_message_is_one_printable_line_for_each_state(fields: Any, line: str) -> None:
    raw = document(**fields)
    assert jobplane_client.progress_message(raw) == line
    assert jobplane_client.progress_message(AssemblyDocument.model_validate(raw)) == line


HEAVY = {"httpx", "websockets", "pydantic", "botocore"}


@pytest.mark.parametrize(
    ("statement", "spared"),
    [
        ("from jobplane_client import JobWorker", HEAVY | {"boto3"}),
        ("import jobplane_client", HEAVY | {"hmac"}),
        (
            "from jobplane_client import verify_webhook, progress_message",
            HEAVY | {"jobplane_models"},
        ),
        ("from jobplane_client import HttpStatusClient", {"websockets", "botocore", "boto3"}),
        ("from jobplane_client import JobSocket", {"httpx", "botocore", "boto3"}),
        ("from jobplane_client import StatusClient", {"httpx", "websockets", "boto3"}),
    ],
)
def test_importing_a_name_loads_only_its_dependencies(statement: str, spared: set[str]) -> None:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & spared


def test_every_announced_name_can_be_imported() -> None:
    for name in jobplane_client.__all__:
        assert getattr(jobplane_client, name) is not None
    assert dir(jobplane_client) == sorted(jobplane_client.__all__)
    with pytest.raises(AttributeError):
        _ = jobplane_client.nothing


def test_the_documented_tree_of_errors_is_complete() -> None:
    """The package's docstring names every error below its base."""
    lines = (jobplane_client.__doc__ or "").splitlines()
    tree = lines[lines.index("JobplaneError") :]
    parents: list[str] = []
    drawn: dict[str, str] = {}
    for line in tree:
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
        name = line.lstrip("│├└─ ").split()[0]
        parents[depth:] = [name]
        drawn[name] = parents[depth - 1] if depth else "Exception"
    errors = {name for name in jobplane_client.__all__ if name.endswith("Error")}
    bases = {name: getattr(jobplane_client, name).__bases__[0].__name__ for name in errors}
    assert drawn == bases
