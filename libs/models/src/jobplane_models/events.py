"""The events with which AWS invokes the functions, and their results."""

from typing import Annotated, Any, Literal

from pydantic import Field

from jobplane_models._base import CAMEL, AssemblyId, Input, Open
from jobplane_models.assemblies import AssemblyWebhook

Headers = dict[str, str]
Attribute = Annotated[dict[str, Any], Field(min_length=1, max_length=1)]


class _Event(Input):
    model_config = CAMEL


class Identity(_Event):
    """The address of a client."""

    source_ip: str | None = None
    user_agent: str | None = None


class ConnectionContext(_Event):
    """The connection of an event of the WebSocket API."""

    connection_id: Annotated[str, Field(min_length=1)]
    route_key: Annotated[str, Field(min_length=1)]
    """The route: `$connect`, `$disconnect`, `$default`, or an action with a separate function."""
    domain_name: str | None = None
    stage: str | None = None
    identity: Identity | None = None


class ConnectEvent(_Event):
    """A handshake: the token is in the query `Authorization` or `token`, or in the header."""

    request_context: ConnectionContext
    headers: Headers | None = None
    query_string_parameters: dict[str, str] | None = None


class DisconnectEvent(_Event):
    """A connection that was closed, by either side."""

    request_context: ConnectionContext


class MessageEvent(_Event):
    """One message of a client; `body` is its text."""

    request_context: ConnectionContext
    body: str | None = None


class KnownCaller(Input):
    """The user of a token that was verified."""

    user_id: Annotated[str, Field(min_length=1)]
    tenant_id: Annotated[str, Field(min_length=1)]
    permissions: Annotated[list[str], Field(max_length=4096)]


class MessagesOfCaller(Input):
    """Messages that came over HTTP, each as text; the function `jobs` has verified the token."""

    caller: KnownCaller
    messages: Annotated[list[str], Field(max_length=100)]


class Answers(Open):
    """The answers to the messages of a caller, in their order."""

    answers: list[dict[str, Any]]


class ProxyAnswer(_Event):
    """An answer that API Gateway sends to the client; `body` is JSON text, or empty."""

    status_code: Annotated[int, Field(ge=200, le=599)]
    headers: Headers | None = None
    multi_value_headers: dict[str, list[str]] | None = None
    body: str | None = None
    is_base64_encoded: Literal[False] = Field(default=False, alias="isBase64Encoded")


class HttpContext(_Event):
    """The part of an HTTP event of version 2 with its method."""

    http: dict[str, Any] | None = None
    authorizer: dict[str, Any] | None = None


class HttpEvent(_Event):
    """An HTTP request from API Gateway (version 1 or 2), a Function URL or a load balancer."""

    request_context: HttpContext
    raw_path: str | None = None
    path: str | None = None
    http_method: str | None = None
    path_parameters: dict[str, str] | None = None
    headers: Headers | None = None
    multi_value_headers: dict[str, list[str]] | None = None
    query_string_parameters: dict[str, str] | None = None
    multi_value_query_string_parameters: dict[str, list[str]] | None = None
    body: str | None = None
    is_base64_encoded: bool | None = Field(default=None, alias="isBase64Encoded")


class QueueRecord(_Event):
    """A message; `body` is JSON text: a WebhookDelivery in the queue `webhooks`, a QueuedRequest in
    the queue `jobs`.
    """

    message_id: str
    receipt_handle: str
    body: str
    attributes: dict[str, str]
    event_source: Literal["aws:sqs"]


class QueueEvent(Input):
    """A batch of SQS messages."""

    records: Annotated[list[QueueRecord], Field(min_length=1, alias="Records")]


class DeliveryOnDemand(Input):
    """Asks deliver-webhook for one delivery at once; the caller has checked the user's rights."""

    assembly_id: AssemblyId


class DeliveryResult(Open):
    """The result of a delivery on demand, as in the document."""

    webhook: AssemblyWebhook


class DeliveryRefusal(Open):
    """Why a delivery on demand was refused; `retry_after` in seconds, for `too_soon`."""

    refused: Literal["not_found", "not_ended", "too_soon"]
    retry_after: int | None = None


class StreamChange(Input):
    """The row of a stream record, in DynamoDB's typed values."""

    sequence_number: str = Field(alias="SequenceNumber")
    new_image: dict[str, Attribute] | None = Field(default=None, alias="NewImage")


class StreamRecord(_Event):
    """A record: a row that was written or deleted."""

    dynamodb: StreamChange
    event_name: Literal["INSERT", "MODIFY", "REMOVE"]


class StreamEvent(Input):
    """A batch of records from a table's stream."""

    records: list[StreamRecord] = Field(alias="Records")


class SweepEvent(Input):
    """The scheduled event that looks for jobs whose lease has run out."""

    sweep: Literal["leases"]


class LaneSweepEvent(Input):
    """The scheduled event that brings the slots of lanes into order."""

    sweep: Literal["lanes"]


class ClaimSweepEvent(Input):
    """The scheduled event that looks for claims whose execution has ended."""

    sweep: Literal["claims"]


class ClaimsSwept(Open):
    """Numbers of claims: old enough to check, checked, and released."""

    held: int
    asked: int
    freed: int


class ItemFailure(Open):
    """A record or message that must be delivered again."""

    item_identifier: str = Field(alias="itemIdentifier")


class BatchFailures(Open):
    """The records or messages of a batch that failed."""

    batch_item_failures: list[ItemFailure] = Field(alias="batchItemFailures")


class Swept(Open):
    """Numbers of overdue requests by what was done; `unread` is a number of shards of the index."""

    swept: dict[Literal["requeued", "failed", "moved", "stuck", "unread"], int]


class LanesSwept(Open):
    """Numbers of rows of lanes, and of freed slots."""

    swept: dict[Literal["rows", "freed"], int]


class ExecutionDetail(_Event):
    """An execution of the job flow that has ended; `input` is JSON text."""

    execution_arn: str
    status: str
    input: str | None = None
    error: str | None = None
    cause: str | None = None


class ExecutionEnded(Input):
    """The event of EventBridge for an execution that has ended."""

    detail_type: Literal["Step Functions Execution Status Change"] = Field(alias="detail-type")
    detail: ExecutionDetail


class NamedObject(_Event):
    """The object of an event; its key is not URL-encoded."""

    key: Annotated[str, Field(min_length=1, max_length=1024)]


class CreatedObject(_Event):
    """What was created."""

    object: NamedObject


class ObjectCreated(Input):
    """The event of EventBridge for a new object of the files bucket."""

    detail_type: Literal["Object Created"] = Field(alias="detail-type")
    detail: CreatedObject


class InboxObject(NamedObject):
    """An object under `inbox/`."""

    key: Annotated[str, Field(pattern="^inbox/", max_length=1024)]


class InboxDetail(CreatedObject):
    """What has arrived."""

    object: InboxObject


class MessageArrived(ObjectCreated):
    """The event of EventBridge for a new object under `inbox/` of the files bucket."""

    detail: InboxDetail


class IntakeResult(Open):
    """What became of an object; `known`: its message was here before. `gone`: it was moved."""

    outcome: Literal["queued", "known", "refused", "gone"]
    request_id: str | None = Field(None, alias="requestId")
    reason: str | None = None
