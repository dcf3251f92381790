"""The requests of a client: one model for each `action`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, create_model

from jobplane_models._base import Input, IsoTime, RequestId
from jobplane_models.payloads import (
    ActionPayload,
    Authenticate,
    Callback,
    Count,
    CreateUpload,
    Delay,
    GenerateReport,
    Instruct,
    ProcessAssembly,
    RequestReference,
    StoredPayload,
    Subscribe,
    Unsubscribe,
)


class Metadata(Input):
    """How a request is run; other names may have any string, which the service ignores."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str] = Field(init=False)

    mode: Literal["sync", "async"] = "sync"
    on_disconnect: Literal["detach", "cancel"] = "detach"
    priority: Literal["high", "normal", "low"] = "normal"
    run_at: IsoTime | None = None
    delay_seconds: Annotated[str, Field(pattern=r"^[0-9]{1,7}$")] | None = None


class SyncMetadata(Metadata):
    """Metadata of a short action."""

    mode: Literal["sync"] = "sync"


class AsyncMetadata(Metadata):
    """Metadata of an action that is always queued."""

    mode: Literal["async"] = "async"


class _Request(Input):
    id: RequestId | None = None


class PingRequest(_Request):
    """Keeps the connection from being closed as idle."""

    action: Literal["ping"]
    payload: dict[str, Any] = {}
    metadata: SyncMetadata = SyncMetadata()


class EchoRequest(_Request):
    """Returns the payload, at once or, with `mode: async`, as a job."""

    action: Literal["echo"]
    payload: dict[str, Any] = {}
    metadata: Metadata = Metadata()


class HealthRequest(_Request):
    """Checks the service, at once or, with `mode: async`, by a job."""

    action: Literal["health"]
    payload: dict[str, Any] = {}
    metadata: Metadata = Metadata()


class CreateUploadRequest(_Request):
    """Returns a presigned URL for each file of an assembly."""

    action: Literal["create_upload"]
    payload: CreateUpload | StoredPayload
    metadata: SyncMetadata = SyncMetadata()


class ProcessAssemblyRequest(_Request):
    """Runs a template over uploaded files; the result is the assembly document."""

    action: Literal["process_assembly"]
    payload: ProcessAssembly | StoredPayload
    metadata: AsyncMetadata = AsyncMetadata()


class GenerateReportRequest(_Request):
    """Makes a report over the caller's tenant; needs the permission `reports`."""

    action: Literal["generate_report"]
    payload: GenerateReport
    metadata: AsyncMetadata = AsyncMetadata()


class DelayRequest(_Request):
    """Runs a job that waits and reports progress, for tests."""

    action: Literal["delay"]
    payload: Delay = Delay()
    metadata: AsyncMetadata = AsyncMetadata()


class CountRequest(_Request):
    """Runs a job that emits numbers, to show how events arrive."""

    action: Literal["count"]
    payload: Count = Count()
    metadata: AsyncMetadata = AsyncMetadata()


class InstructRequest(_Request):
    """Has a workspace's worker do something; the job flow runs the job."""

    action: Literal["instruct"]
    payload: Instruct
    metadata: AsyncMetadata = AsyncMetadata()


class StatusRequest(_Request):
    """Returns the stored state of a request of the caller."""

    action: Literal["status"]
    payload: RequestReference
    metadata: SyncMetadata = SyncMetadata()


class SubscribeRequest(_Request):
    """Returns the state of a request, and sends its later messages."""

    action: Literal["subscribe"]
    payload: Subscribe
    metadata: SyncMetadata = SyncMetadata()


class UnsubscribeRequest(_Request):
    """Ends a subscription."""

    action: Literal["unsubscribe"]
    payload: Unsubscribe
    metadata: SyncMetadata = SyncMetadata()


class AuthenticateRequest(_Request):
    """Prolongs the connection by a newer token of the same user and tenant."""

    action: Literal["authenticate"]
    payload: Authenticate
    metadata: SyncMetadata = SyncMetadata()


class CallbackRequest(_Request):
    """Gives a waiting job the result of its step; the token says which job."""

    action: Literal["callback"]
    payload: Callback
    metadata: SyncMetadata = SyncMetadata()


class CancelRequest(_Request):
    """Cancels a waiting job at once; asks the worker of a running job to stop."""

    action: Literal["cancel"]
    payload: RequestReference
    metadata: SyncMetadata = SyncMetadata()


def request_of(name: str, payload: type[ActionPayload]) -> type[BaseModel]:
    """The request of an action that a package adds."""
    words = "".join(word.capitalize() for word in name.split("_"))
    action: Any = Literal.__getitem__(name)
    metadata = AsyncMetadata()
    return create_model(
        f"{words}Request",
        __base__=_Request,
        __doc__=payload.__doc__,
        action=(action, ...),
        payload=(payload, ...),
        metadata=(AsyncMetadata, metadata),
    )


class ReplayRequest(_Request):
    """Runs a job that has ended once more, as a new job, and acknowledges that one."""

    action: Literal["replay"]
    payload: RequestReference
    metadata: SyncMetadata = SyncMetadata()


ClientRequest = Annotated[
    PingRequest
    | EchoRequest
    | HealthRequest
    | CreateUploadRequest
    | ProcessAssemblyRequest
    | GenerateReportRequest
    | DelayRequest
    | CountRequest
    | InstructRequest
    | StatusRequest
    | SubscribeRequest
    | UnsubscribeRequest
    | AuthenticateRequest
    | CallbackRequest
    | CancelRequest
    | ReplayRequest,
    Discriminator("action"),
]
