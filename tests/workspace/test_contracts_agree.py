"""Functions that parse by hand, the models, and the published schemas accept the same inputs.

The functions have no pydantic where it would slow them down, so what they accept is said twice.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic import ValidationError as NotValidError

from jobplane.contracts.catalogue import catalogue, loaded
from jobplane.tree.repository import Repository, read_yaml
from jobplane.trying.cases import InProcessTarget, all_cases
from jobplane.trying.inprocess import Context, InProcess
from jobplane_client import Interrupt
from jobplane_client._errors import MalformedMessageError
from jobplane_client._runs import preemption_json
from jobplane_client._worker import JobWorker
from jobplane_client._worker_calls import Received
from jobplane_keys import ValidationError
from jobplane_models import queues, workspaces
from tests.published import faults, faults_of_ours

REPOSITORY = Repository.here()
TYPES = {contract.name: contract.type for contract in catalogue(REPOSITORY)}
VALUES = InProcessTarget(InProcess(REPOSITORY)).values()
NOW = 1795342530.25
FLOW = read_yaml(REPOSITORY.root / "resources" / "job-flow.asl.yml")["States"]

type Json = Any

ODD = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 60, 60.0, 1.5, -0.0, 86400, 86401, 2**53, 2**53 + 1,
        "", "a", "a b", "a/b", "ä", "\n", "a\n", "x" * 128, "x" * 129, "x" * 2048, "x" * 2049,
        "amelia#scott", "amelia#", "#", "a#b#c", "acquire", "renew", "release", "forced",
        [], ["a"], [[]], {}, {"a": 1}, {"a": "b"},
    ]
)  # fmt: skip
# At their bounds, and now and then just beyond.
ID = st.sampled_from(["thread-1", "m.1", "x" * 128, "a@b+c"])
FENCES = [0, 7, 7.0, 1795000000001, 2**53]
FENCE = st.sampled_from([*FENCES, 2**53 + 1])
TEXT = st.sampled_from(["done", "x", "x" * 2048, "x" * 2049])


@st.composite
def inputs(draw: st.DrawFn, **fields: st.SearchStrategy[Json]) -> dict[str, Json]:
    """Objects that are valid except for a few fields."""
    value = {name: draw(good) for name, good in fields.items()}
    if fields:
        names = st.sampled_from(sorted(fields))
        value |= draw(st.dictionaries(names, ODD, max_size=draw(st.sampled_from([0, 0, 1, 2]))))
        for absent in draw(st.sets(names, max_size=draw(st.sampled_from([0, 1, len(fields)])))):
            del value[absent]
    return value


WORKSPACE_FIELDS = {
    "projectUserId": st.just("amelia#scott"),
    "projectId": st.just("amelia"),
    "userId": st.just("scott"),
}
TARGET = st.one_of(
    inputs(claimId=ID, fence=FENCE, containerId=ID, threadId=ID, expiresAt=st.just(1795342600)),
    inputs(claimId=st.none(), fence=st.none(), threadId=ID),
)
EVENTS = {
    "check-active-job": inputs(**WORKSPACE_FIELDS, threadId=ID),
    "claim": inputs(
        **WORKSPACE_FIELDS,
        operation=st.sampled_from(["acquire", "renew", "release"]),
        threadId=ID,
        messageId=ID,
        claimId=ID,
        fence=FENCE,
        owner=TEXT,
        reason=TEXT,
        ttlSeconds=st.sampled_from([1, 60.0, 86400, 0, 86401]),
        minIntervalSeconds=st.sampled_from([0, 5, 86400, -1, 86401]),
    ),
    "send-interrupt": inputs(
        **WORKSPACE_FIELDS, target=TARGET, newThreadId=ID, interruptingMessageId=ID
    ).flatmap(
        lambda event: st.sampled_from(
            [event, *({**event, "reason": text} for text in ("", "why", "x" * 1024, "x" * 1025))]
        )
    ),
    "record-interruption": inputs(
        **WORKSPACE_FIELDS,
        messageId=ID,
        kind=st.sampled_from(["interruption", "timeout", "heartbeat_lost", "forced"]),
        interruptedClaimId=ID,
        interruptedContainer=ID,
        newThreadId=ID,
        interruptingMessageId=ID,
        cause=st.sampled_from(["no JSON", '{"newThreadId": "t"}', {"a": 1}]),
    ),
    "handle-timeout": inputs(
        **WORKSPACE_FIELDS,
        messageId=ID,
        threadId=ID,
        claimId=ID,
        kind=st.sampled_from(["timeout", "heartbeat_lost", "forced"]),
        error=ODD,
        cause=ODD,
        executionArn=ODD,
    ).flatmap(
        # Without a claim the function ignores the fence.
        lambda event: (FENCE | ODD if event.get("claimId") is not None else st.none()).map(
            lambda fence: {**event, "fence": fence}
        )
    ),
}


class ReachedError(Exception):
    """The input was accepted: the function called AWS."""


class Nowhere:
    """A client whose every call raises ReachedError."""

    class exceptions:  # noqa: N801 - botocore's name
        ConditionalCheckFailedException = KeyError

    class meta:  # noqa: N801 - botocore's name
        endpoint_url = "https://sqs.eu-west-1.amazonaws.com"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**_: Any) -> Any:
            raise ReachedError(name)

        return call


def module_of(name: str) -> ModuleType:
    (function,) = REPOSITORY.select((name,))
    return loaded(function, REPOSITORY)


@pytest.fixture(scope="module")
def functions() -> dict[str, ModuleType]:
    """The functions of the job flow, without AWS."""
    modules = {name: module_of(name) for name in EVENTS}
    for module in modules.values():
        for client in {"dynamodb", "sqs"} & set(vars(module)):
            setattr(module, client, Nowhere())
    return modules


def accepts(kind: Any, value: Json) -> bool:
    """Whether a model accepts a value."""
    try:
        TypeAdapter(kind).validate_python(value)
    except NotValidError:
        return False
    return True


def function_accepts(module: ModuleType, event: Json) -> bool:
    """Whether a function accepts an event, by its handler."""
    try:
        module.handler(event, Context(module.__name__))
    except ValidationError:
        return False
    except ReachedError:
        return True
    return True


def one_workspace(event: Mapping[str, Json]) -> bool:
    """Whether the parts agree with the whole key, which JSON Schema can't compare."""
    key = event.get("projectUserId")
    if not isinstance(key, str):
        return True
    parts = (event.get("projectId"), event.get("userId"))
    return all(
        given in (None, part) for given, part in zip(parts, key.partition("#")[::2], strict=True)
    )


@pytest.mark.parametrize("name", EVENTS)
@given(data=st.data())
@settings(derandomize=True, deadline=None, max_examples=150)
def test_function_model_and_schema_accept_the_same_inputs(
    functions: dict[str, ModuleType], name: str, data: st.DataObject
) -> None:
    event = data.draw(EVENTS[name])
    by_function = function_accepts(functions[name], event)
    kind = (
        workspaces.HandleTimeoutInput
        if name == "handle-timeout"
        else TYPES[f"functions/{name}/input"]
    )
    assert accepts(kind, event) is by_function
    found = faults(f"functions/{name}/input", event)
    assert (not found and one_workspace(event)) is by_function, found


def test_a_tenth_of_the_generated_inputs_is_valid_but_not_all(
    functions: dict[str, ModuleType],
) -> None:
    for name, events in EVENTS.items():
        assert is_mixed(outcomes(events, partial(function_accepts, functions[name]))), name


def outcomes(values: st.SearchStrategy[Json], good: Callable[[Json], bool]) -> list[bool]:
    """Whether each of some generated values is accepted."""
    found: list[bool] = []

    @given(value=values)
    @settings(derandomize=True, deadline=None, max_examples=60, database=None)
    def collect(value: Json) -> None:
        found.append(good(value))

    collect()
    return found


def is_mixed(found: list[bool]) -> bool:
    return 0.1 <= sum(found) / len(found) < 1


INVOCATIONS = inputs(
    assemblyId=st.sampled_from(["a", "A-1_", "x" * 128]),
    userId=st.sampled_from(["u", "x" * 256]),
    triggerWebhook=st.booleans(),
    assemblyIds=st.lists(st.one_of(st.just("a"), st.just("b"), ODD), max_size=3)
    | st.just(["a"] * 100)
    | st.just(["a"] * 101),
)


@pytest.fixture(scope="module")
def status() -> ModuleType:
    return module_of("status")


@pytest.fixture(scope="module")
def delivery() -> ModuleType:
    return module_of("deliver-webhook")


@given(event=INVOCATIONS)
@settings(derandomize=True, deadline=None, max_examples=150)
def test_status_model_and_schema_accept_the_same_invokes(status: ModuleType, event: Json) -> None:
    try:
        status.invoked_request(event)
        by_function = True
    except status.InvalidRequestError:
        by_function = False
    assert accepts(TYPES["functions/status/input"], event) is by_function
    assert (not faults("functions/status/input", event)) is by_function


@given(
    body=inputs(assembly_id=st.sampled_from(["a", "A-1_"]), execution=st.sampled_from([1, 2, None]))
)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_deliver_webhook_model_and_schema_accept_the_same(delivery: ModuleType, body: Json) -> None:
    try:
        delivery.queued_delivery({"body": json.dumps(body)})
        by_function = True
    except delivery.UnreadableMessageError:
        by_function = False
    assert accepts(queues.WebhookDelivery, body) is by_function
    if not isinstance(body.get("execution"), float):  # 1.0 is an integer to a JSON Schema
        assert (not faults("queues/webhook-delivery", body)) is by_function


MD5S = st.sampled_from(
    [
        "0cc175b9c0f1b6a831c399e269772661",
        "0CC175B9 C0F1B6A8 31C399E2 69772661",
        "DMF1ucDxtqgxw5niaXcmYQ==",
    ]
)
FILE = {
    "name": st.just("a.txt"),
    "size": st.sampled_from([0, 5, 5.0]),
    "mime": st.just("text/plain"),
    "md5hash": st.one_of(MD5S, MD5S, MD5S, st.sampled_from(["DMF1ucDxtqgxw5niaXcmYQ", "0cc1"])),
}
TEMPLATE = {"template_id": st.just("tpl_x"), "fields": st.just({"a": 1})}
REFERENCE = {"request_id": st.just("req-1")}
OTHER = {"user_id": st.just("u")}
PAYLOADS = {
    "ping": inputs(),
    "echo": inputs(text=ODD),
    "health": inputs(),
    "create_upload": inputs(**TEMPLATE, files=st.lists(inputs(**FILE), min_size=1, max_size=2)),
    "process_assembly": inputs(
        **TEMPLATE,
        uploads=st.lists(inputs(**FILE, key=st.just("uploads/x/y")), min_size=1, max_size=2),
    ),
    "generate_report": inputs(
        start_date=st.just("2026-01-01"),
        end_date=st.just("2026-02-01"),
        format=st.sampled_from(["csv", "json"]),
        group_by=st.sampled_from(["day", "action", "status"]),
    ),
    "delay": inputs(
        seconds=st.sampled_from([0, 1.5, 60]),
        steps=st.sampled_from([1, 10.0, 1000]),
        fail_at=st.sampled_from([1, None]),
        transient=st.booleans(),
    ),
    "count": inputs(to=st.sampled_from([1, 10.0]), seconds=st.sampled_from([0, 1.5])),
    "status": inputs(**REFERENCE),
    "subscribe": inputs(**REFERENCE, **OTHER, since_seq=st.sampled_from([0, 3.0])),
    "unsubscribe": inputs(**REFERENCE, **OTHER),
    "callback": inputs(token=st.just("t"), result=ODD) | inputs(token=st.just("t"), error=ODD),
    "cancel": inputs(**REFERENCE),
}


METADATA = inputs(
    mode=st.sampled_from(["sync", "async"]),
    on_disconnect=st.sampled_from(["detach", "cancel"]),
    trace=st.just("t"),
)


def client_messages(action: str) -> st.SearchStrategy[dict[str, Json]]:
    """Messages for an action, most of them valid."""
    return inputs(
        id=st.sampled_from(["one", "x" * 128, None]),
        action=st.just(action),
        payload=PAYLOADS[action],
        metadata=st.just({}) | METADATA,
    )


@pytest.fixture(scope="module")
def router() -> ModuleType:
    """The router, whose actions do nothing after their payload was accepted."""
    module = module_of("router")
    row = {"user_id": "u", "tenant_id": "t", "permissions": ["reports"], "connection_id": "c"}
    stand_ins: dict[str, Any] = {
        "connection_of": lambda connection_id, now: row,
        "enqueue": lambda request, extra: {"type": "acknowledgment"},
    }
    for name, stand_in in stand_ins.items():
        setattr(module, name, stand_in)
    for name, action in module.ACTIONS.items():
        module.ACTIONS[name] = replace(action, run=lambda request: {})
    return module


def router_accepts(router: ModuleType, message: Json) -> bool:
    """Whether the router accepts a message."""
    answer = router.respond(json.dumps(message), "c", NOW)
    refused = answer["type"] == "error"
    assert not refused or answer["error"]["code"] in {"VALIDATION_ERROR", "INVALID_ACTION"}
    return not refused


@pytest.mark.parametrize("action", PAYLOADS)
@given(data=st.data())
@settings(derandomize=True, deadline=None, max_examples=80)
def test_router_models_and_schema_accept_the_same_messages(
    router: ModuleType, action: str, data: st.DataObject
) -> None:
    message = data.draw(client_messages(action))
    by_router = router_accepts(router, message)
    assert accepts(TYPES["socket/client-request"], message) is by_router
    found = faults("socket/client-request", message)
    assert (not found) is by_router, found


def test_a_tenth_of_the_generated_messages_is_valid_but_not_all(router: ModuleType) -> None:
    for action in PAYLOADS:
        assert is_mixed(outcomes(client_messages(action), partial(router_accepts, router))), action


def good_events(function: str) -> Iterator[Json]:
    """The events of a function that its schema accepts."""
    for case in all_cases(REPOSITORY):
        event = VALUES.fill(case.event)
        if case.function.name == function and not faults(f"functions/{function}/input", event):
            yield event


def test_messages_of_send_interrupt_match_their_schema() -> None:
    module = module_of("send-interrupt")
    interrupts = [module.Interrupt.of(event) for event in good_events("send-interrupt")]
    bodies = [module.body_of(each, NOW) for each in interrupts if not module.skip_reason(each, NOW)]
    assert bodies
    assert [faults_of_ours("queues/interrupt", body) for body in bodies] == [[]] * len(bodies)


def test_dead_letters_of_handle_timeout_match_their_schema() -> None:
    module = module_of("handle-timeout")
    events = [event for event in good_events("handle-timeout") if "detail" not in event]
    letters = [
        module.dead_letter(module.Timeout.of(event), "2026-11-22T10:15:30Z", repeated=repeated)
        for event in events
        for repeated in (False, True)
    ]
    assert letters
    assert [faults_of_ours("queues/dead-letter", each) for each in letters] == [[]] * len(letters)


def test_webhook_messages_of_processor_match_their_schema() -> None:
    module = module_of("processor")
    sent: list[str] = []

    class Queue:
        def send_message(self, **message: Any) -> None:
            sent.append(message["MessageBody"])

    module.sqs = Queue
    document = {"assembly_id": "a", "execution": 2, "template_id": "tpl_x", "owner": "t#u"}
    job = SimpleNamespace(has_announced=False)
    module.announce_end(job, {**document, "webhook": {"status": "pending"}})
    module.announce_end(job, {**document, "webhook": {"status": "pending"}})
    assert [faults_of_ours("queues/webhook-delivery", json.loads(body)) for body in sent] == [[]]


def test_queued_requests_fit() -> None:
    """What dispatch puts into the queue `jobs`."""
    module = module_of("dispatch")
    events = [event for event in good_events("dispatch") if event]
    requests = [
        module.Change.of(record).request
        for event in events
        for record in event.get("Records", ())
        if "owner" in record["dynamodb"]["NewImage"]
    ]
    assert requests
    bodies = [json.loads(request.entry(0, time.time())["MessageBody"]) for request in requests]
    assert [faults_of_ours("queues/queued-request", body) for body in bodies] == [[]] * len(bodies)


@pytest.mark.parametrize("partial", [None, {"done": [1, 2]}, "x" * 100_000])
def test_causes_of_interrupted_workers_match_their_schema(partial: Json) -> None:
    cause = preemption_json(Interrupt("i-1", "m-2", "thread-2"), partial)
    assert faults_of_ours("job-flow/preemption-cause", json.loads(cause)) == []


@pytest.mark.parametrize(
    ("state", "model"),
    [("SendToContainer", queues.JobMessage), ("JoinHolder", queues.FollowUpMessage)],
)
def test_the_flows_messages_have_the_published_fields(state: str, model: Any) -> None:
    body = FLOW[state]["Arguments"]["MessageBody"]
    assert set(body) == {field.alias or name for name, field in model.model_fields.items()}
    assert accepts(model.model_fields["type"].annotation, body["type"])


@pytest.mark.parametrize(
    "state", [name for name, state in FLOW.items() if "FunctionName" in state.get("Arguments", {})]
)
def test_the_flows_inputs_have_only_published_fields(state: str) -> None:
    arguments = FLOW[state]["Arguments"]
    models = {
        "${CheckActiveJob}": [workspaces.CheckActiveJobInput],
        "${Claim}": [workspaces.AcquireInput, workspaces.ReleaseInput],
        "${SendInterrupt}": [workspaces.SendInterruptInput],
        "${RecordInterruption}": [workspaces.RecordInterruptionInput],
        "${HandleTimeout}": [workspaces.HandleTimeoutInput],
        "${ReportJob}": [workspaces.BeginJobInput],
    }[arguments["FunctionName"]]
    known = [{f.alias or n for n, f in model.model_fields.items()} for model in models]
    assert any(set(arguments["Payload"]) <= names for names in known)


@pytest.mark.parametrize(
    ("state", "model"),
    [
        ("ReleaseClaim", workspaces.JobCompleted),
        ("JoinHolder", workspaces.JobJoined),
        ("ReleaseAfterPreemption", workspaces.JobInterrupted),
    ],
)
def test_the_flows_output_matches_its_schema(state: str, model: Any) -> None:
    fields = {field.alias or name for name, field in model.model_fields.items()}
    assert set(FLOW[state]["Output"]) == fields
    assert accepts(model.model_fields["outcome"].annotation, FLOW[state]["Output"]["outcome"])


WORKER_MESSAGES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["JOB", "FOLLOW_UP"]),
        "projectUserId": st.just("amelia#scott"),
        "threadId": ID,
        "messageId": ID,
        "claimId": ID,
        "fence": st.sampled_from(FENCES),
        "instruction": ODD,
        "taskToken": st.just("token"),
        "containerId": ID,
        "attachments": st.lists(
            st.sampled_from(
                [
                    {"bucket": "b", "key": "k", "size": 3, "ok": True},
                    {"bucket": "b", "key": "k", "ok": False, "error": "S3.NoSuchKey"},
                ]
            )
        ),
        "heartbeatSeconds": st.sampled_from([1, 90.0]),
        "claimTtlSeconds": st.sampled_from([1, 86400]),
        "expiresAt": st.sampled_from([0, 1795342600]),
    }
)


@given(body=WORKER_MESSAGES)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_the_worker_reads_any_message_that_matches_its_schema(body: Json) -> None:
    assert faults("queues/worker", body) == []

    class Queues(Nowhere):
        def get_queue_url(self, **_: Any) -> dict[str, str]:
            return {"QueueUrl": "queue"}

    worker = JobWorker(
        "amelia", "scott", lambda job: None, claim_function="claim", prefix="test-",
        sqs=Queues(), stepfunctions=Nowhere(), lambda_=Nowhere(),
    )  # fmt: skip
    try:
        worker._content(Received("id", "receipt", body, 1))
    except MalformedMessageError as error:
        raise AssertionError(body) from error
