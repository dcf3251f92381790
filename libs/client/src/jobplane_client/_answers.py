"""Reads the answers of the status function, which are the same by HTTP and by invoke."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from pydantic import ValidationError

from jobplane_client._errors import (
    BadPayloadError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    ServiceUnavailableError,
    UnauthorizedError,
)
from jobplane_models.assemblies import AssemblyDocument

MAX_RETRY_AFTER_SECONDS = 3600.0

_REFUSALS: Mapping[int, type[RefusedError]] = {
    400: InvalidRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: HTTP status, headers with names in lower case, and body."""

    status: int
    headers: Mapping[str, str]
    body: str | bytes = field(repr=False)

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait by the header Retry-After; None if it is missing or not positive."""
        return retry_after_seconds(self.headers.get("retry-after"))


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """The result of sending a webhook on request."""

    delivered: bool
    attempts: int
    status_code: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class NotifiedStatus:
    """A document and the delivery of its webhook; None if the assembly has no webhook."""

    document: AssemblyDocument
    delivery: WebhookDelivery | None


def document_of(answer: Answer, assembly_id: str) -> AssemblyDocument:
    """The requested document. Raises RefusedError or BadPayloadError."""
    return to_document(accepted(answer, dict, "assembly_id"), assembly_id)


def notified_status_of(answer: Answer, assembly_id: str) -> NotifiedStatus:
    """The document and the webhook's delivery. Raises RefusedError or BadPayloadError."""
    body = accepted(answer, dict, "assembly_id")
    outcome = body.get("webhook")
    delivery = None
    if isinstance(outcome, dict) and "delivered" in outcome:
        delivery = WebhookDelivery(
            delivered=outcome["delivered"] is True,
            attempts=int(outcome.get("attempts") or 0),
            status_code=outcome.get("status_code"),
            error=outcome.get("error"),
        )
        if "status" not in outcome:
            del body["webhook"]
    return NotifiedStatus(to_document(body, assembly_id), delivery)


def statuses_of(answer: Answer) -> Mapping[str, Any]:
    """Unparsed documents by id, None for missing and foreign ones.

    Raises RefusedError or BadPayloadError.
    """
    statuses = accepted(answer, dict).get("statuses")
    if not isinstance(statuses, dict):
        raise BadPayloadError("the answer has no field statuses")
    return statuses


def to_document(value: object, assembly_id: str) -> AssemblyDocument:
    """The document as an object. Raises BadPayloadError if it is malformed or has another id."""
    try:
        document = AssemblyDocument.model_validate(value)
    except ValidationError as error:
        faults = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors()[:5])
        raise BadPayloadError(
            f"the document of assembly {assembly_id} is malformed: {faults}"
        ) from error
    if document.assembly_id != assembly_id:
        raise BadPayloadError(
            f"the answer is about assembly {document.assembly_id}, not {assembly_id}"
        )
    return document


def retry_after_seconds(text: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; None if it holds neither.

    At most an hour.
    """
    if not text:
        return None
    if text.strip().isdecimal():
        seconds = float(text)
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (OverflowError, ValueError):
            return None
    return min(seconds, MAX_RETRY_AFTER_SECONDS) if seconds > 0 else None


def accepted[T](answer: Answer, kind: type[T], own: str | None = None) -> T:
    """The content of an answer with status 200 or 202, a JSON value of this kind.

    `own` is a key that each 404 of the function has: another 404 is a gateway's, for an unknown
    path. Raises RefusedError or BadPayloadError.
    """
    if answer.status not in (200, 202):
        _refuse(answer, own)
    content = _json(answer.body)
    if not isinstance(content, kind):
        what = "object" if kind is dict else kind.__name__
        raise BadPayloadError(f"the answer is not a JSON {what}")
    return content


def _refuse(answer: Answer, own: str | None) -> NoReturn:
    content = _json(answer.body)
    body: dict[str, Any] = content if isinstance(content, dict) else {}
    error = body.get("error")
    detail = error if isinstance(error, dict) else body
    texts = [error, detail.get("message"), f"the service answered with status {answer.status}"]
    kind = _REFUSALS.get(answer.status, RefusedError)
    if answer.status >= 500:
        kind = ServiceUnavailableError
    elif answer.status == 404 and (own is None or own not in body):
        kind, texts = RefusedError, ["there is no status service at this URL; check base_url"]
    raise kind(
        next(text for text in texts if isinstance(text, str) and text),
        code=detail.get("code") if isinstance(detail.get("code"), str) else None,
        status_code=answer.status,
        retry_after=answer.retry_after,
        fields=_faults(body) or _faults(detail),
    )


def _faults(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    for value in body.values():
        if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
            return [part for part in value if "field" in part]
    return []


def _json(text: str | bytes) -> Any:
    """The value of a JSON text; None if it is malformed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
