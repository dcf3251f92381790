"""Assembly look-ups: what the status function is asked over HTTP or by invoke, and its answers."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from jobplane_models._base import CAMEL, AssemblyId, Input, IsoTime, Open
from jobplane_models.assemblies import AssemblyDocument, AssemblyUser, AssemblyWebhook, OkCode

MAX_BATCH = 100
MAX_PAGE = 100

UserId = Annotated[str, Field(min_length=1, max_length=256)]
BatchIds = Annotated[list[AssemblyId], Field(max_length=MAX_BATCH)]


class StatusInvocation(Input):
    """A direct invoke about one assembly; IAM vouches for the `userId`."""

    model_config = CAMEL

    assembly_id: AssemblyId
    user_id: UserId | None = None
    trigger_webhook: bool | None = None


class BatchInvocation(Input):
    """A direct invoke about several assemblies; with `assemblyId` as well it is about that one."""

    model_config = CAMEL | ConfigDict(json_schema_extra={"not": {"required": ["assemblyId"]}})

    assembly_ids: BatchIds
    user_id: UserId | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_about_several(cls, given: Any) -> Any:
        if isinstance(given, dict) and "assemblyId" in given:
            raise ValueError("assemblyId names one assembly")
        return given


class BatchRequest(Input):
    """The body of `POST /status/batch`."""

    model_config = CAMEL

    assembly_ids: BatchIds


class BatchAnswer(Open):
    """Documents by id; null for what is not there or not the caller's."""

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
    stalled: bool | None = None


class AssemblyPage(Open):
    """The caller's own assemblies, newest first; `next` is null on the last page."""

    assemblies: list[AssemblySummary]
    next: str | None


class Problem(Open):
    """One field at fault."""

    field: str
    message: str


class Refusal(Open):
    """Why a request is refused. `request_id` is that of the invocation, for questions about it;
    `fits` is how many of a batch's ids, from the first on, one answer can hold.
    """

    error: str
    problems: list[Problem] | None = None
    assembly_id: AssemblyId | None = None
    request_id: str | None = None
    fits: int | None = None


class GatewayRefusal(Open):
    """What API Gateway answers by itself, before or in place of the function."""

    message: str


class ConnectAnswer(Open):
    """The body that answers a handshake which was accepted."""

    message: Literal["Connected successfully"]


class ConnectRefusal(Open):
    """The body that answers a handshake which was not."""

    error: str
    code: Literal["UNAUTHORIZED", "RATE_LIMITED", "INTERNAL_ERROR"]
