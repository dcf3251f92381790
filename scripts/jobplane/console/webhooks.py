"""Deliveries of webhooks, by the documents of ended assemblies; and sending one again."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from jobplane.console import api
from jobplane.console.backend import Backend, ProblemError
from jobplane.console.documents import webhook_state
from jobplane.console.listing import LAST_TIME
from jobplane_keys import from_item, iso_time, make_token, read_item, read_token, to_item

PAGE = 50
MAX_READ = 500
FAILING = frozenset({"failed", "retrying", "disabled", "unsigned_refused", "refused"})
FIELDS = (
    "assembly_id", "template_id", "tenant_id", "user", "request_id", "last_job_completed",
    "updated_at", "webhook", "created_at",
)  # fmt: skip

type Row = dict[str, Any]


def deliveries(backend: Backend, asked: api.WebhooksQuery) -> api.Deliveries:
    """A page of deliveries: of a tenant newest first, else in the table's order."""
    table = backend.table("assemblies")
    bound = ["webhooks", table, asked.model_dump(mode="json", exclude={"next"})]
    start = None
    if asked.next is not None:
        try:
            start = read_token(asked.next, bound)
        except ValueError as error:
            raise ProblemError(400, "VALIDATION_ERROR", f"next: {error}") from error
    found: list[api.Delivery] = []
    read, last = 0, None
    for row, place in _rows(backend, table, asked, start):
        read += 1
        if row is not None and (shown := _shown(backend, row, asked)) is not None:
            found.append(shown)
        if len(found) == PAGE or read >= MAX_READ:
            last = place
            break
    return api.Deliveries(
        deliveries=found,
        groups=_groups(found),
        next=make_token(last, bound) if last else None,
        rows_read=read,
        queued=_waiting(backend, "webhooks"),
        given_up=_waiting(backend, "webhooks-dlq"),
        now=iso_time(time.time()),
    )


def _rows(
    backend: Backend, table: str, asked: api.WebhooksQuery, start: Row | None
) -> Iterator[tuple[Row | None, Row]]:
    """Each row with the place after it; None instead of a row that has gone."""
    names = {f"#{number}": name for number, name in enumerate(FIELDS)}
    request: Row = {"TableName": table, "Limit": 100}
    if start is not None:
        request["ExclusiveStartKey"] = to_item(start)
    if asked.tenant is None:
        shown = {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}
        read: Any = backend.dynamodb.scan
        more: Row = {**shown}
    else:
        values = {":tenant": asked.tenant, ":first": asked.since or "0", ":last": LAST_TIME}
        read = backend.dynamodb.query
        more = {
            "IndexName": "by-tenant",
            "KeyConditionExpression": "tenant_id = :tenant AND created_at BETWEEN :first AND :last",
            "ExpressionAttributeValues": to_item(values),
            "ScanIndexForward": False,
        }  # fmt: skip
    while True:
        page = read(**request, **more)
        for row in map(from_item, page["Items"]):
            key = {"assembly_id": row["assembly_id"]}
            if asked.tenant is not None:
                place = key | {name: row[name] for name in ("tenant_id", "created_at")}
                yield read_item(backend.dynamodb, table, key), place
            else:
                yield row, key
        if "LastEvaluatedKey" not in page:
            return
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _shown(
    backend: Backend, row: Mapping[str, Any], asked: api.WebhooksQuery
) -> api.Delivery | None:
    """A delivery, if it is one of the filter's."""
    webhook = row.get("webhook") or {}
    if not webhook.get("status") or (asked.failing and webhook["status"] not in FAILING):
        return None
    if asked.template is not None and row.get("template_id") != asked.template:
        return None
    if asked.since is not None and row.get("created_at", "") < asked.since:
        return None
    state = webhook_state(backend, row)
    if asked.host is not None and state.host != asked.host:
        return None
    return api.Delivery(
        assembly_id=row["assembly_id"],
        template_id=row.get("template_id", ""),
        tenant=row.get("tenant_id"),
        user=(row.get("user") or {}).get("userId"),
        request_id=row.get("request_id"),
        ended_at=row.get("last_job_completed") or row.get("updated_at"),
        webhook=state,
    )


def _groups(found: list[api.Delivery]) -> list[api.DeliveryGroup]:
    numbers: dict[tuple[str, str | None], Counter[str]] = {}
    for each in found:
        key = (each.template_id, each.webhook.host)
        numbers.setdefault(key, Counter())[each.webhook.status or ""] += 1
    groups = [
        api.DeliveryGroup(
            template_id=template,
            host=host,
            delivered=counts["delivered"],
            pending=counts["pending"],
            failing=sum(counts[status] for status in FAILING),
        )
        for (template, host), counts in numbers.items()
    ]
    return sorted(groups, key=lambda group: (-group.failing, group.template_id))


def _waiting(backend: Backend, queue: str) -> int | None:
    """The messages of a queue that wait or are being worked on; None without the queue."""
    if not backend.has("queue", queue):
        return None
    names = (
        "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    )  # fmt: skip
    answer = backend.client("sqs").get_queue_attributes(
        QueueUrl=backend.queue(queue), AttributeNames=list(names)
    )
    return sum(int(answer["Attributes"].get(name, 0)) for name in names)


def resend(backend: Backend, asked: api.AssemblyKey) -> api.Resent:
    """Have deliver-webhook send an assembly's webhook now."""
    answer = backend.invoke("deliver-webhook", {"assembly_id": asked.assembly_id})
    match answer.get("refused"):
        case None:
            pass
        case "not_found":
            raise ProblemError(404, "NOT_FOUND", f"no assembly {asked.assembly_id}")
        case "too_soon":
            text = f"it was sent shortly before; try again in {answer['retry_after']} s"
            raise ProblemError(409, "CONFLICT", text)
        case _:
            raise ProblemError(409, "CONFLICT", "the assembly has not ended, so it has no webhook")
    key = {"assembly_id": asked.assembly_id}
    row = read_item(backend.dynamodb, backend.table("assemblies"), key) or key
    result = answer.get("webhook") or {}
    code = result.get("status_code")
    if result.get("delivered"):
        text = f"The receiver accepted it ({code})."
    else:
        text = f"It was not delivered: {result.get('error') or f'the receiver answered {code}'}."
    return api.Resent(message=text, webhook=webhook_state(backend, row))
