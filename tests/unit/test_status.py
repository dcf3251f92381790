"""status: look-ups by invoke and over HTTP, batches, lists, and webhooks on demand."""

import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given

from jobplane_keys import make_token, read_token
from tests.examples import examples, with_fixtures
from tests.unit.assemblies import (
    ENVIRONMENT,
    ROOT,
    Context,
    assembly,
    events,
    http,
    put,
    sqs,
    token,
)
from tests.unit.stack import Output

type Container = Callable[..., ModuleType]
MINE = {"assemblyId": "asm-1", "userId": "user-1"}


@pytest.fixture
def status(container: Container) -> ModuleType:
    return container("status")


def ask(status: ModuleType, event: Any) -> tuple[int, Any, dict[str, str]]:
    answered = status.handler(event, Context())
    body = json.loads(answered["body"]) if answered["body"] else None
    return answered["statusCode"], body, answered.get("headers", {})


def raising(code: str) -> Any:
    def call(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "secret table arn:aws:x"}}, "GetItem")

    return call


def test_the_owner_gets_the_public_document(status: ModuleType) -> None:
    put(assembly())
    code, body, headers = ask(status, MINE)
    assert code == 200
    assert body["ok"] == "ASSEMBLY_COMPLETED"
    assert body["execution_duration"] == 5.2
    assert body["user"] == {"userId": "user-1"}
    assert headers["Content-Type"] == "application/json"


def test_an_answer_has_only_public_fields(status: ModuleType) -> None:
    put(assembly(webhook_cooldown_until=5, lease_until=9, secret_field="x"))
    _, body, _ = ask(status, MINE)
    assert set(body) <= set(status.PUBLIC_ASSEMBLY_FIELDS) | {"stalled"}
    assert "key" not in body["uploads"][0]


@pytest.mark.parametrize("item", [None, assembly(ttl=int(time.time()) - 1)])
def test_a_missing_or_expired_assembly_is_404(status: ModuleType, item: Any) -> None:
    """With the id and the time to ask again; DynamoDB may delete an expired one later."""
    if item:
        put(item)
    code, body, headers = ask(status, MINE)
    assert (code, body) == (404, {"error": "Assembly not found", "assembly_id": "asm-1"})
    assert (headers["Retry-After"], headers["Cache-Control"]) == ("2", "no-store")


@pytest.mark.parametrize("user", [{"userId": "user-2"}, None], ids=["another", "no owner"])
def test_only_the_owner_may_read_an_assembly(status: ModuleType, user: Any) -> None:
    put(assembly(user=user))
    code, body, _ = ask(status, MINE)
    assert code == 403
    assert body["error"].startswith("Access denied")


def test_an_invoke_without_a_user_is_401_without_a_read(status: ModuleType) -> None:
    put(assembly())
    code, body, headers = ask(status, {"assemblyId": "asm-1"})
    assert (code, body) == (401, {"error": "Authentication required"})
    assert "WWW-Authenticate" in headers


def test_ALLOW_ANONYMOUS_INVOKE_allows_an_invoke_without_a_user(container: Container) -> None:
    """It does not apply to HTTP."""
    status = container("status", ALLOW_ANONYMOUS_INVOKE="true")
    put(assembly(user=None))
    assert ask(status, {"assemblyId": "asm-1"})[0] == 200
    put(assembly())
    assert ask(status, http("GET", "/status/asm-1", bearer=None))[0] == 401


@pytest.mark.parametrize("anonymous", ["", "true"])
def test_REQUIRE_TENANT_refuses_an_invoke_without_a_tenant(
    container: Container, anonymous: str
) -> None:
    """The error names the field; a request over HTTP has the tenant of its token."""
    status = container("status", REQUIRE_TENANT="true", ALLOW_ANONYMOUS_INVOKE=anonymous)
    put(assembly(tenant_id="tenant-1"))
    code, body, _ = ask(status, MINE)
    assert (code, body["problems"]) == (
        400,
        [{"field": "tenantId", "message": "tenantId is required on this stage"}],
    )
    batch = {"assemblyIds": ["asm-1"], "userId": "user-1"}
    assert ask(status, batch)[0] == 400
    assert ask(status, batch | {"tenantId": "tenant-1"})[0] == 200
    assert ask(status, MINE | {"tenantId": "tenant-1"})[0] == 200
    assert ask(status, MINE | {"tenantId": "tenant-2"})[0] == 403
    assert ask(status, http("GET", "/status/asm-1"))[0] == 200


def test_MASK_FOREIGN_answers_for_another_users_assembly_as_for_a_missing_one(
    container: Container,
) -> None:
    status = container("status", MASK_FOREIGN="true")
    put(assembly())
    foreign = status.handler(MINE | {"userId": "user-2"}, Context())
    boto3.client("dynamodb").delete_item(
        TableName=ENVIRONMENT["DYNAMODB_TABLE"], Key={"assembly_id": {"S": "asm-1"}}
    )
    assert foreign == status.handler(MINE | {"userId": "user-2"}, Context())


def test_a_look_up_is_one_consistent_get(status: ModuleType) -> None:
    put(assembly(results={"hash": [{"id": "result_1", "name": "a", "key": "results/asm-1/a"}]}))
    calls: list[Any] = []
    status.dynamodb.meta.events.register_first(
        "before-call", lambda model, params, **_: calls.append((model.name, params["body"]))
    )
    assert ask(status, MINE)[0] == 200
    ((name, body),) = calls
    assert (name, json.loads(body)["ConsistentRead"]) == ("GetItem", True)


def test_a_document_with_ok_and_error_shows_only_the_error(status: ModuleType) -> None:
    put(assembly(error="PROCESSING_ERROR"))
    _, body, _ = ask(status, MINE)
    assert (body["error"], body.get("ok")) == ("PROCESSING_ERROR", None)


@pytest.mark.parametrize(("changes", "seconds"), [({}, "2"), ({"execution_start": None}, "5")])
def test_a_document_without_an_end_is_to_be_polled(
    status: ModuleType, changes: dict[str, Any], seconds: str
) -> None:
    """Less often while it waits for files."""
    put(assembly(ok=None, **changes))
    _, body, headers = ask(status, MINE)
    assert not {"ok", "error"} & set(body)
    assert (headers["Retry-After"], headers["Cache-Control"]) == (seconds, "no-store")


def test_a_cancelled_document_has_its_code_as_the_error(status: ModuleType) -> None:
    """So that a client that waits for an `ok` or an `error` stops."""
    put(assembly(ok="ASSEMBLY_CANCELED", followers=["tenant-1#user-1#req-2"]))
    _, body, _ = ask(status, MINE)
    assert (body["error"], body.keys() & {"ok", "joined"}) == ("ASSEMBLY_CANCELED", set())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ok": None}, "ASSEMBLY_EXECUTING"),
        ({"ok": None, "execution_start": None}, "ASSEMBLY_UPLOADING"),
        ({}, "ASSEMBLY_COMPLETED"),
        ({"ok": "ASSEMBLY_CANCELED"}, "ASSEMBLY_CANCELED"),
    ],
)
def test_with_extended_codes_every_document_without_an_error_has_ok(
    container: Container, changes: dict[str, Any], code: str
) -> None:
    status = container("status", ASSEMBLY_STATUS_CODES="extended")
    put(assembly(**changes))
    assert ask(status, MINE)[1]["ok"] == code


@pytest.mark.parametrize(
    ("changes", "stalled"),
    [({"ok": None, "lease_until": int(time.time()) - 5}, True),
     ({"ok": None, "lease_until": 2**33}, None), ({"lease_until": 1}, None)],
    ids=["expired", "leased", "ended"],
)  # fmt: skip
def test_a_running_document_with_an_expired_lease_is_stalled(
    status: ModuleType, changes: dict[str, Any], stalled: bool | None
) -> None:
    put(assembly(**changes))
    assert ask(status, MINE)[1].get("stalled") is stalled


def test_whole_numbers_are_answered_as_integers(status: ModuleType) -> None:
    put(assembly(progress_pct=100.0, execution_duration=0.25))
    body = status.handler(MINE, Context())["body"]
    assert '"progress_pct":100,' in body
    assert '"execution_duration":0.25' in body


def test_a_result_in_the_bucket_gets_a_link_for_an_hour(status: ModuleType) -> None:
    files = [
        {"id": "result_1", "name": "a b.txt", "key": "results/asm-1/hash/a b.txt"},
        {"id": "result_2", "name": "c", "ssl_url": "https://cdn.example.com/c"},
    ]
    put(assembly(results={"hash": files}))
    made, kept = ask(status, MINE)[1]["results"]["hash"]
    link = urlsplit(made["ssl_url"])
    assert link.path.endswith("/results/asm-1/hash/a%20b.txt")
    assert parse_qs(link.query)["X-Amz-Expires"] == ["3600"]
    assert kept["ssl_url"] == "https://cdn.example.com/c"
    assert "key" not in made


@pytest.mark.parametrize(
    "item",
    [
        {"assembly_id": "asm-1", "user": {"userId": "user-1"}},
        assembly(results="none", uploads={"a": 1}),
        assembly(results={"step": "none"}, uploads=["text", None]),
        assembly(ttl="soon", lease_until="never", webhook="sent", ok=None, template_id=["x"]),
        assembly(webhook={"attempts": "many"}, execution="first"),
    ],
)
def test_a_row_with_missing_or_malformed_fields_is_answered(
    status: ModuleType, item: dict[str, Any]
) -> None:
    put(item)
    code, body, _ = ask(status, MINE)
    assert (code, body["assembly_id"]) == (200, "asm-1")


def batch(ids: Any, **extra: Any) -> dict[str, Any]:
    return http("POST", "/status/batch", body={"assemblyIds": ids}, **extra)


TOKENS = ("", "!", "AAAA", "WzEsMiwzXQ==", "ä", "a" * 5000, "W1tb" * 999)
BODIES = ("", "{", "[]", "null", "[" * 100_000, "9" * 5000, None)


@pytest.mark.parametrize(
    ("field", "events"),
    [
        ("assemblyId", [MINE | {"assemblyId": value} for value in (
            "", None, "a" * 129, "a/b", "ä", 5, ["a"], {"S": "a"}, True)]),
        ("event", [None, [], "text", 5, True]),
        ("tenantId", [MINE | {"tenantId": value} for value in ("", 7, "x" * 257)]),
        ("triggerWebhook", [MINE | {"triggerWebhook": value} for value in ("false", 1, 0, [])]),
        ("assemblyIds", [batch(ids) for ids in (
            None, "asm-1", ["a"] * 101, ["a", "b/c"], [5], {"a": 1}, [["a"]], [None])]),
        ("", [http("POST", "/status/batch") | {"body": body} for body in BODIES]),
        ("limit", [http("GET", "/assemblies", {"limit": value}) for value in (
            "0", "101", "-1", "x", "", "1e1", "٣")]),
        ("next", [http("GET", "/assemblies", {"next": value}) for value in TOKENS]),
    ],
)  # fmt: skip
def test_malformed_input_is_400_with_the_field(
    status: ModuleType, field: str, events: list[Any]
) -> None:
    """Also a batch of anything but 1 to 100 ids, and a limit other than 1 to 100."""
    for event in events:
        code, body, _ = ask(status, event)
        assert code == 400, event
        assert all(problem["field"].startswith(field) for problem in body["problems"]), event
        assert len(body["problems"]) == 1 or not field, event


def test_all_malformed_fields_are_in_one_answer(status: ModuleType) -> None:
    code, body, _ = ask(status, {"userId": 7, "triggerWebhook": "true"})
    fields = sorted(problem["field"] for problem in body["problems"])
    assert (code, fields) == (400, ["assemblyId", "triggerWebhook", "userId"])
    assert ask(status, {"assemblyId": "a/b"})[0] == 400


def v1(path: str, **extra: Any) -> dict[str, Any]:
    return {
        "resource": "/status/{assembly_id}", "path": path, "httpMethod": "GET",
        "headers": {"AUTHORIZATION": f"bearer {token()}"},
        "multiValueHeaders": {"AUTHORIZATION": [f"bearer {token()}"]},
        "queryStringParameters": None, "multiValueQueryStringParameters": None,
        "pathParameters": {"assembly_id": path.rsplit("/", 1)[-1]},
        "requestContext": {"stage": "test", "identity": {}}, "body": None,
        "isBase64Encoded": False,
    } | extra  # fmt: skip


def alb(path: str, **extra: Any) -> dict[str, Any]:
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:x"}},
        "httpMethod": "GET", "path": path, "queryStringParameters": {},
        "headers": {"authorization": f"Bearer {token()}"}, "body": "", "isBase64Encoded": False,
    } | extra  # fmt: skip


@pytest.mark.parametrize(
    "event",
    [
        http("GET", "/status/asm-1"),
        http("GET", "/prod/status/asm-1"),
        http("GET", "/status", {"assemblyId": "asm-1"}),
        http("GET", "/status/asm-1", {"userId": "user-2"}),
        v1("/status/asm-1"),
        v1(
            "/status",
            pathParameters=None,
            queryStringParameters={"assemblyId": "asm-1"},
            multiValueQueryStringParameters={"assemblyId": ["asm-1"]},
        ),
        alb("/status/asm-1"),
    ],
)
def test_a_look_up_works_through_every_kind_of_http_event(
    status: ModuleType, event: dict[str, Any]
) -> None:
    put(assembly())
    code, body, _ = ask(status, event)
    assert (code, body["assembly_id"]) == (200, "asm-1")


def test_a_load_balancer_with_lists_of_headers_gets_lists(status: ModuleType) -> None:
    put(assembly())
    event = alb("/status/asm-1", multiValueQueryStringParameters={})
    del event["headers"], event["queryStringParameters"]
    event["multiValueHeaders"] = {"authorization": [f"Bearer {token()}"]}
    answered = status.handler(event, Context())
    assert answered["statusCode"] == 200
    assert answered["multiValueHeaders"]["Content-Type"] == ["application/json"]
    assert "headers" not in answered


@pytest.mark.parametrize(
    ("query", "bearer"), [({"userId": "user-1"}, token("user-2")), (None, token(tenant="tenant-2"))]
)
def test_only_user_and_tenant_of_the_token_count(
    status: ModuleType, query: dict[str, str] | None, bearer: str
) -> None:
    put(assembly())
    assert ask(status, http("GET", "/status/asm-1", query, bearer=bearer))[0] == 403


def claimed(claims: Any, version: str = "2") -> dict[str, Any]:
    event = http("GET", "/status/asm-1", bearer=None)
    authorizer = {"jwt": {"claims": claims}} if version == "2" else {"claims": claims}
    event["requestContext"]["authorizer"] = authorizer
    return event


@pytest.mark.parametrize(
    "event",
    [
        *(http("GET", "/status/asm-1", bearer=bearer) for bearer in (
            None, "nonsense", token(exp=int(time.time()) - 3600), token()[:-4] + "AAAA", "a" * 5000
        )),
        *(claimed(claims) for claims in (
            {"sub": "user-1"}, {"sub": "", "tenant_id": "tenant-1"}, {"sub": 5}, "text"
        )),
    ],
)  # fmt: skip
def test_a_missing_or_bad_token_is_401_with_WWW_Authenticate(
    status: ModuleType, event: dict[str, Any]
) -> None:
    """Also claims of the API's authorizer without user and tenant."""
    put(assembly())
    code, body, headers = ask(status, event)
    assert (code, body) == (401, {"error": "Authentication required"})
    assert headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("name", ["sub", "user_id"])
def test_claims_of_the_apis_authorizer_identify_the_caller(
    status: ModuleType, version: str, name: str
) -> None:
    """Without a second check."""
    put(assembly())
    claims = {name: "user-1", "tenant_id": "tenant-1"}
    assert ask(status, claimed(claims, version))[0] == 200


def test_ALLOWED_TENANTS_applies_to_claims(container: Container) -> None:
    status = container("status", ALLOWED_TENANTS="tenant-9")
    put(assembly())
    assert ask(status, claimed({"sub": "user-1", "tenant_id": "tenant-1"}))[0] == 401


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (http("DELETE", "/status/asm-1"), 405),
        (http("GET", "/elsewhere"), 404),
        (http("POST", "/assemblies"), 405),
        (http("PUT", "/status/batch"), 405),
        (http("GET", "/status"), 400),
        (http("GET", "/status/a%2Fb"), 400),
        (http("GET", "/status/asm-1", {"triggerWebhook": "yes"}), 400),
        (http("GET", "/status", {"assemblyId": "a,b"}), 400),
    ],
)
def test_unknown_paths_methods_and_parameters_have_their_own_status(
    status: ModuleType, event: dict[str, Any], code: int
) -> None:
    answered, body, headers = ask(status, event)
    assert answered == code
    assert body["error"]
    assert (code == 405) == ("Allow" in headers)


def test_completed_document_may_be_kept(status: ModuleType) -> None:
    """A completed document is cacheable by its reader for five minutes, under a tag."""
    put(assembly())
    _, _, headers = ask(status, http("GET", "/status/asm-1"))
    assert headers["Cache-Control"] == "private, max-age=300"
    assert headers["ETag"]
    assert "Retry-After" not in headers


@pytest.mark.parametrize(
    "end", [{"error": "MD5_MISMATCH", "ok": None}, {"ok": "ASSEMBLY_CANCELED"}]
)
def test_other_ends_are_revalidated(status: ModuleType, end: dict[str, Any]) -> None:
    """A failed or cancelled assembly may be run again, so a cache must ask each time."""
    put(assembly(**end))
    _, _, headers = ask(status, http("GET", "/status/asm-1"))
    assert headers["Cache-Control"] == "private, no-cache"
    sent = {"If-None-Match": headers["ETag"]}
    code, _, headers = ask(status, http("GET", "/status/asm-1", headers=sent))
    assert (code, headers["Cache-Control"]) == (304, "private, no-cache")


@pytest.mark.parametrize(
    ("end", "joined"), [({"error": "X", "ok": None}, ["r2", "r3"]), ({}, None)]
)
def test_a_failed_document_names_the_requests_that_joined(
    status: ModuleType, end: dict[str, Any], joined: list[str] | None
) -> None:
    """A completed one is the answer to every request, and names none."""
    put(assembly(followers=frozenset({"t1#u1#r3", "t1#u1#r2"}), **end))
    _, body, _ = ask(status, http("GET", "/status/asm-1"))
    assert body is not None
    assert body.get("joined") == joined


@pytest.mark.parametrize("form", ["{tag}", '"other", {tag}', "*", "{strong}"])
def test_a_matching_etag_gets_304_without_a_body(status: ModuleType, form: str) -> None:
    put(assembly())
    tag = ask(status, http("GET", "/status/asm-1"))[2]["ETag"]
    sent = form.format(tag=tag, strong=tag.removeprefix("W/"))
    code, body, headers = ask(status, http("GET", "/status/asm-1", headers={"If-None-Match": sent}))
    assert (code, body) == (304, None)
    assert headers["ETag"] == tag
    put(assembly(message="again"))
    code, _, headers = ask(status, http("GET", "/status/asm-1", headers={"If-None-Match": tag}))
    assert code == 200
    assert headers["ETag"] != tag


def test_the_etag_changes_before_links_expire(status: ModuleType) -> None:
    document = {"assembly_id": "asm-1"}
    first = status.version_of(document, 0.0, links=True)
    assert status.version_of(document, 3600 - 300, links=True) != first
    assert status.version_of(document, 3600 - 300, links=False) == status.version_of(
        document, 0.0, links=False
    )


IDS = ["mine", "theirs", "old", "absent", "mine"]


@pytest.mark.parametrize("event", [batch(IDS), {"assemblyIds": IDS, "userId": "user-1"}])
def test_a_batch_has_null_for_absent_expired_and_foreign_assemblies(
    status: ModuleType, event: dict[str, Any]
) -> None:
    put(assembly("mine"))
    put(assembly("theirs", user={"userId": "user-2"}))
    put(assembly("old", ttl=5))
    code, body, headers = ask(status, event)
    assert (code, headers["Cache-Control"]) == (200, "no-store")
    assert body["statuses"]["mine"]["ok"] == "ASSEMBLY_COMPLETED"
    assert [body["statuses"][name] for name in ("theirs", "old", "absent")] == [None] * 3


def test_the_body_of_a_batch_may_be_base64(status: ModuleType) -> None:
    event = batch([])
    event |= {"body": base64.b64encode(event["body"].encode()).decode(), "isBase64Encoded": True}
    assert ask(status, event)[:2] == (200, {"statuses": {}})


def test_a_batch_reads_unprocessed_keys_again(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly("a"))
    put(assembly("b"))
    real, asked = status.dynamodb.batch_get_item, []

    def stingy(RequestItems: Any) -> Any:
        (table, wanted), *_ = RequestItems.items()
        asked.append((len(wanted["Keys"]), wanted["ConsistentRead"]))
        page = real(RequestItems={table: wanted | {"Keys": wanted["Keys"][:1]}})
        rest = wanted["Keys"][1:]
        return page | {"UnprocessedKeys": {table: wanted | {"Keys": rest}} if rest else {}}

    status.dynamodb.batch_get_item = stingy
    monkeypatch.setattr(status.time, "sleep", lambda _: None)
    body = ask(status, batch(["a", "b"]))[1]
    assert all(body["statuses"].values())
    assert asked == [(2, True), (1, True)]


def test_a_batch_with_lasting_unprocessed_keys_is_503(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.time, "sleep", lambda _: None)
    status.dynamodb.batch_get_item = lambda RequestItems: {
        "Responses": {}, "UnprocessedKeys": RequestItems,
    }  # fmt: skip
    code, _, headers = ask(status, batch(["a"]))
    assert code == 503
    assert headers["Retry-After"]


def large(number: int, letter: str) -> dict[str, Any]:
    """A row near DynamoDB's limit, most of it one letter, with links in its results."""
    files = [{"id": f"r{at}", "name": "a", "key": f"results/a/{letter}/{at}"} for at in range(50)]
    text = letter * (350_000 // len(letter.encode()))
    return assembly(f"asm-{number:03}", message=text, results={"made": files})


def as_sent(answered: dict[str, Any]) -> int:
    """The bytes of an answer: with non-ASCII escaped, and the larger of both forms."""
    return max(len(json.dumps(answered)), len(json.dumps(answered, ensure_ascii=False).encode()))


@pytest.mark.parametrize("letter", ["a", '"', "\\", "\n", "\x01", "ü", "日", "😀"])
def test_a_batch_is_cut_to_what_lambda_can_return(status: ModuleType, letter: str) -> None:
    """Before any link is signed."""
    names = [f"asm-{number:03}" for number in range(30)]
    items = [large(number, letter) for number in range(30)]
    known = {item["assembly_id"]: item for item in items}
    status.read_assemblies = lambda ids: {name: known[name] for name in ids}

    refused = status.handler(batch(names), Context())
    assert refused["statusCode"] == 413
    body = json.loads(refused["body"])
    assert f"ask for fewer ids at a time; the first {body['fits']} fit" in body["error"]

    answered = status.handler(batch(names[: body["fits"]]), Context())
    assert answered["statusCode"] == 200
    assert list(json.loads(answered["body"])["statuses"]) == names[: body["fits"]]
    assert as_sent(answered) <= 6_000_000
    # One more document with its links would not have fitted.
    assert as_sent(answered) * (body["fits"] + 1) / body["fits"] > 5_900_000
    assert status.handler(batch(names[: body["fits"] + 1]), Context())["statusCode"] == 413


def test_an_answer_to_a_load_balancer_is_cut_to_1_mb(status: ModuleType) -> None:
    items = {f"asm-{number:03}": large(number, "a") for number in range(4)}
    status.read_assemblies = lambda ids: {name: items[name] for name in ids}
    event = batch(list(items))
    assert ask(status, event)[0] == 200
    event["requestContext"] = event["requestContext"] | {"elb": {}}
    code, body, _ = ask(status, event | {"httpMethod": "POST", "path": "/status/batch"})
    assert (code, body["fits"]) == (413, 2)


def test_an_answer_too_large_for_lambda_is_413(status: ModuleType) -> None:
    """Else API Gateway would answer with a server error."""
    put(assembly(message='"' * 2_000))
    status.MAX_ANSWER_BYTES = 8_000
    code, body, _ = ask(status, http("GET", "/status/asm-1"))
    assert (code, body["fits"]) == (413, 0)


def test_a_page_of_large_documents_ends_early_and_goes_on(status: ModuleType) -> None:
    """All pages together are the list."""
    for number in range(5):
        created = f"2026-11-22T10:00:0{number}.000Z"
        put(assembly(f"asm-{number}", message='"' * 1_000, created_at=created))
    status.MAX_ANSWER_BYTES = 11_000
    pages = listed(status, {"limit": "3"})
    assert all(1 <= len(page) <= 2 for page in pages)
    assert sum(pages, []) == NEWEST_FIRST


def listed(status: ModuleType, query: dict[str, str] | None = None) -> list[list[str]]:
    """The ids of a list, page by page."""
    pages, given = [], dict(query or {})
    while len(pages) < 9:
        code, body, _ = ask(status, http("GET", "/assemblies", given))
        assert code == 200
        pages.append([document["assembly_id"] for document in body["assemblies"]])
        if body["next"] is None:
            break
        given["next"] = body["next"]
    return pages


NEWEST_FIRST = ["asm-4", "asm-3", "asm-2", "asm-1", "asm-0"]


def test_a_list_has_the_callers_assemblies_newest_first_in_pages(status: ModuleType) -> None:
    for number in range(5):
        put(assembly(f"asm-{number}", created_at=f"2026-11-2{number}T00:00:00.000Z"))
    assert sum(listed(status, {"limit": "2"}), []) == NEWEST_FIRST


def test_a_list_omits_expired_assemblies_and_those_of_others(status: ModuleType) -> None:
    put(assembly("mine"))
    put(assembly("old", ttl=5))
    put(assembly("tenant", tenant_id="tenant-2"))
    put(assembly("user", user_id="user-2", user={"userId": "user-2"}))
    body = ask(status, http("GET", "/assemblies"))[1]
    assert [document["assembly_id"] for document in body["assemblies"]] == ["mine"]
    assert "uploads" not in body["assemblies"][0]
    assert "tenant_id" not in body["assemblies"][0]


def test_a_page_is_filled_although_the_index_has_expired_rows(status: ModuleType) -> None:
    for number in range(6):
        changes = {"ttl": 5} if number % 2 else {}
        put(assembly(f"asm-{number}", created_at=f"2026-11-2{number}T00:00:00.000Z", **changes))
    assert listed(status, {"limit": "3"})[0] == NEWEST_FIRST[::2]


@pytest.mark.parametrize("limit", ["1", "2", "100"])
@pytest.mark.parametrize("foreign", [3, 30])
def test_pages_say_nothing_of_another_tenant(status: ModuleType, limit: str, foreign: int) -> None:
    """A user has the same id there; the index has the rows of both."""
    times = [f"2026-11-{number // 10 + 1:02}T0{number % 10}" for number in range(foreign)]
    for number, moment in enumerate(times):
        put(assembly(f"their-{number}", created_at=moment, tenant_id="tenant-2"))
    for number in range(3):
        put(assembly(f"mine-{number}", created_at=f"2026-10-0{number + 1}"))
    given, seen = {"limit": limit}, []
    while given.get("next", "") is not None:
        body = ask(status, http("GET", "/assemblies", given))[1]
        seen += [document["assembly_id"] for document in body["assemblies"]]
        if (named := body["next"]) is not None:
            place = read_token(named, ["assemblies", "tenant-1", "user-1"])
            assert place[1] == seen[-1]
        given["next"] = named
    assert seen == ["mine-2", "mine-1", "mine-0"]


def test_a_next_token_is_bound_to_tenant_and_user(status: ModuleType) -> None:
    for number in range(3):
        put(assembly(f"mine-{number}"))
    named = ask(status, http("GET", "/assemblies", {"limit": "1"}))[1]["next"]
    event = http("GET", "/assemblies", {"next": named})
    assert ask(status, event)[0] == 200
    for other in (token("user-2"), token(tenant="tenant-2")):
        code, body, _ = ask(status, event | {"headers": {"authorization": f"Bearer {other}"}})
        assert (code, body["problems"][0]["field"]) == (400, "next")


@pytest.mark.parametrize("place", [7, None, [], ["x"], ["x", 7], [7, "x"], ["", "x"], ["x", "a/b"]])
def test_a_forged_place_is_400(status: ModuleType, place: Any) -> None:
    forged = make_token(place, ["assemblies", "tenant-1", "user-1"])
    assert ask(status, http("GET", "/assemblies", {"next": forged}))[0] == 400


@pytest.mark.parametrize("code", ["ProvisionedThroughputExceededException", "ThrottlingException"])
def test_a_throttled_read_is_503_with_Retry_After(status: ModuleType, code: str) -> None:
    status.dynamodb.get_item = raising(code)
    answered, _, headers = ask(status, MINE)
    assert answered == 503
    assert headers["Retry-After"]


def test_failure_is_500_with_the_request_id(status: ModuleType, output: Output) -> None:
    """The log has the cause."""
    status.dynamodb.get_item = raising("ResourceNotFoundException")
    code, body, _ = ask(status, MINE)
    assert code == 500
    assert body == {"error": "Internal error", "request_id": Context.aws_request_id}
    assert "secret table" in output.text
    assert [line["result"] for line in output.logged("status_check")] == ["error"]


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "name", ["DYNAMODB_TABLE", "FILES_BUCKET", "DELIVER_WEBHOOK_FUNCTION", "JWT_SECRET"]
)
def test_a_missing_setting_stops_the_container_and_is_named(name: str) -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if key != name}
    run = python(environment, str(ROOT / "functions/status/status.py"))
    assert run.returncode != 0
    assert name in run.stderr


def test_a_look_up_loads_no_heavy_module() -> None:
    """httpx, pydantic, asyncio, boto3, or a client for S3 or Lambda."""
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "functions/status")!r})
import status
item = {{"assembly_id": {{"S": "a"}}, "user": {{"M": {{"userId": {{"S": "u"}}}}}}}}
status.dynamodb.get_item = lambda **_: {{"Item": item}}
assert status.handler({{"assemblyId": "a", "userId": "u"}}, None)["statusCode"] == 200
heavy = {{"asyncio", "boto3", "concurrent.futures.thread", "httpx", "pydantic"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert status.s3.cache_info().currsize == status.functions.cache_info().currsize == 0
"""
    run = python(ENVIRONMENT, "-c", script)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("event", "result"),
    [
        (MINE, "found"),
        (MINE | {"assemblyId": "other"}, "not_found"),
        (MINE | {"userId": "user-2"}, "denied"),
        ({"assemblyId": "asm-1"}, "denied"),
    ],
)
def test_each_look_up_is_logged_and_counted(
    status: ModuleType, output: Output, event: dict[str, Any], result: str
) -> None:
    put(assembly())
    ask(status, event)
    (line,) = output.logged("status_check")
    assert line["result"] == result
    assert line["assembly_id"] == event["assemblyId"]
    assert len(output.metric("StatusChecks")) == 1
    assert output.metric("StatusLatency")


def test_tokens_are_not_logged(status: ModuleType, output: Output) -> None:
    ask(status, http("GET", "/status/asm-1"))
    ask(status, http("GET", "/status/asm-1", bearer=token()[:-6] + "AAAAAA"))
    assert "eyJ" not in output.text


TRIGGER = MINE | {"triggerWebhook": True}
SENT = {"webhook": {"status": "delivered", "attempts": 1, "delivered": True}}


def delivering(status: ModuleType, answered: Any, error: str | None = None) -> list[Any]:
    """Replaces deliver-webhook, which answers or raises; the list has its inputs."""
    asked: list[Any] = []

    def invoke(FunctionName: str, Payload: bytes) -> Any:
        assert FunctionName == "jobplane-test-deliver-webhook"
        asked.append(json.loads(Payload))
        if error:
            body = json.dumps({"errorType": error, "errorMessage": "arn:aws:x"}).encode()
            return {"Payload": io.BytesIO(body), "FunctionError": "Unhandled"}
        return {"Payload": io.BytesIO(json.dumps(answered).encode())}

    status.functions = lambda: SimpleNamespace(invoke=invoke)
    return asked


@pytest.mark.parametrize(
    "event",
    [
        TRIGGER,
        http("GET", "/status/asm-1", {"triggerWebhook": "true"}, headers={"if-none-match": "*"}),
    ],
    ids=["invoke", "http"],
)
def test_a_trigger_returns_the_document_with_the_delivery(status: ModuleType, event: Any) -> None:
    """Whatever the ETag."""
    put(assembly())
    asked = delivering(status, SENT)
    code, body, headers = ask(status, event)
    assert (code, headers["Cache-Control"]) == (200, "no-store")
    assert asked == [{"assembly_id": "asm-1"}]
    assert body["ok"] == "ASSEMBLY_COMPLETED"
    assert body["webhook"] == SENT["webhook"]


@pytest.mark.parametrize(
    ("changes", "refusal", "code", "later"),
    [
        ({"user": {"userId": "user-2"}}, None, 403, None),
        ({"ok": None}, None, 409, "2"),
        ({"ttl": 5}, None, 404, "2"),
        ({}, {"refused": "too_soon", "retry_after": 17}, 429, "17"),
        ({}, {"refused": "not_ended"}, 409, "2"),
        ({}, {"refused": "not_found"}, 404, "2"),
    ],
)
def test_a_refused_trigger_has_its_own_status(
    status: ModuleType, changes: Any, refusal: Any, code: int, later: str | None
) -> None:
    """Only for the owner of an ended assembly deliver-webhook is invoked, which may refuse it."""
    put(assembly(**changes))
    asked = delivering(status, refusal or SENT)
    answered, body, headers = ask(status, TRIGGER)
    assert (answered, headers.get("Retry-After")) == (code, later)
    assert body["assembly_id"] == "asm-1"
    assert len(asked) == (refusal is not None)


@pytest.mark.parametrize(
    ("error", "code"), [("ProvisionedThroughputExceededException", 503), ("Sandbox.Timedout", 500)]
)
def test_an_error_of_deliver_webhook_is_500_without_details(
    status: ModuleType, error: str, code: int
) -> None:
    put(assembly())
    delivering(status, None, error)
    answered, body, _ = ask(status, TRIGGER)
    assert answered == code
    assert "arn:" not in json.dumps(body)


def test_deliver_webhook_is_invoked_without_retries(status: ModuleType) -> None:
    """With a timeout as long as a delivery; a second call would be refused as too soon."""
    config = status.functions().meta.config
    assert config.retries["total_max_attempts"] == 1
    assert config.read_timeout == status.DELIVERY_SECONDS


def test_an_event_of_sqs_is_an_error(status: ModuleType) -> None:
    """Else Lambda would delete its messages."""
    with pytest.raises(status.ValidationError, match="deliver-webhook"):
        status.handler(sqs('{"assembly_id":"asm-1"}'), Context())


EVENTS = events(
    "assemblyId", "assemblyIds", "userId", "triggerWebhook", "Records", "requestContext",
    "httpMethod", "path", "rawPath", "headers", "multiValueHeaders", "body", "http", "method",
    "queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "authorizer",
    "isBase64Encoded", "jwt", "claims", "elb",
)  # fmt: skip


@with_fixtures(examples(400))
@given(event=EVENTS)
def test_any_json_event_gets_a_valid_answer_below_500(status: ModuleType, event: Any) -> None:
    put(assembly())
    delivering(status, {"webhook": {"delivered": True}})
    if isinstance(event, dict) and "Records" in event:
        return
    answered = status.handler(event, Context())
    assert answered["statusCode"] < 500
    text = json.dumps(answered)
    assert not any(word in text for word in ("Traceback", "arn:aws", "jobplane-test", "Error("))
    assert answered.get("headers") or answered.get("multiValueHeaders")
