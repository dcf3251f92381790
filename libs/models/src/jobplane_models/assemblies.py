"""The assembly document: what a status look-up answers and a webhook delivers."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from jobplane_models._base import OR_NULL, IsoTime, Open

type OkCode = Literal[
    "ASSEMBLY_UPLOADING", "ASSEMBLY_EXECUTING", "ASSEMBLY_COMPLETED", "ASSEMBLY_CANCELED"
]
type WebhookStatus = Literal[
    "pending", "delivered", "retrying", "failed", "disabled", "unsigned_refused", "refused"
]


class AssemblyUser(Open):
    """Who a job belongs to."""

    model_config = ConfigDict(populate_by_name=True)

    user_id: str = Field(alias="userId")


class AssemblyFile(Open):
    """What uploads and results share. `size` in bytes; `ext` without dot."""

    id: str
    name: str
    basename: str
    ext: str
    size: int
    mime: str
    field: str
    meta: dict[str, Any] | None = None


class AssemblyUpload(AssemblyFile):
    """One input file; `id` is `upload_<uuid>`."""

    md5hash: str


class AssemblyResult(AssemblyFile):
    """One output file; `id` is `result_<uuid>`, `original_id` the upload that it came from."""

    original_id: str
    ssl_url: str
    md5hash: Annotated[str | None, OR_NULL] = None


class AssemblyWebhook(Open):
    """What became of the notification.

    A stored document has `status` and what the last attempt came to. The answer to a trigger adds
    `delivered`, `status_code` and `error` of this delivery, whose own `attempts` it counts; it has
    no `status` where no webhook is configured. `missing` names the settings that do not exist yet.
    """

    status: WebhookStatus | None = None
    attempts: int = 0
    last_response_code: int | None = None
    last_attempt_at: IsoTime | None = None
    delivered: bool | None = None
    status_code: int | None = None
    error: str | None = None
    missing: list[str] | None = None


class AssemblyDocument(Open):
    """The public state of a job.

    Times are ISO-8601 UTC with milliseconds; `execution_duration` is in seconds, sizes in bytes,
    `progress_pct` 0–100. Never both `ok` and `error`: an unfinished document has neither, or a
    running `ok` code where the deployment asks for extended codes.
    """

    assembly_id: str
    ok: OkCode | None = None
    error: str | None = None
    message: str
    uploads: list[AssemblyUpload] = []
    results: dict[str, list[AssemblyResult]] = {}
    bytes_expected: int = 0
    bytes_received: int = 0
    bytes_usage: int = 0
    execution_duration: float | None = None
    execution_start: IsoTime | None = None
    last_job_completed: IsoTime | None = None
    template_id: str
    branch: str = "main"
    user: AssemblyUser | None = None
    created_at: IsoTime
    updated_at: IsoTime
    progress_pct: float | None = None
    steps_total: int | None = None
    steps_completed: int | None = None
    current_step: str | None = None
    warnings: list[str] = []
    webhook: AssemblyWebhook | None = None
    request_id: str | None = None
    stalled: bool = False

    @property
    def completed(self) -> bool:
        """Whether the job ended well."""
        return self.ok == "ASSEMBLY_COMPLETED" and not self.error

    @property
    def terminal(self) -> bool:
        """Whether the job has ended, one way or another."""
        return bool(self.error) or self.ok in ("ASSEMBLY_COMPLETED", "ASSEMBLY_CANCELED")
