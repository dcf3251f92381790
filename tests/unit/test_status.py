"""status: look-ups by invoke and over HTTP, batches, lists, and webhooks on demand."""

import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from moto import mock_aws

from jobplane.tree.repository import Function, Repository
from jobplane.trying.cases import Case, case_paths, run_in_process
from tests.examples import examples
from tests.unit.assemblies import (
    ENVIRONMENT,
    ROOT,
    Context,
    assembly,
    create_table,
    events,
    http,
    load,
    log_lines,
    metric_names,
    put,
    sqs,
    token,
)

MINE = {"assemblyId": "asm-1", "userId": "user-1"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        create_table()
        yield


@pytest.fixture
def status(aws: None, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load(monkeypatch)


def ask(status: ModuleType, event: Any) -> tuple[int, Any, dict[str, str]]:
    answered = status.handler(event, Context())
    body = json.loads(answered["body"]) if answered["body"] else None
    return answered["statusCode"], body, answered.get("headers", {})


def raising(code: str) -> Any:
    def call(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "secret table arn:aws:x"}}, "GetItem")

    return call


# Look-up by invoke


def test_the_owner_gets_the_public_document(status: ModuleType) -> None:
    put(assembly())
    code, body, headers = ask(status, MINE)
    assert code == 200
    assert body["ok"] == "ASSEMBLY_COMPLETED"
    assert body["execution_duration"] == 5.2
    assert body["user"] == {"userId": "user-1"}
    assert headers["Content-Type"] == "application/json"


def test_an_answer_has_only_public_fields(status: ModuleType) -> None:
    """Files have no keys."""
    put(assembly(webhook_cooldown_until=5, lease_until=9, secret_field="x"))
    _, body, _ = ask(status, MINE)
    assert set(body) <= set(status.PUBLIC_ASSEMBLY_FIELDS) | {"stalled"}
    assert "key" not in body["uploads"][0]


def test_an_unknown_assembly_is_404(status: ModuleType) -> None:
    """With the id and the time to ask again."""
    code, body, headers = ask(status, MINE)
    assert (code, body) == (404, {"error": "Assembly not found", "assembly_id": "asm-1"})
    assert headers["Retry-After"] == "2"
    assert headers["Cache-Control"] == "no-store"


def test_an_expired_assembly_is_404(status: ModuleType) -> None:
    """DynamoDB may delete it later."""
    put(assembly(ttl=int(time.time()) - 1))
    assert ask(status, MINE)[0] == 404


def test_another_users_assembly_is_403(status: ModuleType) -> None:
    put(assembly())
    code, body, _ = ask(status, MINE | {"userId": "user-2"})
    assert code == 403
    assert body["error"].startswith("Access denied")


def test_an_assembly_without_an_owner_is_403(status: ModuleType) -> None:
    put(assembly(user=None))
    assert ask(status, MINE)[0] == 403


def test_an_invoke_without_a_user_is_401_without_a_read(status: ModuleType) -> None:
    put(assembly())
    code, body, headers = ask(status, {"assemblyId": "asm-1"})
    assert (code, body) == (401, {"error": "Authentication required"})
    assert "WWW-Authenticate" in headers


def test_ALLOW_ANONYMOUS_INVOKE_allows_an_invoke_without_a_user(
    aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = load(monkeypatch, ALLOW_ANONYMOUS_INVOKE="true")
    put(assembly(user=None))
    assert ask(status, {"assemblyId": "asm-1"})[0] == 200


def test_ALLOW_ANONYMOUS_INVOKE_does_not_apply_to_http(
    aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = load(monkeypatch, ALLOW_ANONYMOUS_INVOKE="true")
    put(assembly())
    assert ask(status, http("GET", "/status/asm-1", bearer=None))[0] == 401


def test_MASK_FOREIGN_answers_for_another_users_assembly_as_for_a_missing_one(
    aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = load(monkeypatch, MASK_FOREIGN="true")
    put(assembly())
    foreign = status.handler(MINE | {"userId": "user-2"}, Context())
    boto3.client("dynamodb").delete_item(
        TableName=ENVIRONMENT["DYNAMODB_TABLE"], Key={"assembly_id": {"S": "asm-1"}}
    )
    assert foreign == status.handler(MINE | {"userId": "user-2"}, Context())


def test_a_look_up_is_one_consistent_get(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly(results={"hash": [{"id": "result_1", "name": "a", "key": "results/asm-1/a"}]}))
    calls: list[tuple[str, Any]] = []
    real = status.dynamodb._make_api_call

    def record(operation: str, arguments: Any) -> Any:
        calls.append((operation, arguments))
        return real(operation, arguments)

    monkeypatch.setattr(status.dynamodb, "_make_api_call", record)
    assert ask(status, MINE)[0] == 200
    assert [operation for operation, _ in calls] == ["GetItem"]
    assert calls[0][1]["ConsistentRead"] is True


def test_a_repeated_look_up_gets_the_same_answer(status: ModuleType) -> None:
    put(assembly())
    assert status.handler(MINE, Context()) == status.handler(MINE, Context())


# The document


def test_a_document_with_ok_and_error_shows_only_the_error(status: ModuleType) -> None:
    put(assembly(error="PROCESSING_ERROR"))
    _, body, _ = ask(status, MINE)
    assert body["error"] == "PROCESSING_ERROR"
    assert "ok" not in body


def test_a_running_document_has_neither_ok_nor_error(status: ModuleType) -> None:
    """It is to be polled again in 2 s."""
    put(assembly(ok=None))
    _, body, headers = ask(status, MINE)
    assert not {"ok", "error"} & set(body)
    assert headers["Retry-After"] == "2"
    assert headers["Cache-Control"] == "no-store"


def test_a_document_that_waits_for_files_is_to_be_polled_every_5_s(status: ModuleType) -> None:
    put(assembly(ok=None, execution_start=None))
    assert ask(status, MINE)[2]["Retry-After"] == "5"


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
    aws: None, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], code: str
) -> None:
    status = load(monkeypatch, ASSEMBLY_STATUS_CODES="extended")
    put(assembly(**changes))
    assert ask(status, MINE)[1]["ok"] == code


def test_a_running_document_with_an_expired_lease_is_stalled(status: ModuleType) -> None:
    put(assembly(ok=None, lease_until=int(time.time()) - 5))
    assert ask(status, MINE)[1]["stalled"] is True


@pytest.mark.parametrize("changes", [{"ok": None, "lease_until": 2**33}, {"lease_until": 1}])
def test_a_leased_or_ended_document_is_not_stalled(
    status: ModuleType, changes: dict[str, Any]
) -> None:
    put(assembly(**changes))
    assert "stalled" not in ask(status, MINE)[1]


def test_whole_numbers_are_answered_as_integers(status: ModuleType) -> None:
    put(assembly(progress_pct=100.0, execution_duration=0.25))
    body = status.handler(MINE, Context())["body"]
    assert body.endswith('"progress_pct":100}')
    assert '"execution_duration":0.25' in body


def test_a_result_in_the_bucket_gets_a_link_for_an_hour(status: ModuleType) -> None:
    """One with a stored link keeps it."""
    put(
        assembly(
            results={
                "hash": [
                    {"id": "result_1", "name": "a b.txt", "key": "results/asm-1/hash/a b.txt"},
                    {"id": "result_2", "name": "c", "ssl_url": "https://cdn.example.com/c"},
                ]
            }
        )
    )
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
    assert code == 200
    assert body["assembly_id"] == "asm-1"


# Validation


@pytest.mark.parametrize("value", ["", None, "a" * 129, "a/b", "ä", 5, ["a"], {"S": "a"}, True])
def test_a_malformed_id_is_400_with_the_field(status: ModuleType, value: Any) -> None:
    code, body, _ = ask(status, {"assemblyId": value, "userId": "user-1"})
    assert code == 400
    assert [problem["field"] for problem in body["problems"]] == ["assemblyId"]


def test_all_malformed_fields_are_in_one_answer(status: ModuleType) -> None:
    code, body, _ = ask(status, {"userId": 7, "triggerWebhook": "true"})
    assert code == 400
    assert {problem["field"] for problem in body["problems"]} == {
        "assemblyId",
        "userId",
        "triggerWebhook",
    }


@pytest.mark.parametrize("event", [None, [], "text", 5, True])
def test_an_event_that_is_not_an_object_is_400(status: ModuleType, event: Any) -> None:
    code, body, _ = ask(status, event)
    assert code == 400
    assert body["problems"][0]["field"] == "event"


def test_a_malformed_event_without_a_user_is_400(status: ModuleType) -> None:
    assert ask(status, {"assemblyId": "a/b"})[0] == 400


@pytest.mark.parametrize("value", ["false", 1, 0, []])
def test_triggerWebhook_must_be_a_boolean(status: ModuleType, value: Any) -> None:
    assert ask(status, MINE | {"triggerWebhook": value})[0] == 400


# HTTP


def v1(path: str, **extra: Any) -> dict[str, Any]:
    return {
        "resource": "/status/{assembly_id}",
        "path": path,
        "httpMethod": "GET",
        "headers": {"AUTHORIZATION": f"bearer {token()}"},
        "multiValueHeaders": {"AUTHORIZATION": [f"bearer {token()}"]},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": {"assembly_id": path.rsplit("/", 1)[-1]},
        "requestContext": {"stage": "test", "identity": {}},
        "body": None,
        "isBase64Encoded": False,
    } | extra


def alb(path: str, **extra: Any) -> dict[str, Any]:
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:x"}},
        "httpMethod": "GET",
        "path": path,
        "queryStringParameters": {},
        "headers": {"authorization": f"Bearer {token()}"},
        "body": "",
        "isBase64Encoded": False,
    } | extra


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
    assert code == 200
    assert body["assembly_id"] == "asm-1"


def test_a_load_balancer_with_lists_of_headers_gets_lists(status: ModuleType) -> None:
    put(assembly())
    event = alb(
        "/status/asm-1",
        headers=None,
        multiValueHeaders={"authorization": [f"Bearer {token()}"]},
        queryStringParameters=None,
        multiValueQueryStringParameters={},
    )
    del event["headers"], event["queryStringParameters"]
    answered = status.handler(event, Context())
    assert answered["statusCode"] == 200
    assert answered["multiValueHeaders"]["Content-Type"] == ["application/json"]
    assert "headers" not in answered


def test_a_user_id_in_the_query_is_ignored(status: ModuleType) -> None:
    put(assembly())
    event = http("GET", "/status/asm-1", {"userId": "user-1"}, bearer=token("user-2"))
    assert ask(status, event)[0] == 403


def test_the_same_user_id_of_another_tenant_is_refused(status: ModuleType) -> None:
    put(assembly())
    event = http("GET", "/status/asm-1", bearer=token(tenant="tenant-2"))
    assert ask(status, event)[0] == 403


@pytest.mark.parametrize(
    "bearer",
    [None, "nonsense", token(exp=int(time.time()) - 3600), token()[:-4] + "AAAA", "a" * 5000],
)
def test_a_missing_or_bad_token_is_401_with_WWW_Authenticate(
    status: ModuleType, bearer: str | None
) -> None:
    put(assembly())
    code, body, headers = ask(status, http("GET", "/status/asm-1", bearer=bearer))
    assert (code, body) == (401, {"error": "Authentication required"})
    assert headers["WWW-Authenticate"].startswith("Bearer")


def claimed(claims: Any, version: str = "2") -> dict[str, Any]:
    event = http("GET", "/status/asm-1", bearer=None)
    authorizer = {"jwt": {"claims": claims}} if version == "2" else {"claims": claims}
    event["requestContext"]["authorizer"] = authorizer
    return event


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("name", ["sub", "user_id"])
def test_claims_of_the_apis_authorizer_identify_the_caller(
    status: ModuleType, version: str, name: str
) -> None:
    """Without a second check."""
    put(assembly())
    claims = {name: "user-1", "tenant_id": "tenant-1"}
    assert ask(status, claimed(claims, version))[0] == 200


@pytest.mark.parametrize(
    "claims", [{"sub": "user-1"}, {"sub": "", "tenant_id": "tenant-1"}, {"sub": 5}, "text"]
)
def test_claims_without_user_and_tenant_are_refused(status: ModuleType, claims: Any) -> None:
    put(assembly())
    assert ask(status, claimed(claims))[0] == 401


def test_ALLOWED_TENANTS_applies_to_claims(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    status = load(monkeypatch, ALLOWED_TENANTS="tenant-9")
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


# Caching


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


def test_an_older_etag_gets_the_new_document(status: ModuleType) -> None:
    put(assembly())
    tag = ask(status, http("GET", "/status/asm-1"))[2]["ETag"]
    put(assembly(message="again"))
    code, _, headers = ask(status, http("GET", "/status/asm-1", headers={"If-None-Match": tag}))
    assert code == 200
    assert headers["ETag"] != tag


def test_the_etag_changes_before_links_expire(status: ModuleType) -> None:
    document = {"assembly_id": "asm-1"}
    first = status.entity_tag(document, 0.0, links=True)
    assert status.entity_tag(document, 3600 - 300, links=True) != first
    assert status.entity_tag(document, 3600 - 300, links=False) == status.entity_tag(
        document, 0.0, links=False
    )


# Batch


def batch(ids: Any, **extra: Any) -> dict[str, Any]:
    return http("POST", "/status/batch", body={"assemblyIds": ids}, **extra)


def test_a_batch_has_null_for_absent_expired_and_foreign_assemblies(status: ModuleType) -> None:
    put(assembly("mine"))
    put(assembly("theirs", user={"userId": "user-2"}))
    put(assembly("old", ttl=5))
    code, body, headers = ask(status, batch(["mine", "theirs", "old", "absent", "mine"]))
    assert code == 200
    assert body["statuses"]["mine"]["ok"] == "ASSEMBLY_COMPLETED"
    assert [body["statuses"][name] for name in ("theirs", "old", "absent")] == [None] * 3
    assert headers["Cache-Control"] == "no-store"


def test_an_invoke_with_assemblyIds_is_a_batch(status: ModuleType) -> None:
    put(assembly())
    code, body, _ = ask(status, {"assemblyIds": ["asm-1", "x"], "userId": "user-1"})
    assert code == 200
    assert body["statuses"]["x"] is None
    assert body["statuses"]["asm-1"]["assembly_id"] == "asm-1"


def test_the_body_of_a_batch_may_be_base64(status: ModuleType) -> None:
    event = batch([])
    event |= {"body": base64.b64encode(event["body"].encode()).decode(), "isBase64Encoded": True}
    assert ask(status, event)[:2] == (200, {"statuses": {}})


@pytest.mark.parametrize(
    "ids", [None, "asm-1", ["a"] * 101, ["a", "b/c"], [5], {"a": 1}, [["a"]], [None]]
)
def test_a_batch_of_anything_but_1_to_100_ids_is_400(status: ModuleType, ids: Any) -> None:
    code, body, _ = ask(status, batch(ids))
    assert code == 400
    assert body["problems"][0]["field"].startswith("assemblyIds")


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "[" * 100_000, "9" * 5000, None])
def test_a_batch_whose_body_is_not_an_object_is_400(status: ModuleType, body: str | None) -> None:
    event = http("POST", "/status/batch") | {"body": body}
    assert ask(status, event)[0] == 400


def test_a_batch_reads_unprocessed_keys_again(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(assembly("a"))
    put(assembly("b"))
    real, asked = status.dynamodb.batch_get_item, []

    def stingy(RequestItems: Any) -> Any:
        (table, wanted), *_ = RequestItems.items()
        asked.append(len(wanted["Keys"]))
        page = real(RequestItems={table: wanted | {"Keys": wanted["Keys"][:1]}})
        rest = wanted["Keys"][1:]
        return page | {"UnprocessedKeys": {table: wanted | {"Keys": rest}} if rest else {}}

    monkeypatch.setattr(status.dynamodb, "batch_get_item", stingy)
    monkeypatch.setattr(status.time, "sleep", lambda _: None)
    body = ask(status, batch(["a", "b"]))[1]
    assert all(body["statuses"].values())
    assert asked == [2, 1]


def test_a_batch_with_lasting_unprocessed_keys_is_503(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Retry-After."""
    monkeypatch.setattr(status.time, "sleep", lambda _: None)
    monkeypatch.setattr(
        status.dynamodb,
        "batch_get_item",
        lambda RequestItems: {"Responses": {}, "UnprocessedKeys": RequestItems},
    )
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
def test_a_batch_is_cut_to_what_lambda_can_return(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, letter: str
) -> None:
    """Before any link is signed."""
    names = [f"asm-{number:03}" for number in range(30)]
    items = [large(number, letter) for number in range(30)]
    known = {item["assembly_id"]: item for item in items}
    monkeypatch.setattr(status, "read_assemblies", lambda ids: {name: known[name] for name in ids})

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


def test_an_answer_to_a_load_balancer_is_cut_to_1_mb(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = {f"asm-{number:03}": large(number, "a") for number in range(4)}
    monkeypatch.setattr(status, "read_assemblies", lambda ids: {name: items[name] for name in ids})
    event = batch(list(items))
    assert ask(status, event)[0] == 200
    event["requestContext"] = event["requestContext"] | {"elb": {}}
    code, body, _ = ask(status, event | {"httpMethod": "POST", "path": "/status/batch"})
    assert (code, body["fits"]) == (413, 2)


def test_an_answer_too_large_for_lambda_is_413(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else API Gateway would answer with a server error."""
    put(assembly(message='"' * 2_000))
    monkeypatch.setattr(status, "MAX_ANSWER_BYTES", 8_000)
    code, body, _ = ask(status, http("GET", "/status/asm-1"))
    assert (code, body["fits"]) == (413, 0)


def test_a_page_of_large_documents_ends_early_and_goes_on(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pages together are the list."""
    for number in range(5):
        created = f"2026-11-22T10:00:0{number}.000Z"
        put(assembly(f"asm-{number}", message='"' * 1_000, created_at=created))
    monkeypatch.setattr(status, "MAX_ANSWER_BYTES", 11_000)
    seen, query = [], {"limit": "3"}
    for _ in range(5):
        code, body, _ = ask(status, http("GET", "/assemblies", query))
        assert code == 200
        assert 1 <= len(body["assemblies"]) <= 2
        seen += [document["assembly_id"] for document in body["assemblies"]]
        if body["next"] is None:
            break
        query = {"limit": "3", "next": body["next"]}
    assert seen == ["asm-4", "asm-3", "asm-2", "asm-1", "asm-0"]


def test_a_batch_reads_consistently(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    put(assembly())
    asked: list[Any] = []
    read = status.dynamodb.batch_get_item

    def note(**request: Any) -> Any:
        asked.extend(request["RequestItems"].values())
        return read(**request)

    monkeypatch.setattr(status.dynamodb, "batch_get_item", note)
    assert ask(status, batch(["asm-1"]))[0] == 200
    assert [each["ConsistentRead"] for each in asked] == [True]


# List


def test_a_list_has_the_callers_assemblies_newest_first_in_pages(status: ModuleType) -> None:
    """Each once."""
    for number in range(5):
        put(assembly(f"asm-{number}", created_at=f"2026-11-2{number}T00:00:00.000Z"))
    names, query = [], {"limit": "2"}
    for _ in range(5):
        _, body, _ = ask(status, http("GET", "/assemblies", query))
        names += [document["assembly_id"] for document in body["assemblies"]]
        if body["next"] is None:
            break
        query["next"] = body["next"]
    assert names == ["asm-4", "asm-3", "asm-2", "asm-1", "asm-0"]


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
    body = ask(status, http("GET", "/assemblies", {"limit": "3"}))[1]
    assert [document["assembly_id"] for document in body["assemblies"]] == [
        "asm-4",
        "asm-2",
        "asm-0",
    ]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "1e1", "٣"])
def test_a_limit_other_than_1_to_100_is_400(status: ModuleType, limit: str) -> None:
    code, body, _ = ask(status, http("GET", "/assemblies", {"limit": limit}))
    assert code == 400
    assert body["problems"][0]["field"] == "limit"


@pytest.mark.parametrize(
    "token_text",
    ["", "!", "AAAA", base64.urlsafe_b64encode(b"[1,2,3]").decode(), "ä", "a" * 5000, "W1tb" * 999],
)
def test_a_malformed_next_token_is_400(status: ModuleType, token_text: str) -> None:
    code, body, _ = ask(status, http("GET", "/assemblies", {"next": token_text}))
    assert code == 400
    assert body["problems"][0]["field"] == "next"


def test_a_next_token_of_another_user_shows_only_own_assemblies(status: ModuleType) -> None:
    put(assembly("theirs", user_id="user-2", user={"userId": "user-2"}))
    put(assembly("mine"))
    place = "2027-01-01T00:00:00.000Z~theirs"
    body = ask(status, http("GET", "/assemblies", {"next": place}))[1]
    assert [document["assembly_id"] for document in body["assemblies"]] == ["mine"]


# Failure


@pytest.mark.parametrize("code", ["ProvisionedThroughputExceededException", "ThrottlingException"])
def test_a_throttled_read_is_503_with_Retry_After(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(status.dynamodb, "get_item", raising(code))
    answered, _, headers = ask(status, MINE)
    assert answered == 503
    assert headers["Retry-After"]


def test_failure_is_500_with_the_request_id(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has the cause."""
    monkeypatch.setattr(status.dynamodb, "get_item", raising("ResourceNotFoundException"))
    code, body, _ = ask(status, MINE)
    assert code == 500
    assert body == {"error": "Internal error", "request_id": Context.aws_request_id}
    assert "secret table" in capsys.readouterr().out


# Start, log and metrics


@pytest.mark.parametrize(
    "name", ["DYNAMODB_TABLE", "FILES_BUCKET", "DELIVER_WEBHOOK_FUNCTION", "JWT_SECRET"]
)
def test_a_missing_setting_stops_the_container_and_is_named(name: str) -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if key != name}
    run = subprocess.run(
        [sys.executable, str(ROOT / "functions/status/status.py")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
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
    run = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
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
    status: ModuleType, capsys: pytest.CaptureFixture[str], event: dict[str, Any], result: str
) -> None:
    put(assembly())
    ask(status, event)
    out = capsys.readouterr().out
    (line,) = [line for line in log_lines(out) if line.get("message") == "status_check"]
    assert line["result"] == result
    assert line["assembly_id"] == event["assemblyId"]
    assert metric_names(out).count("StatusChecks") == 1
    assert "StatusLatency" in metric_names(out)


def test_a_failed_look_up_is_logged_as_error(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status.dynamodb, "get_item", raising("InternalServerError"))
    ask(status, MINE)
    lines = log_lines(capsys.readouterr().out)
    assert [line["result"] for line in lines if line.get("message") == "status_check"] == ["error"]


def test_tokens_are_not_logged(status: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither good nor bad tokens reach the log."""
    bad = token()[:-6] + "AAAAAA"
    ask(status, http("GET", "/status/asm-1"))
    ask(status, http("GET", "/status/asm-1", bearer=bad))
    assert "eyJ" not in capsys.readouterr().out


# Webhooks on demand

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
    ("item", "code"),
    [
        (assembly(user={"userId": "user-2"}), 403),
        (assembly(ok=None), 409),
        (assembly(ttl=5), 404),
    ],
    ids=["foreign", "running", "expired"],
)
def test_a_refused_trigger_invokes_no_delivery(
    status: ModuleType, item: dict[str, Any], code: int
) -> None:
    """Only the owner of an ended assembly can trigger it."""
    put(item)
    asked = delivering(status, SENT)
    assert ask(status, TRIGGER)[0] == code
    assert asked == []


@pytest.mark.parametrize(
    ("refusal", "code", "later"),
    [
        ({"refused": "too_soon", "retry_after": 17}, 429, "17"),
        ({"refused": "not_ended"}, 409, "2"),
        ({"refused": "not_found"}, 404, "2"),
    ],
)
def test_a_refusal_of_deliver_webhook_has_its_own_status(
    status: ModuleType, refusal: dict[str, Any], code: int, later: str
) -> None:
    """With the time to try again."""
    put(assembly())
    delivering(status, refusal)
    answered, body, headers = ask(status, TRIGGER)
    assert (answered, headers["Retry-After"]) == (code, later)
    assert body["assembly_id"] == "asm-1"


@pytest.mark.parametrize(
    ("error", "code"),
    [("ProvisionedThroughputExceededException", 503), ("Sandbox.Timedout", 500)],
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


# Documented events

CASES = case_paths(Function("status", ROOT / "functions/status"))


@pytest.mark.parametrize("name", CASES)
def test_each_example_event_gets_its_expected_answer(name: str) -> None:
    case = Case.read(Function("status", ROOT / "functions/status"), CASES[name])
    assert case.expect is not None
    assert run_in_process(case, Repository(ROOT)).problems == []


# Random events

EVENTS = events(
    "assemblyId", "assemblyIds", "userId", "triggerWebhook", "Records", "requestContext",
    "httpMethod", "path", "rawPath", "headers", "multiValueHeaders", "body", "http", "method",
    "queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "authorizer",
    "isBase64Encoded", "jwt", "claims", "elb",
)  # fmt: skip


@settings(
    max_examples=examples(400),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
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
