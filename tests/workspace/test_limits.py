"""The numbers of docs/operating.md are those of the code and of the stack of `prod`."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore.client import BaseClient

import jobplane_keys as keys
import jobplane_leases as leases
import jobplane_robots._io as robots
from jobplane.reference.documents import rows_of
from jobplane.tree.repository import Repository, read_yaml
from jobplane.trying.inprocess import InProcess
from jobplane_keys import schedules
from jobplane_leases import callbacks
from jobplane_leases._events import MAX_EVENT_BYTES, MAX_EVENTS, MAX_EVENTS_BYTES
from jobplane_leases.jobs import MAX_STEP_BYTES, MAX_STEPS
from jobplane_models import payloads
from jobplane_models._base import MAX_OBJECT_BYTES
from jobplane_robots import _registry as robots_registry
from jobplane_robots._text import MAX_COLUMNS
from jobplane_tokens import MAX_TOKEN_LENGTH

ROOT = Repository.here().root
DOCUMENT = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
BOUNDS = rows_of(DOCUMENT, "bounds")
MADE_BY_AWS = re.compile(r"\.Records$|\.multiValue\w+$")
HOUR, DAY = 3600, 24 * 3600
MIB, GIB = 1024**2, 1024**3


@pytest.fixture(scope="module")
def stack() -> Iterator[InProcess]:
    """Settings of `prod`, and the functions' modules with them."""
    with InProcess(stage="prod") as opened:
        yield opened


def test_our_documented_limits_are_those_of_the_code(stack: InProcess) -> None:
    stage = stack.template.parameters
    processor, router, status = map(stack.load, ("processor", "router", "status"))
    claim, delivery = stack.load("claim"), stack.load("deliver-webhook")
    jobs, uploads = stack.load("jobs"), stack.load("upload-parts")
    bucket = stack.template.of_type("AWS::S3::Bucket")["FilesBucket"]
    (abandoned,) = (
        rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
        for rule in bucket["LifecycleConfiguration"]["Rules"]
        if rule["Prefix"] == "uploads/"
    )
    (stream,) = streams(stack)
    flow = read_yaml(ROOT / "resources" / "job-flow.asl.yml")
    documented = {what: limit for what, limit, _ in rows_of(DOCUMENT, "limits")}
    assert documented == {
        "connections of a user in a tenant": f"{stage['maxConnectionsPerUser']}",
        "subscriptions of a connection": f"{router.MAX_SUBSCRIPTIONS:,}",
        "a token": f"{MAX_TOKEN_LENGTH:,} characters",
        "a socket's message, either way": f"{keys.MAX_MESSAGE_BYTES // 1024} KB",
        "an upload in one PUT": f"{router.MAX_PUT_BYTES // 1024**3} GiB",
        "an upload in parts": (
            f"{stage['maxUploadBytes'] / 1024**4:.1f} TiB, {uploads.MAX_PARTS:,} parts of "
            f"{uploads.MIN_PART_BYTES // 1024**2} MiB to {uploads.MAX_PART_BYTES // 1024**3} GiB"
        ),
        "an unfinished upload is kept": f"{abandoned} days",
        "files of an assembly": f"{payloads.MAX_FILES:,}",
        "payload and result in a request's row": (
            f"{(keys.MAX_ITEM_BYTES - leases.ROW_RESERVE_BYTES) // 1024} KB"
        ),
        "a payload above 1 KB is kept": (
            f"{leases.PAYLOAD_TTL_SECONDS // DAY} days after the job is due"
        ),
        "answer of a callback": (
            f"{callbacks.MAX_ANSWER_BYTES // 1024} KB of JSON;"
            f" {callbacks.MAX_ERROR_LENGTH:,} characters of an error"
        ),
        "an assembly's document": f"{processor.MAX_DOCUMENT_BYTES // 1024} KB",
        "requests that wait for one assembly": f"{processor.MAX_FOLLOWERS}",
        "attempts of a request": f"{router.MAX_ATTEMPTS}",
        "a lease": f"{stage['leaseSeconds']} s; its worker renews it after half of that",
        "progress of a job that is stored and posted": f"{stage['progressPerSecond']} a second",
        "the interval between two jobs of a workspace": (
            "none; at most a day" if stage["minIntervalSeconds"] == 0 else "an interval"
        ),
        "a job, all its invocations together": (
            f"{stage['maxJobSeconds'] // HOUR} h from its first start"
        ),
        "steps of a job": f"{MAX_STEPS:,}, with results of {MAX_STEP_BYTES // MIB} MiB of JSON",
        "events of a job": (
            f"{MAX_EVENTS:,}, with {MAX_EVENTS_BYTES // MIB} MiB of JSON;"
            f" {MAX_EVENT_BYTES // 1024} KB each; kept for a day"
        ),
        "a batch of the stream of `requests`": (
            f"{stream['maximumRetryAttempts'] + 1} deliveries, within an hour"
        ),
        "a message of the queue `jobs`": f"{max_receive_count(stack, 'JobsQueue')} receives",
        "invocations of processor for the queue `jobs`": (
            f"{jobs_mapping(stack)['maximumConcurrency']} at a time"
        ),
        "jobs of a tenant that run at a time": (
            "no limit" if stage["maxRunningPerTenant"] == 0 else "a limit"
        ),
        "jobs of an action that run at a time": (
            "no limit" if {each.limit for each in router.ACTIONS.values()} == {None} else "a limit"
        ),
        "jobs of an action that start in a minute": (
            "no limit"
            if {each.per_minute for each in router.ACTIONS.values()} == {None}
            else "a limit"
        ),
        "a job is scheduled ahead": f"{schedules.MAX_AHEAD_SECONDS // DAY} days",
        "jobs of one invocation": f"{stage['jobsPerInvocation']}",
        "an attempt of an AWS call": (
            f"{keys.CLIENT_OPTIONS['connect_timeout']} s to connect, "
            f"{keys.CLIENT_OPTIONS['read_timeout']} s for an answer"
        ),
        "attempts of an AWS call": stack.environment("status")["AWS_MAX_ATTEMPTS"],
        "a request is kept": f"{keys.REQUEST_TTL_SECONDS // DAY} days",
        "an assembly is kept": f"{keys.ASSEMBLY_TTL_SECONDS // DAY} days",
        "look-ups in one batch": f"{status.MAX_BATCH}",
        "assemblies of a page": f"{status.LIST_LIMIT}, at most {status.MAX_LIST_LIMIT}",
        "jobs of a batch over HTTP": f"{jobs.MAX_BATCH}, in {jobs.MAX_BODY_BYTES / 1e6} MB",
        "jobs of a page": f"{jobs.LIST_LIMIT}, at most {jobs.MAX_LIST_LIMIT}",
        "a look-up of a job waits": f"{jobs.MAX_WAIT_SECONDS} s at most",
        "attempts of a webhook": (
            f"{delivery.MAX_RECEIVES}, over {sum(delivery.RETRY_DELAYS) // HOUR} hours"
        ),
        "a claim": (
            f"{keys.CLAIM_TTL_SECONDS // HOUR} h, at most {claim.MAX_TTL_SECONDS // HOUR} h"
        ),
        "an execution of the job flow": f"{flow['TimeoutSeconds'] // DAY} days",
    }
    assert stream["maximumRecordAgeInSeconds"] == HOUR
    assert processor.LEASE_SECONDS == stage["leaseSeconds"]
    assert processor.MAX_JOB_SECONDS == stage["maxJobSeconds"]
    assert stage["maxJobSeconds"] + DAY <= keys.REQUEST_TTL_SECONDS
    assert processor.MAX_UPLOAD_BYTES == uploads.MAX_UPLOAD_BYTES == stage["maxUploadBytes"]
    assert router.MAX_UPLOAD_BYTES == router.MAX_PUT_BYTES
    assert delivery.MAX_RECEIVES == max_receive_count(stack, "WebhooksQueue")


def test_documented_bounds_are_those_of_the_code(stack: InProcess) -> None:
    processor, router = stack.load("processor"), stack.load("router")
    documented = {what: bound for what, bound, _ in BOUNDS}
    expected = {
        "a message to router": f"{keys.MAX_MESSAGE_BYTES // 1024} KB",
        "a payload that was uploaded": f"{router.MAX_PAYLOAD_BYTES // MIB} MB",
        "files of an assembly": f"1 to {payloads.MAX_FILES:,}",
        "`fields` of an assembly": (
            f"{payloads.MAX_FIELDS}, nested {payloads.MAX_FIELDS_DEPTH} levels deep"
        ),
        "days of a report": (
            f"{payloads.MAX_REPORT_DAYS + 1}, from {payloads.FIRST_DAY.year}"
            f" to {payloads.LAST_DAY.year}"
        ),
        "`seconds` of a `delay` or a `count`; `to` of a `count`": (
            f"0 to {payloads.MAX_DELAY_SECONDS}; 1 to {payloads.MAX_COUNT:,}"
        ),
        "output of a robot's run": (
            f"{robots.MAX_GROWTH} times what it has read, or {robots.SMALL_OUTPUT_BYTES // MIB} MiB"
        ),
        "output of a job's steps together": (
            f"{processor.MAX_OUTPUT_GROWTH} times what it has received, or "
            f"{processor.SMALL_OUTPUT_BYTES // MIB} MiB; {processor.MAX_OUTPUT_BYTES // GIB} GiB"
        ),
        "files that a job makes, links of an answer": f"{processor.MAX_RESULTS:,}",
        "warnings of a job": (
            f"{processor.MAX_WARNINGS} of {processor.MAX_TEXT_LENGTH:,} characters"
        ),
        "metadata of an output": f"{robots.MAX_META_BYTES // 1024} KiB",
        "columns of a table": f"{MAX_COLUMNS:,}",
        "requests that wait for one assembly": f"{processor.MAX_FOLLOWERS}",
    }
    assert {what: documented[what] for what in expected} == expected
    assert documented["an answer of router"].startswith(f"{router.MAX_ANSWER_BYTES // 1024} KB;")
    assert documented["`size` of a file"].startswith(f"0 to {MAX_OBJECT_BYTES // 1024**4} TiB,")


def test_every_documented_bound_names_tests_that_exist() -> None:
    named = {row[0]: set(re.findall("`(test_[a-z0-9_]+)`", row[2])) for row in BOUNDS}
    known = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }
    assert {
        what: names - known for what, names in named.items() if names - known or not names
    } == {}


def unbounded(schema: Any, place: str, definitions: Mapping[str, Any]) -> Iterator[str]:
    """The numbers and lists of a JSON Schema that have no lower or no upper bound."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if schema.get("type") in ("integer", "number") and "const" not in schema:
        lower, upper = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
        if not (lower & schema.keys() and upper & schema.keys()):
            yield place
    if schema.get("type") == "array" and "maxItems" not in schema:
        yield place
    named = {**schema.get("properties", {}), "*": schema.get("additionalProperties")}
    for name, part in named.items():
        if isinstance(part, dict):
            yield from unbounded(part, place if name == "*" else f"{place}.{name}", definitions)
    items = [schema["items"]] if "items" in schema else []
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *items):
        yield from unbounded(part, place, definitions)


def test_every_number_of_an_input_has_both_bounds() -> None:
    """Also every list; those of events that AWS makes are AWS's own."""
    folder, found = ROOT / "contracts/json-schema", list[str]()
    names = ["socket/client-request", "http/batch-request", "job-flow/input"]
    names += [
        str(path.relative_to(folder))[:-5]
        for pattern in ("functions/*/operations/*.json", "functions/*/input.json")
        for path in folder.glob(pattern)
    ]
    for name in names:
        schema = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        found += unbounded(schema, name, schema.get("$defs", {}))
    for name in robots_registry.BUILT_IN:
        schema = robots_registry.get_robot(name).options.model_json_schema()
        found += unbounded(schema, name, schema.get("$defs", {}))
    assert [place for place in found if not MADE_BY_AWS.search(place)] == []


# Clients that wait longer for an answer, in seconds.
PATIENT = {
    ("jobs", "lambda"): 28,
    ("processor", "s3"): 60,
    ("status", "lambda"): 27,
    ("upload-parts", "s3"): 24,
}


@pytest.mark.parametrize("function", [function.name for function in Repository.here().functions()])
def test_no_client_waits_for_a_minute(stack: InProcess, function: str) -> None:
    """Each client has time-outs of seconds, also those that are made when they are needed."""
    module = stack.load(function)
    made = [
        each()
        for each in vars(module).values()
        if hasattr(each, "cache_info") and each.__annotations__ == {"return": Any}
    ]
    clients = [each for each in (*vars(module).values(), *made) if isinstance(each, BaseClient)]
    assert clients
    for client in clients:
        config, service = client.meta.config, client.meta.service_model.service_name
        most = PATIENT.get((function, service), keys.CLIENT_OPTIONS["read_timeout"])
        assert config.connect_timeout <= keys.CLIENT_OPTIONS["connect_timeout"], service
        assert config.read_timeout <= most, service


def test_the_documented_place_of_every_limit_exists() -> None:
    names = {name for *_, by in rows_of(DOCUMENT, "limits") for name in re.findall("`([^`]+)`", by)}
    sources = [
        path.read_text(encoding="utf-8")
        for pattern in ("functions/*/*.py", "functions/*/*.yml", "libs/*/src/**/*.py",
                        "resources/*.yml", "serverless.yml")
        for path in ROOT.glob(pattern)
    ]  # fmt: skip
    files = {path.name for path in (*ROOT.glob("functions/*/*"), *ROOT.glob("resources/*"))}
    missing = {
        name
        for name in names - files
        if not any(name.rpartition(".")[2] in source for source in sources)
    }
    assert missing == set()


def test_our_numbers_beside_awss_limits_are_those_of_the_stack(stack: InProcess) -> None:
    status = stack.load("status")
    rows = {what: (default, met) for what, default, met in rows_of(DOCUMENT, "quotas")}
    _, met = rows["queue `jobs`, invocations at a time"]
    mapping = jobs_mapping(stack)
    at_a_time, jobs = mapping["maximumConcurrency"], mapping["batchSize"]
    assert f"{at_a_time} invocations × {jobs} job run" in met
    minutes = stack.function("processor").config["timeout"] // 60
    assert rows["processor, one run"][0] == f"{minutes} minutes"
    assert stack.load("deliver-webhook").PARAMETER_SECONDS == 60
    assert status.verifier._parameter._max_age == 300
    for often in ("every five minutes", "once a minute"):
        assert often in rows["SSM, reads of parameters"][1]


def test_the_documented_capacity_of_the_in_flight_index_is_right(stack: InProcess) -> None:
    """An entry is put, moved (a delete and a put) and deleted: four writes of the index a job."""
    shards = stack.template.parameters["inFlightShards"]
    for name in ("router", "dispatch", "processor"):
        assert stack.load(name).IN_FLIGHT_PARTITIONS == shards
    rows = {what: (default, met) for what, default, met in rows_of(DOCUMENT, "quotas")}
    default, met = rows["DynamoDB, index `in-flight`"]
    assert default == f"{shards} partitions of 1,000 writes a second"
    assert met.startswith(f"{shards * 1000 // 4:,} jobs that start in a second")


def test_the_documented_capacity_of_the_by_tenant_index_is_right(stack: InProcess) -> None:
    """An entry is written when a job is queued, taken and ended."""
    shards = stack.template.parameters["tenantShards"]
    for name in ("router", "processor"):
        assert stack.load(name).TENANT_PARTITIONS == shards
    rows = {what: (default, met) for what, default, met in rows_of(DOCUMENT, "quotas")}
    default, met = rows["DynamoDB, index `by-tenant`"]
    assert default == f"{shards} partitions a tenant, of 1,000 writes a second"
    assert met.startswith(f"{shards * 1000 // 3:,} jobs of one tenant that start in a second")


def test_the_documented_lifetime_of_rows_is_that_of_the_code() -> None:
    assert f"gone after {keys.REQUEST_TTL_SECONDS // DAY} days in any case" in DOCUMENT


def streams(stack: InProcess) -> list[dict[str, Any]]:
    """The streams that dispatch reads, as declared."""
    events = stack.function("dispatch").config["events"]
    return [event["stream"] for event in events if "stream" in event]


def jobs_mapping(stack: InProcess) -> dict[str, Any]:
    """How the processor reads the queue `jobs`, as declared."""
    (mapping,) = [
        event["sqs"] for event in stack.function("processor").config["events"] if "sqs" in event
    ]
    return stack.template.filled(mapping)


def max_receive_count(stack: InProcess, queue: str) -> int:
    """After how many receives a message of a queue is given up."""
    queues = stack.template.of_type("AWS::SQS::Queue")
    return int(queues[queue]["RedrivePolicy"]["maxReceiveCount"])


def test_messages_are_hidden_as_long_as_aws_asks_for(stack: InProcess) -> None:
    """Six times the time limit of the function that reads a queue, or longer."""
    queues = stack.template.of_type("AWS::SQS::Queue")
    readers = {"JobsQueue": "processor", "WebhooksQueue": "deliver-webhook"}
    hidden = {queue: int(queues[queue]["VisibilityTimeout"]) for queue in readers}
    limits = {queue: stack.function(name).config["timeout"] for queue, name in readers.items()}
    assert all(hidden[queue] >= 6 * limits[queue] for queue in readers)
    assert max(keys.PICK_UP_SECONDS, stack.template.parameters["leaseSeconds"]) < min(
        hidden["JobsQueue"], limits["JobsQueue"]
    )
