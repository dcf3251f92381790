"""The assembly document, which status look-ups return and webhooks deliver."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from jobplane_models._base import ALWAYS, OR_NULL, IsoTime, Open

type OkCode = Literal[
    "ASSEMBLY_UPLOADING", "ASSEMBLY_EXECUTING", "ASSEMBLY_COMPLETED", "ASSEMBLY_CANCELED"
]
type WebhookStatus = Literal[
    "pending", "delivered", "retrying", "failed", "disabled", "unsigned_refused", "refused"
]


class AssemblyUser(Open):
    """The owner of a job."""

    model_config = ConfigDict(populate_by_name=True)

    user_id: str = Field(alias="userId")


class AssemblyFile(Open):
    """The common fields of uploads and results. `size` is in bytes, `ext` without a dot."""

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
    """The delivery of the assembly's webhook.

    A stored document has `status` and the result of the last attempt. The answer to a trigger has
    `delivered`, `status_code`, `error` and `attempts` of the delivery that it caused, and no
    `status` if no webhook is configured. `missing` lists the settings that do not exist.
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
    `progress_pct` 0–100. It never has both `ok` and `error`. Until the job has ended it has
    neither; `ASSEMBLY_CANCELED` is an `error`. If the deployment has extended codes, it is an `ok`,
    and so is the code of a running job. `execution` grows with each run of the assembly. `joined`
    are the ids of requests that waited for a failed assembly, and fail with it.
    """

    assembly_id: str
    ok: OkCode | None = None
    error: str | None = None
    message: str
    uploads: Annotated[list[AssemblyUpload], ALWAYS] = []
    results: Annotated[dict[str, list[AssemblyResult]], ALWAYS] = {}
    bytes_expected: Annotated[int, ALWAYS] = 0
    bytes_received: Annotated[int, ALWAYS] = 0
    bytes_usage: Annotated[int, ALWAYS] = 0
    execution_duration: float | None = None
    execution_start: IsoTime | None = None
    last_job_completed: IsoTime | None = None
    template_id: str
    branch: Annotated[str, ALWAYS] = "main"
    user: Annotated[AssemblyUser | None, ALWAYS] = None
    created_at: IsoTime
    updated_at: IsoTime
    progress_pct: float | None = None
    steps_total: int | None = None
    steps_completed: int | None = None
    current_step: str | None = None
    warnings: list[str] = []
    webhook: AssemblyWebhook | None = None
    request_id: str | None = None
    execution: int | None = None
    joined: list[str] = []
    stalled: bool = False

    @property
    def completed(self) -> bool:
        """Whether the job ended with a result."""
        return self.ok == "ASSEMBLY_COMPLETED" and not self.error

    @property
    def terminal(self) -> bool:
        """Whether the job has ended: completed, cancelled or failed."""
        return bool(self.error) or self.ok in ("ASSEMBLY_COMPLETED", "ASSEMBLY_CANCELED")
