"""An operator of the pipeline: the state-manager of a stage, and the tables behind it."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from jobplane.pipeline import planting
from jobplane.pipeline.layout import Layout
from jobplane.pipeline.state import LOCK_SECONDS, Row, State
from jobplane_keys import from_item, to_item, tracking
from jobplane_keys.tracking import FileStatus, RowKind
from tests.e2e.deployed import Deployed, Message

SETTLE_PATIENCE = 180.0

type Found = tuple[str, str, str, str]
"""Operation, kind, date and file key."""


class Operator:
    """Calls of the deployed function, and direct reads of its tables."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self.layout = Layout.of(deployed.stage)
        self.dynamodb = deployed.dynamodb

    def ask(self, operation: str, **request: Any) -> tuple[int, Message]:
        """Status code and body."""
        answer = self.deployed.invoke("state-manager", {"operation": operation, **request})
        return answer["statusCode"], json.loads(answer["body"])

    def do(self, operation: str, **request: Any) -> Message:
        """The body of an answer, which must be 200."""
        status, body = self.ask(operation, **request)
        assert status == 200, body
        return body

    def pages(self, operation: str, **request: Any) -> Iterator[Message]:
        """All pages of an answer."""
        page = self.do(operation, **request)
        yield page
        while token := page.get("next_token"):
            page = self.do(operation, **request, next_token=token)
            yield page

    def found(self, dates: Iterable[str]) -> Counter[Found]:
        """The findings of find_orphans, and of validate_consistency for each date."""
        found: Counter[Found] = Counter()
        for page in self.pages("find_orphans"):
            assert page["unknown"] == []
            found.update(
                ("find_orphans", kind, one["date_prefix"], one["file_key"])
                for kind, findings in page["orphans"].items()
                for one in findings
            )
        for date in dates:
            for page in self.pages("validate_consistency", date_prefix=date):
                assert page["unknown"] == []
                found.update(
                    ("validate_consistency", issue["type"], date, issue["file_key"])
                    for issue in page["issues"]
                )
        return found

    def plant(self, state: State) -> None:
        """Clear the stage and write a state to it, with current times of locks."""
        planting.clear(self.deployed.stage, self.layout)
        planting.write(self.deployed.stage, state)
        expires = int(time.time()) + LOCK_SECONDS
        self.put(*(lock | {"ttl": expires} for lock in state.live_locks))

    def put(self, *rows: Row) -> None:
        planting.put_rows(self.deployed.stage, self.layout.tracking_table, rows)

    def rows(self, **limits: Any) -> dict[tuple[str, str], Row]:
        """The whole tracking table, or a limited scan."""
        pages = self.dynamodb.get_paginator("scan").paginate(
            TableName=self.layout.tracking_table, ConsistentRead=True, **limits
        )
        found = [from_item(item) for page in pages for item in page["Items"]]
        return {(row["date_prefix"], row["file_key"]): row for row in found}

    def count_of(self, date: str) -> int:
        """The number of rows of a date."""
        pages = self.dynamodb.get_paginator("query").paginate(
            TableName=self.layout.tracking_table,
            KeyConditionExpression="date_prefix = :date",
            ExpressionAttributeValues=to_item({":date": date}),
            ConsistentRead=True,
            Select="COUNT",
        )
        return sum(page["Count"] for page in pages)

    def counted(self) -> dict[str, int]:
        """Files by status, counted by a scan."""
        counts = Counter({status.value: 0 for status in FileStatus})
        limits = {
            "ProjectionExpression": "date_prefix, file_key, #status",
            "ExpressionAttributeNames": {"#status": "status"},
        }
        for key, row in self.rows(**limits).items():
            status = tracking.read_status(row.get("status"), self.layout.shards)
            if tracking.row_kind(*key) is RowKind.FILE and status is not None:
                counts[status.value] += 1
        return dict(counts)

    def settled(self) -> dict[str, int]:
        """Wait until the stream has counted every change; the counters."""
        expected, end = self.counted(), time.monotonic() + SETTLE_PATIENCE
        while (stats := self.do("get_stats"))["stats"] != expected and time.monotonic() < end:
            time.sleep(0.2)
        assert stats["source"] == "counters"
        assert stats["stats"] == expected
        return expected

    def write(self, row: Row, status: FileStatus) -> None:
        """Set a row's status as the pipeline does, whatever it was."""
        stored = tracking.in_same_shard(row["status"], status)
        self.dynamodb.update_item(
            TableName=self.layout.tracking_table,
            Key=to_item(key_of(row)),
            UpdateExpression="SET #status = :status",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues=to_item({":status": stored}),
        )

    def delete(self, row: Row) -> None:
        """Delete a row, as its expiry does."""
        table = self.layout.tracking_table
        self.dynamodb.delete_item(TableName=table, Key=to_item(key_of(row)))


def key_of(row: Row) -> dict[str, str]:
    """The key of a row."""
    return {name: row[name] for name in ("date_prefix", "file_key")}


def expected(state: State) -> Counter[Found]:
    """The findings that a planted state must give."""
    return Counter((one.operation, one.kind, one.date_prefix, one.file_key) for one in state.ledger)
