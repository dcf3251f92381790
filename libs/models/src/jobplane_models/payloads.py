"""The payload of each socket action."""

import re
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from jobplane_keys import PROJECT_PATTERN
from jobplane_models._base import (
    WHOLE,
    Bytes,
    FileName,
    Md5,
    MimeType,
    RequestId,
    Strict,
    TemplateId,
    WorkspaceId,
)

MAX_FILES = 1000
MAX_REPORT_DAYS = 365
MAX_DELAY_SECONDS = 60
MAX_COUNT = 100_000
MAX_ATTACHMENTS = 100
MAX_FIELDS = 100
MAX_FIELDS_DEPTH = 32
MAX_SEQ = 2**53
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2999, 12, 31)


def _iso_date(value: object) -> date:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ValueError("expected a date as YYYY-MM-DD")
    day = date.fromisoformat(value)
    if not FIRST_DAY <= day <= LAST_DAY:
        raise ValueError(f"expected a date from {FIRST_DAY} to {LAST_DAY}")
    return day


def _shallow(fields: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [fields]
    for _ in range(MAX_FIELDS_DEPTH + 1):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [part for parts in inner for part in parts if isinstance(part, dict | list)]
    if level:
        raise ValueError(f"nested deeper than {MAX_FIELDS_DEPTH} levels; use fewer levels")
    return fields


UserId = Annotated[str, StringConstraints(max_length=128)]
ObjectKey = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
IsoDate = Annotated[date, BeforeValidator(_iso_date)]
Fields = Annotated[dict[str, Any], Field(max_length=MAX_FIELDS), AfterValidator(_shallow)]


class UploadFile(Strict):
    """A file that the client will upload; `md5hash` in hex or as a Content-MD5.

    `field` and `meta` are the client's own, and come back in the assembly's document.
    """

    name: FileName
    size: Bytes
    mime: MimeType = "application/octet-stream"
    md5hash: Md5
    field: Annotated[str, StringConstraints(min_length=1, max_length=128)] = "file"
    meta: Fields = {}

    @model_serializer(mode="wrap")
    def _as_sent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the client's own fields if it has sent none, as earlier versions store it."""
        stored: dict[str, Any] = serialize(self)
        if self.field == "file":
            del stored["field"]
        if not self.meta:
            del stored["meta"]
        return stored


class CreateUpload(Strict):
    """Asks for presigned URLs to upload the files of one assembly."""

    template_id: TemplateId
    files: Annotated[list[UploadFile], Field(min_length=1, max_length=MAX_FILES)]
    fields: Fields = {}


class UploadedFile(UploadFile):
    """A file that was uploaded under `key`."""

    key: ObjectKey


class ProcessAssembly(Strict):
    """Runs a template over uploaded files."""

    template_id: TemplateId
    uploads: Annotated[list[UploadedFile], Field(min_length=1, max_length=MAX_FILES)]
    fields: Fields = {}


class StoredPayload(Strict):
    """A payload that no message can carry: the key of an upload of the caller with its JSON."""

    payload_key: ObjectKey


class GenerateReport(Strict):
    """Asks for a report over the caller's tenant; both dates are included."""

    start_date: IsoDate
    end_date: IsoDate
    format: Literal["csv", "json"] = "json"
    group_by: Literal["day", "action", "status"] = "day"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        days = (self.end_date - self.start_date).days
        if days < 0:
            raise ValueError("end_date is before start_date")
        if days > MAX_REPORT_DAYS:
            raise ValueError(f"the range is longer than {MAX_REPORT_DAYS} days")
        return self


class Delay(Strict):
    """A job that waits and reports progress; it fails at the step `fail_at`."""

    seconds: Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS, allow_inf_nan=False)] = 1.0
    steps: Annotated[int, Field(ge=1, le=1000), WHOLE] = 10
    fail_at: Annotated[int, Field(ge=1, le=1000), WHOLE] | None = None
    transient: bool = False


class Count(Strict):
    """A job that emits the numbers from 1 to `to` as events, within about `seconds`."""

    to: Annotated[int, Field(ge=1, le=MAX_COUNT), WHOLE] = 10
    seconds: Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS, allow_inf_nan=False)] = 1.0


class ActionPayload(Strict):
    """The payload of an action that a package adds; its docstring is that of the action.

    `result` is the model of what the job returns. With a `limit`, so many of the action's jobs run
    at the same time at most, of all tenants, and with `per_minute` so many start in any minute.
    """

    result: ClassVar[type[BaseModel]]
    limit: ClassVar[int | None] = None
    per_minute: ClassVar[int | None] = None


class AttachedUpload(Strict):
    """An upload of the caller that belongs to an instruction."""

    key: ObjectKey


class Instruct(Strict):
    """Has the worker of a workspace, which is the caller's and the project's, do something.

    A workspace has one job at a time. An instruction of the same thread goes to the running job;
    one of another thread interrupts it. `instruction` is any JSON value.
    """

    project: Annotated[str, StringConstraints(pattern=f"^{PROJECT_PATTERN}$")]
    thread: WorkspaceId
    instruction: Any
    attachments: Annotated[list[AttachedUpload], Field(max_length=MAX_ATTACHMENTS)] = []


class RequestReference(Strict):
    """Names one request of the caller."""

    request_id: RequestId


class Authenticate(Strict):
    """A newer token, as a handshake takes it."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class Callback(Strict):
    """Returns a token with either a result or an error, for the job that waits for it."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 2, "maxProperties": 2})

    token: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    result: Any = None
    error: Annotated[str, StringConstraints(max_length=1000)] = ""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if len(self.model_fields_set & {"result", "error"}) != 1:
            raise ValueError("expected either 'result' or 'error'")
        return self


class Subscribe(RequestReference):
    """Subscribes to a request; the client already has the messages up to `since_seq`.

    With `since_event`, the answer has the events after that number: 0 asks for all.
    `user_id` is the request's owner, if that is another user of the tenant; this needs the
    permission `tenant:read`.
    """

    since_seq: Annotated[int, Field(ge=0, le=MAX_SEQ), WHOLE] | None = None
    since_event: Annotated[int, Field(ge=0, le=MAX_SEQ), WHOLE] | None = None
    user_id: UserId | None = None


class Unsubscribe(RequestReference):
    """Ends the subscription to a request."""

    user_id: UserId | None = None
