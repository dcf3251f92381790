"""Makes jobs of what arrives under `inbox/` of the files bucket: JSON messages and e-mails.

Trigger: the EventBridge rule for new objects there. A JSON object has
`{"tenant", "user", "project", "thread", "instruction", "attachments"?, "id"?}`. Anything else is an
e-mail (RFC 822): its recipient `project+user@domain` names the workspace, and MAIL_DOMAINS the
tenant; its thread is the first message of the conversation; its attachments become objects.
Result: `{outcome, requestId?, reason?}`; `outcome` is queued, known (it was here before), refused
or gone. Errors: ValidationError for an event that names no such object; errors of AWS's services.
Each message is one row of `requests`, once: its id is made of the Message-ID, of `id`, or of the
content. What is refused is moved to `inbox-refused/`, with the reason in its metadata.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import default as policy
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from jobplane_keys import (
    CLIENT_OPTIONS,
    DEFAULT_TABLE_PREFIX,
    IN_FLIGHT_SHARDS,
    TENANT_SHARDS,
    ValidationError,
    checked_id,
    checked_input,
    is_request_id,
    owner_key,
    requests_table,
    s3_options,
    strict_json,
    upload_prefix,
)
from jobplane_leases.instructions import enqueue_instruction
from jobplane_telemetry import Telemetry

REQUESTS = requests_table(os.environ.get("TABLE_PREFIX", DEFAULT_TABLE_PREFIX))
FILES_BUCKET = os.environ["FILES_BUCKET"]
# `domain=tenant`, with commas: the tenant whose users have the addresses of a domain.
TENANTS = dict(pair.strip().split("=", 1) for pair in os.environ["MAIL_DOMAINS"].split(",") if pair)
IN_FLIGHT_PARTITIONS = int(os.environ.get("IN_FLIGHT_SHARDS", IN_FLIGHT_SHARDS))
TENANT_PARTITIONS = int(os.environ.get("TENANT_SHARDS", TENANT_SHARDS))

INBOX, REFUSED, ATTACHMENTS = "inbox/", "inbox-refused/", "attachments/"
MAX_OBJECT_BYTES = 25 * 1024 * 1024
MAX_JSON_BYTES = 1024 * 1024
MAX_TEXT_LENGTH = 100_000
MAX_SUBJECT_LENGTH = 1000
MAX_ATTACHMENTS = 50
MAX_PARTS = 400
MAX_NAME_LENGTH = 60
MAX_REASON_LENGTH = 400
MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,900}>")
ADDRESS = re.compile(r"(?P<project>[A-Za-z0-9._-]{1,64})\+(?P<user>[A-Za-z0-9._+-]{1,64})")
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
VERDICT = re.compile(r"\b(spf|dkim|dmarc)=([a-z]+)")
# SES writes these at the top of a message, above those that its sender may have written.
SCANS = ("X-SES-Spam-Verdict", "X-SES-Virus-Verdict")

telemetry = Telemetry("intake")
session = botocore.session.get_session()
dynamodb: Any = session.create_client("dynamodb", config=Config(**CLIENT_OPTIONS))
s3: Any = session.create_client("s3", config=Config(**CLIENT_OPTIONS, **s3_options(os.environ)))


class RefusedMessageError(Exception):
    """The message starts no job; the text says why."""


@dataclass(frozen=True)
class Instruction:
    """A message as the job that it starts. `files` are to be stored, by their keys."""

    tenant: str
    user: str
    request_id: str
    payload: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


class Text(HTMLParser):
    """The text of HTML, without that of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in ("script", "style")
        self.parts.append("\n" if tag in ("br", "p", "div", "tr", "li") else "")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def key_of(event: Any) -> str:
    """The key of the object that an event names. Raises ValidationError."""
    detail = checked_input(checked_input(event).get("detail"))
    found = detail.get("object")
    key = found.get("key") if isinstance(found, Mapping) else None
    if (
        not isinstance(key, str)
        or not key.startswith(INBOX)
        or len(key.encode(errors="replace")) > 1024
    ):
        raise ValidationError("detail.object.key", f"a key below {INBOX} is required")
    return key


def digest(content: str | bytes) -> str:
    """A name for what identifies a message."""
    body = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
    return sha256(body).hexdigest()[:32]


def instruction_of(body: bytes) -> Instruction:
    """The job of an object's content. Raises RefusedMessageError."""
    try:
        return of_json(body) if body.lstrip()[:1] == b"{" else of_mail(body)
    except ValidationError as error:
        raise RefusedMessageError(str(error)) from error


def of_json(body: bytes) -> Instruction:
    """The job of a JSON message. Raises RefusedMessageError and ValidationError."""
    if len(body) > MAX_JSON_BYTES:
        raise RefusedMessageError(f"The message has more than {MAX_JSON_BYTES} bytes")
    try:
        content = strict_json(body)
    except ValueError as error:
        raise RefusedMessageError("The message begins with { and is not JSON") from error
    names = {"tenant", "user", "project", "thread", "instruction", "attachments", "id"}
    if unknown := sorted(content.keys() - names):
        raise ValidationError(unknown[0][:100], f"unknown; known are {', '.join(sorted(names))}")
    if "instruction" not in content:
        raise ValidationError("instruction", "a JSON value is required")
    if "id" in content and not is_request_id(content["id"]):
        raise ValidationError("id", "expected 1 to 128 of A-Z a-z 0-9 . _ : -")
    tenant, user = checked_id(content, "tenant"), checked_id(content, "user")
    payload = {
        "project": checked_id(content, "project"),
        "thread": checked_id(content, "thread"),
        "instruction": content["instruction"],
        "attachments": [{"key": key} for key in attached(content, owner_key(tenant, user))],
    }
    return Instruction(tenant, user, content.get("id") or f"json-{digest(body)}", payload)


def attached(content: Mapping[str, Any], owner: str) -> Iterator[str]:
    """The keys of a JSON message's attachments. Raises ValidationError for another user's."""
    found = content.get("attachments", [])
    if not isinstance(found, list):
        raise ValidationError("attachments", 'a list of {"key"} is required')
    for number, each in enumerate(found):
        key = each.get("key") if isinstance(each, dict) and each.keys() == {"key"} else None
        if not isinstance(key, str) or not key.startswith(upload_prefix(owner)):
            expected = f"a key below {upload_prefix(owner)}, the user's uploads, is required"
            raise ValidationError(f"attachments.{number}.key", expected)
        yield key


def of_mail(body: bytes) -> Instruction:
    """The job of an e-mail. Raises RefusedMessageError and ValidationError."""
    try:
        mail = message_from_bytes(body, policy=policy)
        require_accepted(mail)
        tenant, project, user = recipient_of(mail)
        own = ids_in(mail, "Message-ID")[:1]
        request_id = f"mail-{digest(own[0] if own else body)}"
        first = [*ids_in(mail, "References"), *ids_in(mail, "In-Reply-To"), *own, request_id][0]
        senders = addresses(mail, "From")
        content = {
            "from": senders[0].addr_spec if senders else None,
            "subject": str(mail.get("Subject", ""))[:MAX_SUBJECT_LENGTH],
            "text": text_of(mail),
        }
        folder = f"{ATTACHMENTS}{digest(owner_key(tenant, user))}/{request_id}"
        files = dict(files_of(mail, folder))
    # The parser defers most faults to reading a header or a part, and recurses into parts.
    except (MessageError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, ValidationError):
            raise
        raise RefusedMessageError(f"The e-mail is malformed ({type(error).__name__})") from error
    except RecursionError as error:
        raise RefusedMessageError("The e-mail is nested too deeply") from error
    payload = {
        "project": project,
        "thread": f"mail-{digest(first)}",
        "instruction": content,
        "attachments": [{"key": key} for key in files],
    }
    return Instruction(tenant, user, request_id, payload, files)


def require_accepted(mail: EmailMessage) -> None:
    """Raises RefusedMessageError for what the receiving server has found to be spam or forged."""
    for name in SCANS:
        if str(mail.get(name, "")).strip().upper() == "FAIL":
            raise RefusedMessageError(f"{name} is FAIL")
    verdicts = dict(VERDICT.findall(str(mail.get("Authentication-Results", "")).lower()))
    passed = "pass" in (verdicts.get("spf"), verdicts.get("dkim"))
    failed = "fail" in (verdicts.get("spf"), verdicts.get("dkim"))
    if verdicts.get("dmarc") == "fail" or (failed and not passed):
        raise RefusedMessageError("The sender's domain did not send it (SPF, DKIM, DMARC)")
    if str(mail.get("Auto-Submitted", "no")).strip().lower().startswith("auto-replied"):
        raise RefusedMessageError("It is an automatic reply")


def recipient_of(mail: EmailMessage) -> tuple[str, str, str]:
    """Tenant, project and user of the recipient. Raises RefusedMessageError."""
    found = {
        (TENANTS[each.domain.lower()], each.username)
        for each in (*addresses(mail, "To"), *addresses(mail, "Cc"))
        if each.domain.lower() in TENANTS
    }
    if len(found) != 1:
        known = ", ".join(sorted(TENANTS)) or "none: the stage parameter mailDomains is empty"
        text = "It has several recipients" if found else "It has no recipient"
        raise RefusedMessageError(f"{text} of this stage's domains ({known})")
    ((tenant, name),) = found
    match = ADDRESS.fullmatch(name)
    if match is None:
        raise RefusedMessageError("The recipient is not project+user@domain")
    return tenant, match["project"], match["user"]


def addresses(mail: EmailMessage, name: str) -> list[Address]:
    """The addresses of a header, those in groups included."""
    return [each for header in mail.get_all(name, []) for each in header.addresses]


def ids_in(mail: EmailMessage, name: str) -> list[str]:
    """The message ids of a header, in their order."""
    return MESSAGE_ID.findall(str(mail.get(name, "")))


def text_of(mail: EmailMessage) -> str:
    """What the sender wrote: the plain text, or that of the HTML. Raises RefusedMessageError."""
    part = mail.get_body(("plain", "html"))
    if part is None:
        return ""
    text = str(part.get_content())
    if part.get_content_subtype() == "html":
        parser = Text()
        parser.feed(text)
        text = "".join(parser.parts)
    if len(text) > MAX_TEXT_LENGTH:
        raise RefusedMessageError(f"The text has more than {MAX_TEXT_LENGTH:,} characters")
    return text.strip()


def files_of(mail: EmailMessage, folder: str) -> Iterator[tuple[str, bytes]]:
    """Key and content of each attachment. Raises RefusedMessageError if there are too many."""
    if sum(1 for _ in mail.walk()) > MAX_PARTS:
        raise RefusedMessageError(f"The e-mail has more than {MAX_PARTS} parts")
    is_file = not mail.is_multipart() and mail.get_content_maintype() != "text"
    for number, part in enumerate([mail] if is_file else mail.iter_attachments(), 1):
        if number > MAX_ATTACHMENTS:
            raise RefusedMessageError(f"The e-mail has more than {MAX_ATTACHMENTS} attachments")
        content = part.get_content()
        if isinstance(content, EmailMessage):
            content = content.as_bytes()
        body = content if isinstance(content, bytes) else str(content).encode(errors="replace")
        name = NOT_IN_NAMES.sub("-", part.get_filename() or "")[-MAX_NAME_LENGTH:].strip(".-")
        yield f"{folder}/{number}-{name or 'file'}", body


def read_object(key: str) -> bytes | None:
    """The content of an object; None if it is gone. Raises RefusedMessageError for a large one."""
    try:
        found = s3.get_object(Bucket=FILES_BUCKET, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return None
        raise
    with found["Body"] as body:
        if found["ContentLength"] > MAX_OBJECT_BYTES:
            raise RefusedMessageError(f"It has more than {MAX_OBJECT_BYTES:,} bytes")
        content: bytes = body.read()
    return content


def put_object(key: str, body: bytes) -> None:
    """Store an attachment, or a payload."""
    s3.put_object(Bucket=FILES_BUCKET, Key=key, Body=body)


def refuse(key: str, reason: str) -> None:
    """Move an object to `inbox-refused/`, with the reason in its metadata."""
    s3.copy_object(
        Bucket=FILES_BUCKET,
        Key=REFUSED + key.removeprefix(INBOX),
        CopySource={"Bucket": FILES_BUCKET, "Key": key},
        MetadataDirective="REPLACE",
        Metadata={"reason": reason},
    )
    s3.delete_object(Bucket=FILES_BUCKET, Key=key)


def enqueue(found: Instruction, now: float) -> bool:
    """Store a message's attachments, then its job; whether the job is new.

    Raises ValidationError for what the job flow does not take.
    """
    for key, body in found.files.items():
        put_object(key, body)
    return enqueue_instruction(
        dynamodb,
        REQUESTS,
        tenant_id=found.tenant,
        user_id=found.user,
        request_id=found.request_id,
        payload=found.payload,
        put_object=put_object,
        now=now,
        in_flight_shards=IN_FLIGHT_PARTITIONS,
        tenant_shards=TENANT_PARTITIONS,
    ).done


@telemetry.handler
def handler(event: Any, context: Any) -> dict[str, Any]:
    key = key_of(event)
    try:
        body = read_object(key)
        if body is None:
            return {"outcome": "gone"}
        found = instruction_of(body)
        telemetry.bind(request_id=found.request_id, tenant_id=found.tenant, user_id=found.user)
        try:
            is_new = enqueue(found, time.time())
        except ValidationError as error:
            raise RefusedMessageError(str(error)) from error
    except RefusedMessageError as error:
        reason = str(error).encode("ascii", "replace").decode()[:MAX_REASON_LENGTH]
        telemetry.metric("MessageRefused")
        telemetry.warning("message refused", key=key, reason=reason)
        refuse(key, reason)
        return {"outcome": "refused", "reason": reason}
    telemetry.info("message accepted", key=key, is_new=is_new)
    return {"outcome": "queued" if is_new else "known", "requestId": found.request_id}
