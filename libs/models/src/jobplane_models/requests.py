"""What a client may send: one model for each action, told apart by `action`."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field

from jobplane_models._base import Input, RequestId
from jobplane_models.payloads import (
    CreateUpload,
    Delay,
    GenerateReport,
    ProcessAssembly,
    RequestReference,
    Subscribe,
    Unsubscribe,
)


class Metadata(Input):
    """How a request is run; further names hold strings, and mean nothing to the service."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str] = Field(init=False)

    mode: Literal["sync", "async"] = "sync"
    on_disconnect: Literal["detach", "cancel"] = "detach"


class SyncMetadata(Metadata):
    """Of an action that is answered at once."""

    mode: Literal["sync"] = "sync"


class AsyncMetadata(Metadata):
    """Of an action that is always queued."""

    mode: Literal["async"] = "async"


class _Request(Input):
    id: RequestId | None = None


class PingRequest(_Request):
    """Keeps the connection awake."""

    action: Literal["ping"]
    payload: dict[str, Any] = {}
    metadata: SyncMetadata = SyncMetadata()


class EchoRequest(_Request):
    """Gives the payload back, at once or, with `mode: async`, by way of the queue."""

    action: Literal["echo"]
    payload: dict[str, Any] = {}
    metadata: Metadata = Metadata()


class HealthRequest(_Request):
    """Whether the service works, at once or, with `mode: async`, the whole path of a job."""

    action: Literal["health"]
    payload: dict[str, Any] = {}
    metadata: Metadata = Metadata()


class CreateUploadRequest(_Request):
    """One presigned PUT for each input of an assembly."""

    action: Literal["create_upload"]
    payload: CreateUpload
    metadata: SyncMetadata = SyncMetadata()


class ProcessAssemblyRequest(_Request):
    """Runs a template over uploaded files; ends with the assembly document."""

    action: Literal["process_assembly"]
    payload: ProcessAssembly
    metadata: AsyncMetadata = AsyncMetadata()


class GenerateReportRequest(_Request):
    """A report over the caller's tenant; needs the permission `reports`."""

    action: Literal["generate_report"]
    payload: GenerateReport
    metadata: AsyncMetadata = AsyncMetadata()


class DelayRequest(_Request):
    """A diagnostic job that waits and reports."""

    action: Literal["delay"]
    payload: Delay = Delay()
    metadata: AsyncMetadata = AsyncMetadata()


class StatusRequest(_Request):
    """The caller's request as it is stored."""

    action: Literal["status"]
    payload: RequestReference
    metadata: SyncMetadata = SyncMetadata()


class SubscribeRequest(_Request):
    """The state of a request, and its messages from now on."""

    action: Literal["subscribe"]
    payload: Subscribe
    metadata: SyncMetadata = SyncMetadata()


class UnsubscribeRequest(_Request):
    """Ends a subscription."""

    action: Literal["unsubscribe"]
    payload: Unsubscribe
    metadata: SyncMetadata = SyncMetadata()


class CancelRequest(_Request):
    """Ends a waiting request at once, and asks the worker of a running one."""

    action: Literal["cancel"]
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
    | StatusRequest
    | SubscribeRequest
    | UnsubscribeRequest
    | CancelRequest,
    Discriminator("action"),
]
