"""Uploads large files in parts, straight to S3, for their owner.

Trigger: the HTTP API's routes below `/s3`, as `@uppy/aws-s3` calls them at a companion, and
`POST /s3/sign` for its option `signRequest`; with a bearer token.
Result: 200 with keys, links and lists of parts; the content goes from the caller to S3.
Errors: 400 with all invalid fields, 401, 404 for an upload that is absent or another user's, 413,
503 while S3 still joins the parts; the errors of S3's and SSM's calls.
Writes `uploads/` in the files bucket.
"""

import base64
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError

from jobplane_keys import (
    CLIENT_OPTIONS,
    InvalidMd5Error,
    json_object,
    new_upload_id,
    normalise_md5,
    owner_key,
    s3_options,
    upload_prefix,
)
from jobplane_keys.http import (
    HttpAnswer,
    InvalidRequestError,
    RefusedRequestError,
    UnauthorizedError,
    http_answer,
    json_body,
)
from jobplane_telemetry import Telemetry
from jobplane_tokens import TokenError, TokenSettings, TokenVerifier, strip_bearer

FILES_BUCKET = os.environ["FILES_BUCKET"]
MAX_UPLOAD_BYTES = int(os.environ["MAX_UPLOAD_BYTES"])

# The limits of S3.
MAX_PARTS, MIN_PART_BYTES, MAX_PART_BYTES = 10_000, 5 * 1024**2, 5 * 1024**3
MAX_POST_BYTES = 5 * 1024**3
LINK_SECONDS = 3600
# S3 may join many parts for minutes, and API Gateway waits for 30 s.
JOIN_SECONDS = 24
UPLOAD_ID = re.compile(r"upload_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
S3_ID = re.compile(r"[A-Za-z0-9._~-]{1,1024}")
ENTITY_TAG = re.compile(r"[ -~]{1,100}")
MIME_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,63}/[A-Za-z0-9!#$&^_.+-]{1,63}")
DEFAULT_TYPE = "application/octet-stream"
# What S3 says of parts that can't be joined, and what to do.
JOIN_FAULTS = {
    "InvalidPart": "must be those that S3 has, with their ETags: list them, send others again",
    "InvalidPartOrder": "must be in ascending order, each once",
    "EntityTooSmall": f"must have at least {MIN_PART_BYTES} bytes each, except the last",
    "EntityTooLarge": "must be smaller together: S3 stores no larger object",
}

telemetry = Telemetry("upload-parts")
session = botocore.session.get_session()
ssm: Any = session.create_client("ssm", config=Config(**CLIENT_OPTIONS))
verifier = TokenVerifier(TokenSettings.from_environment(os.environ), ssm, telemetry.error)


class UploadNotFoundError(RefusedRequestError):
    """404: absent, expired, completed or another user's; the answer is the same for each."""

    def __init__(self) -> None:
        super().__init__(404, {"error": "Upload not found: begin it again"})


@dataclass(frozen=True, slots=True)
class Call:
    """One request: the prefix of its user's uploads, and its parameters."""

    prefix: str
    path: Mapping[str, Any]
    query: Mapping[str, Any]
    content: Mapping[str, Any]

    @property
    def key(self) -> str:
        return self.own(self.query.get("key"))

    @property
    def upload(self) -> dict[str, str]:
        """The parameters that name the upload in S3's calls. Raises RefusedRequestError."""
        key, upload_id = self.key, self.path.get("uploadId")
        if not isinstance(upload_id, str) or not S3_ID.fullmatch(upload_id):
            raise UploadNotFoundError
        return {"Bucket": FILES_BUCKET, "Key": key, "UploadId": upload_id}

    def own(self, key: Any) -> str:
        """The key, if this function may have given it to the user. Raises RefusedRequestError."""
        if not key or not isinstance(key, str):
            raise InvalidRequestError(
                ("key", "is required: the key from the answer to the creation")
            )
        if not key.startswith(self.prefix) or not UPLOAD_ID.fullmatch(key[len(self.prefix) :]):
            raise UploadNotFoundError
        return key

    def new(self) -> dict[str, str]:
        """The parameters that name a new object in S3's calls."""
        return {"Bucket": FILES_BUCKET, "Key": self.prefix + new_upload_id()}


def part_size(size: int) -> int:
    """Bytes of a part, in whole MiB, so that a file of `size` bytes has at most 10,000 parts."""
    least = max(8 * 1024**2, -(-size // MAX_PARTS))
    return min(-(-least // 1024**2) * 1024**2, MAX_PART_BYTES)


def type_of(value: Any, field: str) -> str:
    """A media type; that of unknown content for none. Raises InvalidRequestError."""
    if value is None or value == "":
        return DEFAULT_TYPE
    if not isinstance(value, str) or not MIME_TYPE.fullmatch(value):
        raise InvalidRequestError((field, "must be a media type such as video/mp4"))
    return value


def part_number_of(value: Any, field: str = "partNumber") -> int:
    """The number of a part. Raises InvalidRequestError."""
    number = (
        int(value) if isinstance(value, str) and re.fullmatch("[1-9][0-9]{0,4}", value) else value
    )
    if type(number) is not int or not 1 <= number <= MAX_PARTS:
        raise InvalidRequestError((field, f"must be a number from 1 to {MAX_PARTS:,}"))
    return number


def md5_of(value: Any) -> str:
    """An MD5 as hex digits. Raises InvalidRequestError."""
    try:
        return normalise_md5(value if isinstance(value, str) else "")
    except InvalidMd5Error as error:
        raise InvalidRequestError(
            ("md5", "must be 32 hex digits or a base64 Content-MD5")
        ) from error


def parts_of(given: Any) -> list[dict[str, Any]]:
    """The parts of a completion, in order. Raises InvalidRequestError."""
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_PARTS:
        raise InvalidRequestError(("parts", f"must be a list of 1 to {MAX_PARTS:,} parts"))
    parts = []
    for index, part in enumerate(given):
        number = part_number_of(json_object(part).get("PartNumber"), f"parts[{index}].PartNumber")
        tag = part.get("ETag")
        if not isinstance(tag, str) or not ENTITY_TAG.fullmatch(tag):
            raise InvalidRequestError((f"parts[{index}].ETag", "must be the ETag of S3's answer"))
        parts.append({"PartNumber": number, "ETag": tag})
    return sorted(parts, key=lambda part: part["PartNumber"])


@cache
def s3() -> Any:
    """The client of most calls, which also signs links."""
    return session.create_client("s3", config=Config(**CLIENT_OPTIONS, **s3_options(os.environ)))


@cache
def patient_s3() -> Any:
    """The client that completes uploads, without retries: the caller repeats a completion."""
    once = {"read_timeout": JOIN_SECONDS, "retries": {"total_max_attempts": 1}}
    options = {**CLIENT_OPTIONS, **s3_options(os.environ), **once}
    return session.create_client("s3", config=Config(**options))


def stored(key: str) -> dict[str, Any] | None:
    """What `process_assembly` needs to know of a stored upload; None if there is none.

    `md5hash` is the MD5 of an object that was sent whole. For one of parts it is what S3 makes of
    the parts' MD5s, with which `processor` compares it.
    """
    try:
        head = s3().head_object(Bucket=FILES_BUCKET, Key=key)
    except ClientError as error:
        # 403 is the answer to a role that may not list the bucket.
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):
            return None
        raise
    tag, _, count = head["ETag"].strip('"').partition("-")
    return {
        "location": f"s3://{FILES_BUCKET}/{key}",
        "key": key,
        "size": head["ContentLength"],
        "mime": head.get("ContentType", DEFAULT_TYPE),
        "md5hash": tag,
        "parts": int(count or 0),
    }


def stored_parts(upload: Mapping[str, str]) -> list[dict[str, Any]]:
    """The parts that S3 has. Raises UploadNotFoundError."""
    parts: list[dict[str, Any]] = []
    marker: dict[str, int] = {}
    while True:
        try:
            page = s3().list_parts(**upload, **marker)
        except ClientError as error:
            raise translated(error) from error
        parts += [
            {"PartNumber": part["PartNumber"], "Size": part["Size"], "ETag": part["ETag"]}
            for part in page.get("Parts", ())
        ]
        if not page.get("IsTruncated"):
            return parts
        marker = {"PartNumberMarker": page["NextPartNumberMarker"]}


def translated(error: ClientError) -> Exception:
    """The refusal that an error of S3 means for the caller, or else the error."""
    code = error.response["Error"]["Code"]
    if code == "NoSuchUpload":
        return UploadNotFoundError()
    if code in JOIN_FAULTS:
        return InvalidRequestError(("parts", JOIN_FAULTS[code]))
    return error


def create(call: Call) -> Any:
    """Begin an upload. With `size`, the answer has the size of its parts."""
    size = call.content.get("size")
    if isinstance(size, float) and size.is_integer():
        size = int(size)  # 5.0 is a whole number in JSON
    if size is not None and (type(size) is not int or not 0 <= size <= MAX_UPLOAD_BYTES):
        raise InvalidRequestError(("size", f"must be a number from 0 to {MAX_UPLOAD_BYTES:,}"))
    target = call.new()
    begun = s3().create_multipart_upload(
        **target, ContentType=type_of(call.content.get("type"), "type")
    )
    telemetry.info("upload begun", key=target["Key"])
    sized = {} if size is None else {"partSize": part_size(size)}
    return {"key": target["Key"], "uploadId": begun["UploadId"], **sized}


def parts(call: Call) -> Any:
    """The parts that S3 has. Those of a completed upload are as many as it was made of, since its
    caller may not have received the answer to the completion.
    """
    try:
        return stored_parts(call.upload)
    except UploadNotFoundError:
        found = stored(call.key)
        if not found or not found["parts"]:
            raise
        tag = f'"{found["md5hash"]}-{found["parts"]}"'
        return [{"PartNumber": n + 1, "Size": 0, "ETag": tag} for n in range(found["parts"])]


def sign_part(call: Call) -> Any:
    """A link to send one part; with `md5`, S3 accepts only a part with this MD5."""
    upload, number = call.upload, part_number_of(call.path.get("partNumber"))
    bound, headers = {}, {}
    if (md5 := call.query.get("md5")) is not None:
        digest = base64.b64encode(bytes.fromhex(md5_of(md5))).decode()
        bound, headers = {"ContentMD5": digest}, {"Content-MD5": digest}
    part = {**upload, "PartNumber": number, **bound}
    url = s3().generate_presigned_url("upload_part", Params=part, ExpiresIn=LINK_SECONDS)
    return {"method": "PUT", "url": url, "headers": headers, "expires": LINK_SECONDS}


def join(upload: Mapping[str, str], chosen: list[dict[str, Any]]) -> int:
    """Join parts; the number of bytes. Raises RefusedRequestError."""
    try:
        sizes = {part["PartNumber"]: part["Size"] for part in stored_parts(upload)}
        total: int = sum(sizes.get(part["PartNumber"], 0) for part in chosen)
        if total > MAX_UPLOAD_BYTES:
            s3().abort_multipart_upload(**upload)
            text = f"The file has {total:,} bytes; at most {MAX_UPLOAD_BYTES:,} are possible"
            raise RefusedRequestError(413, {"error": text})
        patient_s3().complete_multipart_upload(**upload, MultipartUpload={"Parts": chosen})
    except ClientError as error:
        raise translated(error) from error
    except ReadTimeoutError as error:
        text = "S3 is joining the parts: complete the upload again"
        raise RefusedRequestError(503, {"error": text}, {"Retry-After": "10"}) from error
    return total


def complete(call: Call) -> Any:
    """Join the parts. A repeated completion is answered like the first one."""
    upload, chosen = call.upload, parts_of(call.content.get("parts"))
    try:
        total = join(upload, chosen)
    except UploadNotFoundError:
        # Also when another completion was done since the parts were listed.
        if not (found := stored(upload["Key"])):
            raise
        return found
    telemetry.info("upload completed", key=upload["Key"], bytes=total, parts=len(chosen))
    return stored(upload["Key"])


def abort(call: Call) -> Any:
    """End an upload and delete its parts; succeeds also if it has ended."""
    upload = call.upload
    try:
        s3().abort_multipart_upload(**upload)
    except ClientError as error:
        if not isinstance(translated(error), UploadNotFoundError):
            raise
    return {}


def form(call: Call) -> Any:
    """The form by which a browser sends a small file whole."""
    mime = type_of(call.query.get("type"), "type")
    limits = ["content-length-range", 0, min(MAX_POST_BYTES, MAX_UPLOAD_BYTES)]
    made = s3().generate_presigned_post(
        **call.new(),
        Fields={"Content-Type": mime},
        Conditions=[{"Content-Type": mime}, limits],
        ExpiresIn=LINK_SECONDS,
    )
    return {"method": "POST", "expires": LINK_SECONDS, **made}


def sign(call: Call) -> Any:
    """A link for one of the calls that `signRequest` of `@uppy/aws-s3` is asked for."""
    asked = call.content
    client = s3()
    if asked.get("uploadId") is None:
        target = call.new()
        named, mime = {"key": target["Key"]}, type_of(asked.get("contentType"), "contentType")
        match asked.get("method"):
            case "POST":
                url = client.generate_presigned_url(
                    "create_multipart_upload", Params=target, ExpiresIn=LINK_SECONDS
                )
                return {"url": url, **named}
            case "PUT":
                url = client.generate_presigned_url(
                    "put_object", Params=target | {"ContentType": mime}, ExpiresIn=LINK_SECONDS
                )
                return {"url": url, **named, "headers": {"Content-Type": mime}}
        raise InvalidRequestError(("method", "must be POST or PUT without an uploadId"))
    same = Call(call.prefix, asked, asked, {})
    match asked.get("method"):
        case "PUT":
            return sign_part(same)
        case "GET":
            url = client.generate_presigned_url(
                "list_parts", Params=same.upload, ExpiresIn=LINK_SECONDS
            )
        case "POST":
            url = client.generate_presigned_url(
                "complete_multipart_upload", Params=same.upload, ExpiresIn=LINK_SECONDS
            )
        case "DELETE":
            url = client.generate_presigned_url(
                "abort_multipart_upload", Params=same.upload, ExpiresIn=LINK_SECONDS
            )
        case _:
            raise InvalidRequestError(("method", "must be GET, POST, PUT or DELETE"))
    return {"url": url}


def find(call: Call) -> Any:
    """What `process_assembly` needs to know of a stored upload."""
    if not (found := stored(call.key)):
        raise UploadNotFoundError
    return found


ROUTES: Mapping[str, Callable[[Call], Any]] = {
    "POST /s3/multipart": create,
    "GET /s3/multipart/{uploadId}": parts,
    "GET /s3/multipart/{uploadId}/{partNumber}": sign_part,
    "POST /s3/multipart/{uploadId}/complete": complete,
    "DELETE /s3/multipart/{uploadId}": abort,
    "GET /s3/params": form,
    "POST /s3/sign": sign,
    "GET /s3/upload": find,
}


def call_of(event: Mapping[str, Any]) -> Call:
    """The request, after its token is verified. Raises TokenError and RefusedRequestError."""
    bearer = json_object(event.get("headers")).get("authorization")
    identity = verifier.verify(strip_bearer(bearer) if isinstance(bearer, str) else None)
    telemetry.bind(user_id=identity.user_id, tenant_id=identity.tenant_id)
    return Call(
        upload_prefix(owner_key(identity.tenant_id, identity.user_id)),
        json_object(event.get("pathParameters")),
        json_object(event.get("queryStringParameters")),
        json_body(event) if event.get("body") else {},
    )


@telemetry.handler
def handler(event: Any, context: Any) -> HttpAnswer:
    try:
        event = json_object(event)
        call = call_of(event)
        route = ROUTES.get(str(event.get("routeKey")))
        if route is None:
            raise RefusedRequestError(404, {"error": "Unknown path"})
        return http_answer(200, route(call))
    except TokenError as error:
        telemetry.warning("token refused", reason=error.reason)
        return UnauthorizedError(error.reason).answer()
    except RefusedRequestError as error:
        telemetry.info("request refused", status_code=error.status, cause=str(error))
        return error.answer()
