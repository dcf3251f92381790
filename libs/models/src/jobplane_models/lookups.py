"""Look-ups over HTTP or by invoke, and the answers of the HTTP API."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from jobplane_keys import ErrorCode
from jobplane_models._base import CAMEL, AssemblyId, Input, IsoTime, Open
from jobplane_models.answers import RequestState
from jobplane_models.assemblies import AssemblyDocument, AssemblyUser, AssemblyWebhook, OkCode

MAX_BATCH = 100
MAX_PAGE = 100

UserId = Annotated[str, Field(min_length=1, max_length=256)]
BatchIds = Annotated[list[AssemblyId], Field(max_length=MAX_BATCH)]


class StatusInvocation(Input):
    """A direct invoke for one assembly; the caller's IAM role is trusted to set `userId`, and
    `tenantId` where several tenants may have a user of this id.
    """

    model_config = CAMEL

    assembly_id: AssemblyId
    user_id: UserId | None = None
    tenant_id: UserId | None = None
    trigger_webhook: bool | None = None


class BatchInvocation(Input):
    """A direct invoke for several assemblies; if it also has `assemblyId`, it is for that one."""

    model_config = CAMEL | ConfigDict(json_schema_extra={"not": {"required": ["assemblyId"]}})

    assembly_ids: BatchIds
    user_id: UserId | None = None
    tenant_id: UserId | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_about_several(cls, given: Any) -> Any:
        if isinstance(given, dict) and "assemblyId" in given:
            raise ValueError("an input with assemblyId is for one assembly")
        return given


class BatchRequest(Input):
    """The body of `POST /status/batch`."""

    model_config = CAMEL

    assembly_ids: BatchIds


class BatchAnswer(Open):
    """Documents by id; null for an assembly that does not exist or is another user's."""

    statuses: dict[str, AssemblyDocument | None]


class AssemblySummary(Open):
    """An assembly in a list: its document without files and warnings."""

    assembly_id: AssemblyId
    ok: OkCode | None = None
    error: str | None = None
    message: str
    bytes_expected: int | None = None
    bytes_received: int | None = None
    bytes_usage: int | None = None
    execution_duration: float | None = None
    execution_start: IsoTime | None = None
    last_job_completed: IsoTime | None = None
    template_id: str
    branch: str | None = None
    user: AssemblyUser | None = None
    created_at: IsoTime
    updated_at: IsoTime
    progress_pct: float | None = None
    steps_total: int | None = None
    steps_completed: int | None = None
    current_step: str | None = None
    webhook: AssemblyWebhook | None = None
    request_id: str | None = None
    execution: int | None = None
    stalled: bool | None = None


class AssemblyPage(Open):
    """The caller's assemblies, newest first; `next` is null on the last page."""

    assemblies: list[AssemblySummary]
    next: str | None


class AcceptedJob(Open):
    """The acknowledgement of a job; `status` is that of a job that exists already."""

    request_id: str
    status: str
    message: str
    assembly_id: AssemblyId | None = None
    execution: int | None = None


class PerformedAction(Open):
    """The result of a short action."""

    request_id: str
    status: Literal["completed"]
    result: dict[str, Any]


class ListedJob(RequestState):
    """A job in a list, without its result; `user_id` is in the list of a tenant."""

    tags: list[str]
    user_id: str | None = None


class JobPage(Open):
    """Jobs, newest first; `next` is null on the last page."""

    jobs: list[ListedJob]
    next: str | None


class Problem(Open):
    """One invalid field."""

    field: str
    message: str


class Refusal(Open):
    """Why a request was refused.

    `request_id` is the id of the invocation, which finds its log lines. `fits` is how many ids of
    a batch, from the first on, fit into one answer. `code`, `details` and `retryable` are those of
    a socket's error.
    """

    error: str
    problems: list[Problem] | None = None
    assembly_id: AssemblyId | None = None
    request_id: str | None = None
    fits: int | None = None
    code: ErrorCode | None = None
    details: list[dict[str, Any]] | dict[str, Any] | None = None
    retryable: bool | None = None
    retry_after_ms: int | None = None


class GatewayRefusal(Open):
    """An answer of API Gateway when the function was not invoked or has failed."""

    message: str


class ConnectAnswer(Open):
    """The body of the answer to an accepted handshake."""

    message: Literal["Connected successfully"]


class ConnectRefusal(Open):
    """The body of the answer to a refused handshake."""

    error: str
    code: Literal["UNAUTHORIZED", "RATE_LIMITED", "INTERNAL_ERROR"]
