"""state-manager in moto: its stage, a clock, rows and objects, and faults on its clients."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from jobplane.trying.inprocess import InProcess
from jobplane_keys import from_item, iso_time, to_item
from tests.unit.clock import Clock
from tests.unit.stack import Context, Stack

# A time like any other; only differences from it matter.
NOW = 1_795_342_530.25
DAY = "2026-11-22"
MINUTE, HOUR = 60, 3600
STATUSES = ("pending", "manifested", "processing", "completed", "failed", "quarantined")
KEYS = {"files": ("date_prefix", "file_key"), "metrics": ("metric_type", "timestamp")}
NONE = dict.fromkeys(STATUSES, 0)

type Record = dict[str, Any]


class Manager:
    """The function on a stage of its own, empty at the beginning of each test."""

    calls = Stack.calls
    fail = Stack.fail
    _register = Stack._register

    def __init__(self, aws: InProcess, module: Any, counter: Any, hooks: ExitStack) -> None:
        self.aws, self.module, self._hooks = aws, module, hooks
        self.counter = counter
        """The module of count-files, which keeps the counters."""
        self.clock = Clock(NOW)
        self.dynamodb, self.s3 = aws.client("dynamodb"), aws.client("s3")
        self.table = aws.tables["files"]
        self.buckets = aws.buckets

    def ask(self, operation: str, seconds: float = 300, **request: Any) -> tuple[int, Any]:
        """Status and body of an answer."""
        return self.send({"operation": operation, **request}, seconds)

    def send(self, event: Any, seconds: float = 300) -> tuple[int, Any]:
        answer = self.module.handler(event, self.context(seconds))
        return answer["statusCode"], json.loads(answer["body"])

    def body(self, operation: str, seconds: float = 300, **request: Any) -> Any:
        """The body of an answer that must be 200."""
        status, body = self.ask(operation, seconds, **request)
        assert status == 200, body
        return body

    def parts(self, operation: str, seconds: float = 300, **request: Any) -> Iterator[Any]:
        """Every part of an answer, by the tokens."""
        token: dict[str, Any] = {}
        for _ in range(1000):
            body = self.body(operation, seconds, **request, **token)
            yield body
            if "next_token" not in body:
                return
            token = {"next_token": body["next_token"]}
        raise AssertionError("the answer did not end after 1000 parts")

    def problems(self, operation: str, **request: Any) -> list[str]:
        """The fields that a request is refused for."""
        status, body = self.ask(operation, **request)
        assert status == 400, body
        return [problem["field"] for problem in body["problems"]]

    @staticmethod
    def context(seconds: float = 300) -> Context:
        context = Context(seconds)
        context.get_remaining_time_in_millis = lambda: int(seconds * 1000)  # type: ignore[method-assign]
        return context

    def put(self, *rows: Mapping[str, Any]) -> None:
        for row in rows:
            self.dynamodb.put_item(TableName=self.table, Item=to_item(row))

    def row(self, file_key: str, date: str = DAY) -> dict[str, Any]:
        key = to_item({"date_prefix": date, "file_key": file_key})
        return from_item(self.dynamodb.get_item(TableName=self.table, Key=key).get("Item", {}))

    def items(self, table: str) -> list[dict[str, Any]]:
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.aws.tables[table])
        return [from_item(item) for page in pages for item in page["Items"]]

    def lay(self, bucket: str, key: str, body: bytes | str = b"") -> None:
        self.s3.put_object(Bucket=self.buckets[bucket], Key=key, Body=body)

    def publish(self, name: str, *files: str) -> str:
        """Write a manifest that lists files by their names; its path."""
        self.publish_text(name, json.dumps({"fileLocations": [{"URIPrefixes": [
            self.path(file) for file in files
        ]}]}))  # fmt: skip
        return self.manifest_path(name)

    def publish_text(self, name: str, text: str) -> None:
        self.lay("manifests", f"manifests/{DAY}/{name}", text)

    def manifest_path(self, name: str) -> str:
        return f"s3://{self.buckets['manifests']}/manifests/{DAY}/{name}"

    def path(self, file: str, date: str = DAY) -> str:
        return f"s3://{self.buckets['input']}/pipeline/input/{date}/{file}"

    def once(self, client: Any, operation: str, act: Callable[[], Any]) -> None:
        left = [act]
        self.on(client, operation, lambda _: left.pop()() if left else None)

    def on(self, client: Any, operation: str, act: Callable[[dict[str, Any]], Any]) -> None:
        """Do something before each call; what it raises or returns is the call's outcome."""

        def before(params: dict[str, Any], **_: Any) -> Any:
            return act(params)

        service = client.meta.service_model.service_id.hyphenize()
        self._register([client], f"before-call.{service}.{operation}", before)

    def replace(self, **values: Any) -> None:
        for name, value in values.items():
            self._hooks.enter_context(patch.object(self.module, name, value))

    def refuse(self, operation: str, code: str, status: int, when: str = "") -> None:
        """Have S3 answer with an error, where `when` is part of what is asked for."""
        metadata = {"HTTPStatusCode": status, "RequestId": "R", "HTTPHeaders": {}}
        parsed = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": metadata}

        def act(params: dict[str, Any]) -> Any:
            asked = f"{params['url_path']}?{params['query_string']}"
            return (SimpleNamespace(status_code=status), parsed) if when in asked else None

        self.on(self.module.s3(), operation, act)

    def list_by(self, number: int) -> None:
        """Have S3 list so few objects at a time."""

        def shorten(params: dict[str, Any], **_: Any) -> None:
            params["MaxKeys"] = number

        self._register([self.module.s3()], "before-parameter-build.s3.ListObjectsV2", shorten)

    def clear(self) -> None:
        """Empty every table and bucket that the function knows."""
        for short in ("files", "metrics"):
            self.clear_table(short)
        for short in ("input", "manifests", "output", "quarantine"):
            bucket = self.buckets[short]
            found = self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
            keys = [{"Key": entry["Key"]} for entry in found]
            if keys:
                self.s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})

    def clear_table(self, short: str) -> None:
        name = self.aws.tables[short]
        keys = KEYS[short]
        for page in self.dynamodb.get_paginator("scan").paginate(TableName=name):
            for item in page["Items"]:
                self.dynamodb.delete_item(TableName=name, Key={key: item[key] for key in keys})


def file(name: str = "a.ndjson", status: str = "pending#3", **more: Any) -> dict[str, Any]:
    """A file's row, touched just now."""
    return {"date_prefix": DAY, "file_key": name, "status": status, "updated_at": ago(), **more}


def manifest(name: str, status: str, **more: Any) -> dict[str, Any]:
    return {"date_prefix": DAY, "file_key": f"MANIFEST#{name}", "status": status, **more}


def record(
    number: int, old: str | None = None, new: str | None = None, name: str = "a", **more: Any
) -> Record:
    """A record of the table's stream: how a row's status was and is."""
    key = {"date_prefix": more.pop("date", DAY), "file_key": name}
    images = {
        image: to_item(key | {"status": status})
        for image, status in (("OldImage", old), ("NewImage", new))
        if status is not None
    }
    created = more.pop("created", int(NOW))
    changed = {"ApproximateCreationDateTime": created, "Keys": to_item(key), **images}
    return {"eventID": f"event-{number}", "dynamodb": changed, **more}


def ago(seconds: float = 0) -> str:
    return iso_time(NOW - seconds)


@contextmanager
def stage() -> Iterator[tuple[InProcess, Any, Any]]:
    """The stage, the function's module and that of count-files, for the tests of a module."""
    with InProcess() as aws:
        yield aws, aws.load("state-manager"), aws.load("count-files")


@contextmanager
def managed(aws: InProcess, module: Any, counter: Any) -> Iterator[Manager]:
    """The function for one test: on a clock, nothing left behind."""
    with ExitStack() as hooks:
        manager = Manager(aws, module, counter, hooks)
        hooks.enter_context(patch.object(module, "time", manager.clock))
        hooks.enter_context(patch("moto.dynamodb.models.table.utcnow", manager.clock.utcnow))
        hooks.callback(manager.clear)
        yield manager
