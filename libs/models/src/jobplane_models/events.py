"""What AWS invokes the functions with, as far as they read it, and what they give back."""

from typing import Annotated, Any, Literal

from pydantic import Field

from jobplane_models._base import CAMEL, AssemblyId, Input, Open
from jobplane_models.assemblies import AssemblyWebhook

Headers = dict[str, str]
Attribute = Annotated[dict[str, Any], Field(min_length=1, max_length=1)]


class _Event(Input):
    model_config = CAMEL


class Identity(_Event):
    """Where a client connects from."""

    source_ip: str | None = None
    user_agent: str | None = None


class ConnectionContext(_Event):
    """The connection that an event of the WebSocket API is about."""

    connection_id: Annotated[str, Field(min_length=1)]
    route_key: Annotated[str, Field(min_length=1)]
    """`$connect`, `$disconnect`, `$default`, or an action with a function of its own."""
    domain_name: str | None = None
    stage: str | None = None
    identity: Identity | None = None


class ConnectEvent(_Event):
    """A handshake: the token is in the query `Authorization` or `token`, or in the header."""

    request_context: ConnectionContext
    headers: Headers | None = None
    query_string_parameters: dict[str, str] | None = None


class DisconnectEvent(_Event):
    """A connection that was closed, by whichever side."""

    request_context: ConnectionContext


class MessageEvent(_Event):
    """One message; `body` is its text."""

    request_context: ConnectionContext
    body: str | None = None


class ProxyAnswer(_Event):
    """What API Gateway passes on; `body` is JSON text, or empty."""

    status_code: Annotated[int, Field(ge=200, le=599)]
    headers: Headers | None = None
    multi_value_headers: dict[str, list[str]] | None = None
    body: str | None = None
    is_base64_encoded: Literal[False] = Field(default=False, alias="isBase64Encoded")


class HttpContext(_Event):
    """Version 2 names the method here."""

    http: dict[str, Any] | None = None
    authorizer: dict[str, Any] | None = None


class HttpEvent(_Event):
    """An HTTP request by way of API Gateway (1 and 2), a Function URL or a load balancer."""

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
    """A message of the webhook queue; `body` is a WebhookDelivery as JSON text."""

    message_id: str
    receipt_handle: str
    body: str
    attributes: dict[str, str]
    event_source: Literal["aws:sqs"]


class QueueEvent(Input):
    """A batch of SQS messages."""

    records: Annotated[list[QueueRecord], Field(min_length=1, alias="Records")]


class DeliveryOnDemand(Input):
    """Asks deliver-webhook for one delivery now; its caller has checked who may ask for it."""

    assembly_id: AssemblyId


class DeliveryResult(Open):
    """What a delivery on demand came to, as the document shows it."""

    webhook: AssemblyWebhook


class DeliveryRefusal(Open):
    """Why nothing was delivered on demand; `retry_after` in seconds, for `too_soon`."""

    refused: Literal["not_found", "not_ended", "too_soon"]
    retry_after: int | None = None


class StreamChange(Input):
    """An item as it is stored, in DynamoDB's notation."""

    sequence_number: str = Field(alias="SequenceNumber")
    new_image: dict[str, Attribute] | None = Field(default=None, alias="NewImage")


class StreamRecord(_Event):
    """An item that was written or removed."""

    dynamodb: StreamChange
    event_name: Literal["INSERT", "MODIFY", "REMOVE"]


class StreamEvent(Input):
    """A batch of a table's stream."""

    records: list[StreamRecord] = Field(alias="Records")


class SweepEvent(Input):
    """The schedule that looks for requests whose lease has run out."""

    sweep: Literal["leases"]


class ClaimSweepEvent(Input):
    """The schedule that looks for claims whose execution has ended."""

    sweep: Literal["claims"]


class ClaimsSwept(Open):
    """Claims of executions that are old enough, those that were asked about, those freed."""

    held: int
    asked: int
    freed: int


class ItemFailure(Open):
    """A record that is to come again."""

    item_identifier: str = Field(alias="itemIdentifier")


class BatchFailures(Open):
    """What of a batch was not dealt with."""

    batch_item_failures: list[ItemFailure] = Field(alias="batchItemFailures")


class Swept(Open):
    """How many overdue requests became what; `unread` are shards of the index, not requests."""

    swept: dict[Literal["requeued", "failed", "moved", "stuck", "unread"], int]


class ExecutionDetail(_Event):
    """An execution of the job flow that has ended; `input` is JSON text."""

    execution_arn: str
    status: str
    input: str | None = None
    error: str | None = None
    cause: str | None = None


class ExecutionEnded(Input):
    """EventBridge's word of an execution that has ended."""

    detail_type: Literal["Step Functions Execution Status Change"] = Field(alias="detail-type")
    detail: ExecutionDetail
