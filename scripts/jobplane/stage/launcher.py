"""Start MiniStack on its own interpreter, with these differences from AWS patched.

Runs in the environment that `uv tool run` made: it can import only the standard library and
modules of its own folder that need nothing else.
1. A worker can import the artifact and the standard library only. Without this it also finds
   MiniStack's own packages, and an undeclared dependency would fail only on AWS.
2. A handler's exception keeps its class as `errorType`, which Step Functions' Retry and Catch
   match on; MiniStack reports `Runtime.HandlerError` for all of them.
3. Functions behind WebSocket routes go through the dispatcher that every other trigger uses,
   so that their logs reach CloudWatch Logs and a busy function gets a second worker; 64 of them
   at most, or a thousand sockets that close at once start a thousand workers, none of which ends
   in time. A socket is sent API Gateway's own message when its function fails, and not the error.
4. An import error of a module appears in its function's log.
5. An HTTP API's CORS settings work when they come from CloudFormation, whose keys are capitalised.
6. An artifact is unpacked once, and not once a worker: thousands of files, which each cold start
   would wait for and the stage's end would remove again.
7. A Task's TimeoutSeconds and HeartbeatSeconds may be expressions, and a worker that has been
   silent for HeartbeatSeconds fails its task with States.Timeout, which is AWS's name for both.
8. A read's ConsumedCapacity is by the size of what was read, as DynamoDB's is; MiniStack returns
   half a unit for every read, and none for BatchGetItem.
9. A query's key condition is parsed once, and not for every row of the partition.
10. Calls on a table's stream and in a log group are authorised on those; MiniStack asks for the
   right to `*`, and to the group without the `:*` that its ARN ends with.
11. Items expire in tables made by CloudFormation, which drops TimeToLiveSpecification; and one
   that expires leaves a REMOVE record in its table's stream, marked as DynamoDB's.
12. A stream's batches are delivered as jobplane.stage.mappings says: several at a time, to the
    checkpoint of a partial failure, split, up to a number of retries. MiniStack has one batch of
    all streams at a time, takes every answer for success, and retries a failure without end.
13. A worker's context is an object; MiniStack makes a class for each invocation, and a worker grows
    by them until its collector runs.
14. What SQS refuses has AWS's name in a state machine: its own of an SDK call, where MiniStack has
    one for all of it, and SQS.AmazonSQSException of an optimized one.
15. A stack can take over a bucket that an earlier one has retained (ImportExistingResources);
    MiniStack takes its name for a conflict.
16. A handshake answers the subprotocol that $connect chose, and a binary frame ends its connection
    with 1003.
17. Webhooks of the stage have a receiver, which appends them to a file in the stage's folder.
18. JSONata's $string keeps characters as they are; the emulator's writes six for each that is not
    ASCII, so that an expression that measures a text would measure another.
19. A state machine may put an object into S3, as JSON text.
20. The address of a version's code leads to that code; MiniStack's to the latest.
21. A queue's batch that meets a busy account is tried again until it finds a worker; MiniStack
    counts it as failed, and its messages stay hidden for the visibility timeout.
22. A call of SQS on a batch of messages is authorised as the call on one: sqs:SendMessage.
23. An alarm on metric math is kept and described as it was given; MiniStack refuses it. It does not
    evaluate it.
24. Everything that an invocation has written is in its log. MiniStack stops reading when nothing
    has come for five milliseconds: on a busy machine, lines appear with the next invocation, and
    those of an invocation that failed do not appear at all.
25. A worker notes its writes to requests and claims in the stage's folder `history`, if that
    exists, for jobplane.histories; and all calls and invocations in the folder `usage`, for
    jobplane.bench.cost, as the emulator itself does with what DynamoDB bills.

Called with the stage's name, which identifies it in a list of processes, the folder for
unpacked artifacts, and, by a test run, a file that the run keeps locked: when the run ends, however
it ends, the emulator ends and removes the stage's folder, which is its working directory.
"""

import contextvars
import fcntl
import hashlib
import json
import os
import queue
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gateway  # type: ignore[import-not-found]
import meter  # type: ignore[import-not-found]
from mappings import (  # type: ignore[import-not-found]
    Delivery,
    FunctionError,
    Record,
    StreamSettings,
)
from ministack import app  # type: ignore[import-not-found]
from ministack.core import iam_actions, lambda_runtime, responses  # type: ignore[import-not-found]
from ministack.services import (  # type: ignore[import-not-found]
    apigateway,
    dynamodb,
    dynamodb_streams,
    lambda_svc,
    stepfunctions,
)
from ministack.services.cloudformation import (  # type: ignore[import-not-found]
    provisioners,
    stacks,
)

WITHOUT_SITE_PACKAGES = (
    "import sys\nsys.path[:] = [p for p in sys.path if not p.endswith('site-packages')]\n"
)
READ_UNIT = 4096
SOCKET_EVENTS_AT_ONCE = 64
TABLE = "AWS::DynamoDB::Table"
REAPER = "dynamodb-ttl-reaper"
BY_EXPIRY = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
KEY_CONDITION = "KeyConditionExpression"
PUT_OBJECT = "putObject"
PUT_OBJECT_REQUEST = {
    "method": "PUT",
    "path": "/{Bucket}/{Key+}",
    "body_field": "Body",
    "result_root": None,
    "header_outputs": {"etag": "ETag"},
}
SQS_ERRORS = {
    "QueueDoesNotExist": "QueueDoesNotExistException",
    "QueueNameExists": "QueueNameExistsException",
}
# The line that a worker writes after those of an invocation.
END_OF_LOG = "\x1e"
LOG_PATIENCE = 10
RECORDER = str(Path(__file__).with_name("recorder.py"))
HISTORY = str(Path.cwd() / "history")
USAGE = str(Path.cwd() / "usage")
IN_WORKER_SCRIPT = (
    ('"error": str(e), "trace"', '"error": str(e), "error_class": type(e).__name__, "trace"'),
    ('type("Context", (), {', '__import__("types").SimpleNamespace(**{'),
    ("lambda self: max(0, int((_deadline", "lambda: max(0, int((_deadline"),
    ("})()", "})"),
    (
        "        _real_stdout.flush()\n\nrun()",
        f"        print({END_OF_LOG!r}, file=sys.__stderr__, flush=True)\n"
        "        _real_stdout.flush()\n\nrun()",
    ),
    (
        "    _ms_install_invoke_depth()\n    try:",
        "    _ms_install_invoke_depth()\n    _recorder = {}\n"
        f"    exec(open({RECORDER!r}).read(), _recorder)\n"
        f"    _recorder['install']({HISTORY!r}, init.get('function_name', ''), '', {USAGE!r})\n"
        "    try:",
    ),
    (
        "            result = handler_fn(event, context)\n",
        f"            result = _recorder['measured']({USAGE!r}, _function_name, handler_fn)"
        "(event, context)\n",
    ),
)
"""What stands in it once, and what is to stand there."""

_last = threading.local()
_plain_invoke = lambda_runtime.Worker.invoke
_plain_execute = lambda_svc._execute_function_warm
_plain_task = stepfunctions._execute_task
_plain_sqs_send = stepfunctions._invoke_sqs_send_message
_plain_rest_xml = stepfunctions._dispatch_aws_sdk_rest_xml
_plain_xml = stepfunctions._rest_xml_build_body
_plain_callback = stepfunctions._invoke_with_callback
_plain_page = dynamodb._paginate_evaluated_items
_plain_capacity = dynamodb._add_consumed_capacity
_plain_batch_get = dynamodb._batch_get_item
_plain_condition = dynamodb._evaluate_condition
_plain_action = iam_actions.extract_iam_action
_plain_resource = iam_actions.extract_resource_arn
_plain_remove = dynamodb._remove_item
_plain_create = provisioners._RESOURCE_HANDLERS[TABLE]["create"]
_plain_alarm = provisioners._cw_metric_alarm_record
_plain_mappings = lambda_svc._iter_all_esms
_plain_function = lambda_svc._execute_function
_plain_poll = lambda_svc._poll_dynamodb_streams
_plain_queue_batch = lambda_svc._run_sqs_batch
_plain_code_of = lambda_svc.serve_function_code
_plain_get_function = lambda_svc._get_function
_plain_validation = stacks._validation_errors
_known_conditions: dict[str, Any] = {}


def _invoke_noting_class(worker: Any, *args: Any, **kwargs: Any) -> Any:
    result = _plain_invoke(worker, *args, **kwargs)
    _last.error_class = result.get("error_class")
    return result


def _whole_log(worker: Any, *_: Any, **__: Any) -> str:
    """The lines of the invocation that has ended; after a crash, those up to it."""
    lines: list[str] = []
    end = time.monotonic() + LOG_PATIENCE
    while time.monotonic() < end:
        is_over = not worker._stderr_thread.is_alive()
        try:
            line = worker._stderr_queue.get(timeout=0.05)
        except queue.Empty:
            if is_over:
                break
            continue
        if line == END_OF_LOG:
            break
        lines.append(line)
    return "\n".join(lines)


def _execute_with_class(func: Any, event: Any, request_id: str) -> Any:
    _last.error_class = None
    result = _plain_execute(func, event, request_id)
    body = result.get("body")
    if result.get("error") and isinstance(body, dict):
        if _last.error_class:
            body["errorType"] = _last.error_class
        result["log"] = result.get("log") or body.get("errorMessage", "")
    return result


def _with_camel_keys(function: Any) -> Any:
    def call(cors: dict[str, Any], origin: str) -> Any:
        return function({key[:1].lower() + key[1:]: cors[key] for key in cors or {}}, origin)

    return call


class _SharedArchive(zipfile.ZipFile):
    """An archive that is unpacked once; extracting it makes a link to that folder."""

    store: Path

    def extractall(self, path: Any = None, *args: Any, **kwargs: Any) -> None:
        digest = hashlib.sha256(Path(str(self.filename)).read_bytes()).hexdigest()
        shared = self.store / digest
        if not shared.is_dir():
            partial = tempfile.mkdtemp(dir=self.store, prefix=".filling-")
            super().extractall(partial, *args, **kwargs)
            try:
                Path(partial).rename(shared)
            except OSError:
                # Another worker, or another stage, was first.
                shutil.rmtree(partial)
        link = Path(path)
        link.rmdir()
        link.symlink_to(shared)


class _Dispatched:
    """What a WebSocket route gets in place of a worker: the dispatcher of all other triggers."""

    turns = threading.BoundedSemaphore(SOCKET_EVENTS_AT_ONCE)

    def __init__(self, _name: str, config: Any, code_zip: bytes, qualifier: str = "") -> None:
        self.record = {"config": config, "code_zip": code_zip}

    def invoke(self, event: Any, request_id: str) -> dict[str, Any]:
        with self.turns:
            result = lambda_svc._execute_function(self.record, event)
        if result.get("error") or result.get("throttle"):
            frame = {
                "message": "Internal server error",
                "connectionId": event["requestContext"]["connectionId"],
                "requestId": request_id,
            }
            return {"status": "error", "error": json.dumps(frame)}
        return {"status": "ok", "result": result.get("body")}


def _execute_with_deadlines(state: Any, raw_input: Any, execution: Any, context: Any) -> Any:
    deadlines = {
        name: stepfunctions._apply_jsonata_template(state[name], raw_input, context)
        for name in ("TimeoutSeconds", "HeartbeatSeconds")
        if isinstance(state.get(name), str)
    }
    return _plain_task({**state, **deadlines}, raw_input, execution, context)


def _invoke_with_heartbeat(resource: Any, arguments: Any, token: str, state: Any) -> Any:
    over = threading.Event()
    if seconds := state.get("HeartbeatSeconds"):
        # The tokens are kept by account and region, which the context knows.
        watch = contextvars.copy_context().run
        threading.Thread(
            target=watch, args=(_watch_heartbeat, token, seconds, over), daemon=True
        ).start()
    try:
        return _plain_callback(resource, arguments, token, state)
    finally:
        over.set()


def _watch_heartbeat(token: str, seconds: float, over: threading.Event) -> None:
    last, since = None, time.monotonic()
    while not over.wait(0.1):
        task = stepfunctions._task_tokens.get(token)
        if task is None:
            continue
        if task["heartbeat"] != last:
            last, since = task["heartbeat"], time.monotonic()
        elif time.monotonic() - since > seconds:
            cause = f"No heartbeat for {seconds} seconds"
            task["error"] = {"Error": "States.Timeout", "Cause": cause}
            task["event"].set()
            return


def _send_with_error_name(resource: Any, arguments: Any) -> Any:
    try:
        return _plain_sqs_send(resource, arguments)
    except stepfunctions._ExecutionError as error:
        raise stepfunctions._ExecutionError("SQS.AmazonSQSException", error.cause) from error


def _rest_xml_with_json_body(service: Any, name: str, action: str, arguments: Any) -> Any:
    if action == PUT_OBJECT and not isinstance(arguments.get("Body"), str):
        body = json.dumps(arguments["Body"], ensure_ascii=False, separators=(",", ":"))
        arguments = {**arguments, "Body": body}
    return _plain_rest_xml(service, name, action, arguments)


def _xml_or_text(root: str, payload: Any, *rest: Any) -> Any:
    is_text = root == "Body" and isinstance(payload, str)
    return payload.encode() if is_text else _plain_xml(root, payload, *rest)


def _encoder_keeping_characters(encoder: json.JSONEncoder, **options: Any) -> None:
    json.JSONEncoder.__init__(encoder, **options | {"ensure_ascii": False})


def _page_noting_size(items: Any, limit: Any, table: Any, index_name: Any = None) -> Any:
    page, more = _plain_page(items, limit, table, index_name)
    if index_name:
        seen = (dynamodb._apply_index_projection(item, table, index_name) for item in page)
    else:
        seen = iter(page)
    _last.read = sum(map(dynamodb._item_size_bytes, seen))
    return page, more


def _read_units(size: int, consistent: bool) -> float:
    """A unit for every 4 KB begun, half of one if the read need not be consistent."""
    return max(1, -(-size // READ_UNIT)) * (1.0 if consistent else 0.5)


def _capacity_by_size(
    result: dict[str, Any], data: dict[str, Any], name: str, write: bool = False, **more: Any
) -> None:
    _plain_capacity(result, data, name, write, **more)
    consumed = result.get("ConsumedCapacity")
    if write or consumed is None:
        return
    if "Key" in data:
        item = dynamodb._get_item_by_key(dynamodb._tables.get(name), data["Key"])
        size = dynamodb._item_size_bytes(item or {})
    else:
        size = _last.read
    units = _read_units(size, data.get("ConsistentRead", False))
    parts = [consumed, consumed.get("Table", {})]
    for indexes in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes"):
        parts += consumed.get(indexes, {}).values()
    for part in parts:
        if part.get("CapacityUnits"):
            part["CapacityUnits"] = units


def _batch_get_with_capacity(data: dict[str, Any]) -> Any:
    answer = _plain_batch_get(data)
    if answer[0] != 200 or data.get("ReturnConsumedCapacity", "NONE") == "NONE":
        return answer
    body = json.loads(answer[2])
    body["ConsumedCapacity"] = []
    for asked, config in data["RequestItems"].items():
        name = dynamodb._normalize_table_name(asked)
        table = dynamodb._tables.get(name)
        found = [dynamodb._get_item_by_key(table, key) for key in config["Keys"]]
        units = sum(
            _read_units(dynamodb._item_size_bytes(item or {}), config.get("ConsistentRead", False))
            for item in found
        )
        body["ConsumedCapacity"].append({"TableName": name, "CapacityUnits": units})
    return dynamodb.json_response(body)


def _key_condition_parsed_once(
    expression: str, item: Any, values: Any, names: Any, slot: str = "ConditionExpression"
) -> Any:
    if slot != KEY_CONDITION:
        return _plain_condition(expression, item, values, names, slot)
    tokens = _known_conditions.get(expression)
    if tokens is None:
        holds = _plain_condition(expression, item, values, names, slot)  # raises what is wrong
        _known_conditions[expression] = dynamodb._tokenize(expression)
        return holds
    return dynamodb._ExprEval(tokens, item, values, names).evaluate()


def _action_without_batch(service: str, *request: Any) -> str | None:
    action: str | None = _plain_action(service, *request)
    return action.removesuffix("Batch") if service == "sqs" and action else action


def _resource_with_streams(service: str, *request: Any) -> str:
    arn = str(_plain_resource(service, *request))
    _method, _path, _headers, body, *_rest = request
    if service == "logs" and re.search(r":log-group:[^:]+$", arn):
        return f"{arn}:*"
    if service == "dynamodbstreams":
        return _stream_named_by(json.loads(body or b"{}")) or arn
    return arn


def _stream_named_by(call: dict[str, Any]) -> str | None:
    iterator = dynamodb_streams._decode_iterator(str(call.get("ShardIterator", ""))) or {}
    return call.get("StreamArn") or iterator.get("arn")


def _create_with_expiry(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
    name, attributes = _plain_create(logical_id, properties, stack)
    expiry = properties.get("TimeToLiveSpecification")
    if expiry:
        dynamodb._update_ttl({"TableName": name, "TimeToLiveSpecification": expiry})
    return name, attributes


def _remove_with_record(table: dict[str, Any], partition: Any, sort: Any) -> Any:
    removed = _plain_remove(table, partition, sort)
    if removed is not None and threading.current_thread().name == REAPER:
        _, _, _, region, account, _ = table["TableArn"].split(":", 5)
        responses._request_region.set(region)
        responses._request_account_id.set(account)
        name = table["TableName"]
        written = len(dynamodb._stream_records.get(name, ()))
        dynamodb._emit_stream_event(name, "REMOVE", removed, None)
        for record in dynamodb._stream_records.get(name, ())[written:]:
            record["userIdentity"] = BY_EXPIRY
    return removed


def _alarm_with_math(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    queries = properties.get("Metrics")
    if not queries:
        return dict(_plain_alarm(name, properties))
    without = {key: value for key, value in properties.items() if key != "Metrics"}
    record = _plain_alarm(name, without | {"MetricName": "-", "Namespace": "-"})
    of_one_metric = {
        "MetricName", "Namespace", "Dimensions", "Statistic", "ExtendedStatistic", "Period", "Unit",
    }  # fmt: skip
    kept = {key: value for key, value in record.items() if key not in of_one_metric}
    return kept | {"Metrics": queries}


class _Lane:
    """A part of a stream: its batches go to the function one after another, on a thread."""

    def __init__(self, mapping: dict[str, Any]) -> None:
        self.mapping = mapping
        self.waiting: queue.SimpleQueue[Record] = queue.SimpleQueue()
        # The mapping's account and region are the context's.
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(self._serve,), daemon=True).start()

    def _serve(self) -> None:
        while True:
            batch = [self.waiting.get()]
            while self._is_there() and not self.mapping.get("Enabled", True):
                time.sleep(0.2)
            settings = StreamSettings.of(self.mapping)
            while len(batch) < settings.batch_size:
                try:
                    batch.append(self.waiting.get_nowait())
                except queue.Empty:
                    break
            if self._is_there():
                Delivery(settings, self._invoke, time, self._discard).deliver(batch)

    def _is_there(self) -> bool:
        return self.mapping["UUID"] in lambda_svc._esms

    def _function(self) -> Any:
        name, qualifier = self.mapping["FunctionName"], self.mapping.get("Qualifier")
        found, _ = lambda_svc._get_func_record_for_qualifier(name, qualifier)
        if found is None:
            raise FunctionError("ResourceNotFoundException", name)
        return found

    def _invoke(self, event: dict[str, Any]) -> Any:
        result = _execute_when_free(self._function(), event)
        body = result.get("body")
        if result.get("error"):
            raise FunctionError(str(body))
        return json.loads(body) if isinstance(body, str) else body

    def _discard(self, batch: list[Record], condition: str, _invocations: int) -> None:
        # Of the function it says the ARN alone; the function itself may be gone.
        function = {"FunctionArn": self.mapping["FunctionArn"]}
        source = self.mapping["EventSourceArn"]
        lambda_svc._send_ddb_stream_failure_record(
            self.mapping, function, batch, source, {}, condition
        )


_lanes: dict[tuple[str, int], _Lane] = {}


def _mappings_noted() -> Any:
    for account, region, mapping in _plain_mappings():
        _last.mapping = mapping
        yield account, region, mapping


def _poll_handing_over() -> Any:
    _last.is_reading = True
    try:
        return _plain_poll()
    finally:
        _last.is_reading = False


def _execute_when_free(function: Any, event: Any) -> Any:
    """Run a function, as soon as the account's concurrency allows it."""
    while (result := _plain_function(function, event)).get("throttle"):
        time.sleep(1.0)
    return result


def _run_queue_batch(*batch: Any) -> None:
    _last.is_of_a_queue = True
    try:
        _plain_queue_batch(*batch)
    finally:
        _last.is_of_a_queue = False


def _execute_or_hand_over(function: Any, event: Any) -> Any:
    """Run a function; what the reader of streams has read goes to the lanes instead."""
    if getattr(_last, "is_of_a_queue", False):
        return _execute_when_free(function, event)
    if not getattr(_last, "is_reading", False):
        return _plain_function(function, event)
    mapping = _last.mapping
    settings = StreamSettings.of(mapping)
    for record in event["Records"]:
        place = mapping["UUID"], settings.lane_of(record)
        if place not in _lanes:
            _lanes[place] = _Lane(mapping)
        _lanes[place].waiting.put(record)
    return {"body": None}


def _end_with(lifeline: str) -> None:
    """Wait until no process holds the file's lock, or the file is gone; then end this group."""
    with suppress(FileNotFoundError), Path(lifeline).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    shutil.rmtree(Path.cwd(), ignore_errors=True)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _validation_without_imports(resources: dict[str, Any], *given: Any, **options: Any) -> Any:
    def is_import(logical: str, validation: str) -> bool:
        retained = str(resources[logical].get("DeletionPolicy")).startswith("Retain")
        return retained and validation == "NAME_CONFLICT_VALIDATION"

    found = _plain_validation(resources, *given, **options)
    return [error for error in found if not is_import(error[0], error[2])]


def _function_with_code_of_version(name: str, qualifier: str | None = None) -> Any:
    status, headers, body = _plain_get_function(name, qualifier)
    if qualifier and qualifier.isdigit() and status == 200:
        body = body.replace(f"/{name}?".encode(), f"/{name}:{qualifier}?".encode())
    return status, headers, body


def _code_of_version(name: str, account_id: str | None = None, region: str | None = None) -> Any:
    name, _, version = name.partition(":")
    function = lambda_svc._functions.get_scoped(account_id, region, name) if version else None
    if function is None:
        return _plain_code_of(name, account_id, region)
    code = function["versions"][version]["code_zip"]
    return 200, {"Content-Type": "application/zip"}, code


def main() -> None:
    """Patch, then run MiniStack's own entry point."""
    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    for theirs, ours in IN_WORKER_SCRIPT:
        if script.count(theirs) != 1:
            sys.exit("this MiniStack's worker script is not what the launcher was written for")
        script = script.replace(theirs, ours)
    stepfunctions._AWS_SDK_SERVICE_MAP["sqs"] = {"protocol": "json", "target_prefix": "AmazonSQS"}
    stepfunctions._AWS_SDK_ERROR_CODE_OVERRIDES["sqs"] = SQS_ERRORS
    lambda_runtime._PYTHON_WORKER_SCRIPT = WITHOUT_SITE_PACKAGES + script
    lambda_runtime.Worker.invoke = _invoke_noting_class
    lambda_runtime.Worker._drain_stderr = _whole_log
    lambda_runtime.Worker._drain_stderr_bounded = _whole_log
    lambda_svc._execute_function_warm = _execute_with_class
    lambda_runtime.get_or_create_worker = _Dispatched
    _SharedArchive.store = Path(sys.argv[2])
    lambda_runtime.zipfile = SimpleNamespace(
        ZipFile=_SharedArchive, BadZipFile=zipfile.BadZipFile, LargeFileError=zipfile.LargeZipFile
    )
    sqs_send = "arn:aws:states:::sqs:sendMessage"
    stepfunctions._SERVICE_DISPATCH[sqs_send] = _send_with_error_name
    stepfunctions._S3_OP_SPECS["PutObject"] = PUT_OBJECT_REQUEST
    stepfunctions._dispatch_aws_sdk_rest_xml = _rest_xml_with_json_body
    stepfunctions._rest_xml_build_body = _xml_or_text
    stepfunctions.jsonata.functions.Functions.Encoder.__init__ = _encoder_keeping_characters
    stepfunctions._execute_task = _execute_with_deadlines
    stepfunctions._invoke_with_callback = _invoke_with_heartbeat
    dynamodb._paginate_evaluated_items = _page_noting_size
    dynamodb._add_consumed_capacity = _capacity_by_size
    dynamodb._batch_get_item = _batch_get_with_capacity
    iam_actions.extract_iam_action = _action_without_batch
    iam_actions.extract_resource_arn = _resource_with_streams
    dynamodb._evaluate_condition = _key_condition_parsed_once
    dynamodb._remove_item = _remove_with_record
    dynamodb.handle_request = meter.metered(dynamodb.handle_request, dynamodb, Path(USAGE))
    provisioners._RESOURCE_HANDLERS[TABLE]["create"] = _create_with_expiry
    provisioners._cw_metric_alarm_record = _alarm_with_math
    lambda_svc._iter_all_esms = _mappings_noted
    lambda_svc._poll_dynamodb_streams = _poll_handing_over
    lambda_svc._run_sqs_batch = _run_queue_batch
    lambda_svc._execute_function = _execute_or_hand_over
    lambda_svc._get_function = _function_with_code_of_version
    lambda_svc.serve_function_code = _code_of_version
    stacks._validation_errors = _validation_without_imports
    apigateway._invoke_ws_lambda = gateway.noting_subprotocol(apigateway._invoke_ws_lambda)
    apigateway.handle_websocket = gateway.as_aws(apigateway.handle_websocket)
    app._handle_post_body_shortcuts = gateway.taking_webhooks(
        app._handle_post_body_shortcuts, Path.cwd()
    )
    for name in ("_cors_response_headers", "_cors_preflight_response"):
        setattr(apigateway, name, _with_camel_keys(getattr(apigateway, name)))
    for lifeline in sys.argv[3:]:
        threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    sys.argv = ["ministack"]
    app.main()


if __name__ == "__main__":
    main()
