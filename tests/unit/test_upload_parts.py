"""upload-parts: uploads in parts, their owner, and the requests of @uppy/aws-s3."""

import base64
import hashlib
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from moto.s3 import models

from jobplane.trying.inprocess import InProcess
from jobplane_client import mint_token

MULTIPART = "/s3/multipart/{uploadId}"
PART = b"x" * 5
TAG = f'"{hashlib.md5(PART, usedforsecurity=False).hexdigest()}"'
ABSENT = {"error": "Upload not found: begin it again"}


class Uploads:
    """The function, as a user of tenant-1 calls it."""

    def __init__(self, aws: InProcess, user: str = "user-1") -> None:
        self.aws = aws
        self.module: ModuleType = aws.load("upload-parts")
        self.token = mint_token(aws.jwt_secret, user=user, tenant="tenant-1")

    def __call__(self, route: str, body: Any = None, path: Any = None, **query: str) -> Any:
        """Status and content of an answer."""
        event = {
            "routeKey": route,
            "headers": {"authorization": f"Bearer {self.token}"},
            "pathParameters": path,
            "queryStringParameters": query,
            "body": json.dumps(body) if isinstance(body, dict) else body,
        }
        answer = self.module.handler(event, self.aws.context("upload-parts"))
        assert answer["headers"]["Cache-Control"] == "no-store"
        return answer["statusCode"], json.loads(answer["body"])

    def of(self, route: str, upload: dict[str, str], body: Any = None, **given: Any) -> Any:
        """Status and content of an answer about an upload."""
        path = {"uploadId": upload["uploadId"]} | given.pop("path", {})
        return self(route, body, path, key=upload["key"], **given)

    def begun(self, **fields: Any) -> dict[str, Any]:
        status, upload = self("POST /s3/multipart", {"type": "video/mp4"} | fields)
        assert status == 200
        made: dict[str, Any] = upload
        return made

    def send(self, upload: dict[str, str], count: int) -> list[dict[str, Any]]:
        """Send small parts; their numbers and ETags."""
        s3, target = self.aws.client("s3"), {"Key": upload["key"], "UploadId": upload["uploadId"]}
        target |= {"Bucket": self.module.FILES_BUCKET}
        return [
            {"PartNumber": n, "ETag": s3.upload_part(**target, PartNumber=n, Body=PART)["ETag"]}
            for n in range(1, count + 1)
        ]


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    monkeypatch.setattr(models, "S3_UPLOAD_PART_MIN_SIZE", 1)
    with InProcess() as aws:
        yield Uploads(aws)


@pytest.mark.parametrize(
    ("size", "count"),
    [(0, 0), (1, 1), (300 * 10**6, 36), (12 * 10**9, 1431), (5 * 1024**4, 9987)],
)
def test_a_file_has_parts_that_S3_takes(uploads: Uploads, size: int, count: int) -> None:
    upload = uploads.begun(size=size)
    assert -(-size // upload["partSize"]) == count


def test_every_size_up_to_the_limit_fits_10000_parts(uploads: Uploads) -> None:
    module = uploads.module
    for size in (*(2**power for power in range(46)), module.MAX_UPLOAD_BYTES):
        part = module.part_size(size)
        assert module.MIN_PART_BYTES <= part <= module.MAX_PART_BYTES
        assert part * module.MAX_PARTS >= size
    assert module.MAX_UPLOAD_BYTES == module.MAX_PARTS * module.MAX_PART_BYTES


@pytest.mark.parametrize("count", [1, 3, 1431])
def test_an_upload_is_listed_completed_and_found(uploads: Uploads, count: int) -> None:
    """1,431 parts of 8 MiB are 12 GB: more than one page of S3's list."""
    upload = uploads.begun()
    sent = uploads.send(upload, count)
    status, listed = uploads.of(f"GET {MULTIPART}", upload)
    assert status == 200
    assert listed == [part | {"Size": len(PART)} for part in sent]
    status, done = uploads.of(f"POST {MULTIPART}/complete", upload, {"parts": sent})
    digest = hashlib.md5(bytes.fromhex(TAG.strip('"')) * count, usedforsecurity=False)
    assert (status, done) == (
        200,
        {
            "location": f"s3://{uploads.module.FILES_BUCKET}/{upload['key']}",
            "key": upload["key"],
            "size": len(PART) * count,
            "mime": "video/mp4",
            "md5hash": digest.hexdigest(),
            "parts": count,
        },
    )
    assert uploads("GET /s3/upload", key=upload["key"]) == (200, done)


def test_a_completion_whose_answer_was_lost_can_be_repeated(uploads: Uploads) -> None:
    """Also by a page that lists the parts first, as Uppy does after a reload."""
    upload = uploads.begun()
    parts = uploads.send(upload, 3)
    first = uploads.of(f"POST {MULTIPART}/complete", upload, {"parts": parts})
    status, listed = uploads.of(f"GET {MULTIPART}", upload)
    assert (status, [part["PartNumber"] for part in listed]) == (200, [1, 2, 3])
    assert uploads.of(f"POST {MULTIPART}/complete", upload, {"parts": listed}) == first


def test_two_completions_at_a_time_have_one_answer(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one has listed the parts before the first one joins them."""
    upload = uploads.begun()
    parts, listed = uploads.send(upload, 2), uploads.module.stored_parts
    answers: list[Any] = []

    def complete() -> Any:
        return uploads.of(f"POST {MULTIPART}/complete", upload, {"parts": parts})

    def list_and_be_overtaken(target: Any) -> Any:
        found = listed(target)
        monkeypatch.setattr(uploads.module, "stored_parts", listed)
        answers.append(complete())
        return found

    monkeypatch.setattr(uploads.module, "stored_parts", list_and_be_overtaken)
    assert [complete()] == answers
    assert answers[0][0] == 200


def test_parts_in_any_order_and_as_text_are_completed(uploads: Uploads) -> None:
    upload = uploads.begun()
    parts = [part | {"PartNumber": str(part["PartNumber"])} for part in uploads.send(upload, 3)]
    body = base64.b64encode(json.dumps({"parts": parts[::-1]}).encode()).decode()
    event = {
        "routeKey": f"POST {MULTIPART}/complete",
        "headers": {"authorization": f"Bearer {uploads.token}"},
        "pathParameters": {"uploadId": upload["uploadId"]},
        "queryStringParameters": {"key": upload["key"]},
        "body": body,
        "isBase64Encoded": True,
    }
    answer = uploads.module.handler(event, uploads.aws.context("upload-parts"))
    assert answer["statusCode"] == 200


def test_an_aborted_upload_is_gone(uploads: Uploads) -> None:
    upload = uploads.begun()
    parts = uploads.send(upload, 1)
    for _ in range(2):
        assert uploads.of(f"DELETE {MULTIPART}", upload) == (200, {})
    for route in (f"GET {MULTIPART}", f"POST {MULTIPART}/complete"):
        assert uploads.of(route, upload, {"parts": parts}) == (404, ABSENT)


@pytest.mark.parametrize(
    "route",
    [
        f"GET {MULTIPART}", f"DELETE {MULTIPART}", f"POST {MULTIPART}/complete",
        f"GET {MULTIPART}/{{partNumber}}", "GET /s3/upload",
    ],
)  # fmt: skip
def test_another_users_upload_is_as_if_absent(uploads: Uploads, route: str) -> None:
    upload = uploads.begun()
    parts = uploads.send(upload, 1)
    other = Uploads(uploads.aws, "user-2")
    given: dict[str, Any] = {"body": {"parts": parts}, "path": {"partNumber": "1"}}
    assert other.of(route, upload, **given) == (404, ABSENT)
    for method in ("GET", "PUT", "POST", "DELETE"):
        asked = {"method": method, **upload, "partNumber": 1}
        assert other("POST /s3/sign", asked) == (404, ABSENT)
    assert uploads.of(f"GET {MULTIPART}", upload)[1] != []


@pytest.mark.parametrize("key", ["uploads/", "results/a", "{prefix}a/b", "{prefix}upload_1/../x"])
def test_only_keys_that_the_function_makes_are_taken(uploads: Uploads, key: str) -> None:
    prefix = uploads.begun()["key"].partition("upload_")[0]
    found = uploads("GET /s3/upload", key=key.format(prefix=prefix))
    assert found == (404, ABSENT)


@pytest.mark.parametrize("md5", ["5d41402abc4b2a76b9719d911017c592", "XUFAKrxLKna5cZ2REBfFkg=="])
def test_a_link_for_a_part_binds_its_md5(uploads: Uploads, md5: str) -> None:
    upload = uploads.begun()
    route, path = f"GET {MULTIPART}/{{partNumber}}", {"partNumber": "10000"}
    _, bound = uploads.of(route, upload, path=path, md5=md5)
    assert bound["headers"] == {"Content-MD5": "XUFAKrxLKna5cZ2REBfFkg=="}
    query = parse_qs(urlsplit(bound["url"]).query)
    assert query["X-Amz-SignedHeaders"] == ["content-md5;host"]
    assert (query["partNumber"], query["uploadId"]) == (["10000"], [upload["uploadId"]])
    _, free = uploads.of(route, upload, path=path)
    assert free["headers"] == {}
    assert (
        uploads("POST /s3/sign", upload | {"method": "PUT", "partNumber": 7, "md5": md5})[0] == 200
    )


def test_a_file_above_the_stages_limit_is_not_joined(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its parts are deleted."""
    upload = uploads.begun()
    parts = uploads.send(upload, 3)
    monkeypatch.setattr(uploads.module, "MAX_UPLOAD_BYTES", 14)
    text = "The file has 15 bytes; at most 14 are possible"
    assert uploads.of(f"POST {MULTIPART}/complete", upload, {"parts": parts}) == (
        413,
        {"error": text},
    )
    assert uploads.of(f"GET {MULTIPART}", upload) == (404, ABSENT)


def refused(code: str, status: int = 400) -> ClientError:
    found: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(found, "CompleteMultipartUpload")


@pytest.mark.parametrize(
    ("raised", "status", "text"),
    [
        (ReadTimeoutError(endpoint_url="s3"), 503, "complete the upload again"),
        (refused("InvalidPart"), 400, "list them"),
        (refused("InvalidPartOrder"), 400, "ascending"),
        (refused("EntityTooSmall"), 400, "at least 5242880 bytes"),
        (refused("EntityTooLarge"), 400, "smaller together"),
    ],
)
def test_what_S3_says_of_a_completion_names_the_remedy(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch, raised: Exception, status: int, text: str
) -> None:
    upload = uploads.begun()
    parts = uploads.send(upload, 1)

    def fail(**_: Any) -> None:
        raise raised

    monkeypatch.setattr(uploads.module.patient_s3(), "complete_multipart_upload", fail)
    code, content = uploads.of(f"POST {MULTIPART}/complete", upload, {"parts": parts})
    assert (code, text in content["error"]) == (status, True)


@pytest.mark.parametrize("operation", ["create_multipart_upload", "list_parts", "head_object"])
def test_other_errors_of_S3_are_raised(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Lambda counts them, and its alarm watches the count."""
    upload = uploads.begun()

    def fail(**_: Any) -> None:
        raise refused("InternalError", 500)

    monkeypatch.setattr(uploads.module.s3(), operation, fail)
    routes = {"create_multipart_upload": "POST /s3/multipart", "list_parts": f"GET {MULTIPART}"}
    with pytest.raises(ClientError, match="InternalError"):
        uploads.of(routes.get(operation, "GET /s3/upload"), upload)


PARTS = f"POST {MULTIPART}/complete"


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("POST /s3/multipart", "{", "body"),
        ("POST /s3/multipart", "[]", "body"),
        ("POST /s3/multipart", {"type": "film"}, "type"),
        ("POST /s3/multipart", {"size": -1}, "size"),
        ("POST /s3/multipart", {"size": 53_687_091_200_001}, "size"),
        ("POST /s3/multipart", {"size": True}, "size"),
        (PARTS, {}, "parts"),
        (PARTS, {"parts": [1]}, "parts[0].PartNumber"),
        (PARTS, {"parts": [{"PartNumber": 10_001, "ETag": TAG}]}, "parts[0].PartNumber"),
        (PARTS, {"parts": [{"PartNumber": 1}]}, "parts[0].ETag"),
        (PARTS, {"parts": [{"PartNumber": 1, "ETag": "\n"}]}, "parts[0].ETag"),
        (PARTS, {"parts": [{"PartNumber": 1, "ETag": TAG}] * 10_001}, "parts"),
        (f"GET {MULTIPART}/{{partNumber}}", None, "partNumber"),
        ("POST /s3/sign", {}, "method"),
        ("POST /s3/sign", {"method": "DELETE", "key": "a"}, "method"),
        ("POST /s3/sign", {"method": "PUT", "contentType": "a"}, "contentType"),
        ("POST /s3/sign", {"method": "PUT", "uploadId": "u"}, "key"),
    ],
)
def test_a_malformed_request_is_refused_with_its_field(
    uploads: Uploads, route: str, body: Any, field: str
) -> None:
    status, content = uploads.of(route, uploads.begun(), body, path={"partNumber": "0"})
    assert (status, [problem["field"] for problem in content["problems"]]) == (400, [field])


@pytest.mark.parametrize("event", [None, [], "GET", {}, {"headers": None}, {"headers": []}])
def test_an_event_without_a_token_gets_401(uploads: Uploads, event: Any) -> None:
    answer = uploads.module.handler(event, uploads.aws.context("upload-parts"))
    assert answer["statusCode"] == 401
    assert json.loads(answer["body"]) == {"error": "Authentication required"}


@pytest.mark.parametrize("route", ["PATCH /s3/multipart", None, {}, []])
def test_an_unknown_route_gets_404(uploads: Uploads, route: Any) -> None:
    assert uploads(route) == (404, {"error": "Unknown path"})


def test_a_form_limits_key_type_and_size(uploads: Uploads) -> None:
    status, form = uploads("GET /s3/params", type="image/png", filename="a.png")
    assert status == 200
    policy = json.loads(base64.b64decode(form["fields"]["policy"]))
    assert ["content-length-range", 0, 5 * 1024**3] in policy["conditions"]
    assert {"Content-Type": "image/png"} in policy["conditions"]
    assert {"key": form["fields"]["key"]} in policy["conditions"]
