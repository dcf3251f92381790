"""A role grants the IAM actions that its function or its state machine uses, and no others.

Used: calls of its clients, in the function and in libs that get a client, and what its event
sources and destinations need. Granted: iamRoleStatements of function.yml, without wildcards. A
transaction needs the actions of its items. An action without a visible call is allowed by an entry
with its name. A state machine uses what its states call, and what its logs and traces need.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from botocore import xform_name
from botocore.exceptions import UnknownServiceError

from jobplane.rules._flow import Call, Facts, Program
from jobplane.rules._steps import StateMachine, state_machines
from jobplane.rules._tree import Finding, Findings, Member, Tree, line_of
from jobplane.terminal.environments import session_without_account
from jobplane.tree.repository import Function
from lambdapack.thinning.iam import ACTIONS, ITEM_ACTIONS, prefix_of

# Methods of boto3 that call operations of S3.
TRANSFERS = {
    "copy": ("CopyObject", "HeadObject", "AbortMultipartUpload"),
    "download_file": ("GetObject", "HeadObject"),
    "download_fileobj": ("GetObject", "HeadObject"),
    "upload_file": ("PutObject", "AbortMultipartUpload"),
    "upload_fileobj": ("PutObject", "AbortMultipartUpload"),
}
NOT_OPERATIONS = frozenset(
    {"can_paginate", "close", "exceptions", "generate_db_auth_token", "meta", "waiter_names"}
)
# Actions that Lambda itself performs with the function's role, by event source and destination.
SOURCE_ACTIONS = {
    "dynamodb": (
        "dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator",
        "dynamodb:ListStreams",
    ),
    "kinesis": (
        "kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:GetRecords",
        "kinesis:GetShardIterator", "kinesis:ListShards",
    ),
    "sqs": ("sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"),
}  # fmt: skip
# What the delivery of a state machine's logs and its traces need.
LOG_ACTIONS = (
    "logs:CreateLogDelivery", "logs:DeleteLogDelivery", "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies", "logs:GetLogDelivery", "logs:ListLogDeliveries",
    "logs:PutResourcePolicy", "logs:UpdateLogDelivery",
)  # fmt: skip
TRACE_ACTIONS = (
    "xray:GetSamplingRules", "xray:GetSamplingTargets", "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
)  # fmt: skip
DESTINATION_ACTIONS = {"sqs": "sqs:SendMessage", "sns": "sns:Publish"}


def findings(tree: Tree) -> Findings:
    for member in tree.members:
        function = member.function
        if function is None:
            continue
        program = tree.program(function)
        granted = set(_granted(function))
        yield from _wildcards(member, function, granted)
        used: dict[str, Call | None] = dict.fromkeys(_used_by_events(function))
        for call in sorted(program.facts.calls, key=lambda call: (call.place.line, call.method)):
            actions = list(_actions(call, program))
            if not actions and not _is_known(call, program):
                path, line = call.place.path, call.place.line
                text = f"{call.service} has no method {call.method!r}: call a method by its name"
                yield Finding(path, line, text, call.method, member)
            used |= {action: call for action in actions if action not in used}
        yield from _lost(member, program.facts)
        yield from _missing(member, function, used, granted)
        yield from _idle(member, function, set(used), granted)
    if tree.is_whole:
        for machine in state_machines(tree.repository):
            yield from _of_machine(machine)


def _of_machine(machine: StateMachine) -> Findings:
    """Actions that a state machine's role lacks, or grants in vain."""
    used = {*(LOG_ACTIONS if machine.logs else ()), *(TRACE_ACTIONS if machine.traces else ())}
    for step in machine.steps:
        service, _, name = step.service.partition(":")
        if not name:
            continue
        called = f"{name[:1].upper()}{name[1:]}"
        actions = ACTIONS.get(service, {}).get(called) or (f"{prefix_of(service)}:{called}",)
        for action in set(actions) - machine.granted:
            line = line_of(machine.path, f"{step.name}:")
            text = f"{step.name} needs {action}: add it to the role of {machine.path.name}"
            yield Finding(machine.path, line, text, action)
        used |= set(actions)
    for action in sorted(machine.granted - used):
        text = f"{action} is granted to {machine.path.name}, but no state needs it: remove it"
        yield Finding(machine.resources, line_of(machine.resources, action), text, action)


def _granted(function: Function) -> Iterator[str]:
    for statement in function.config.get("iamRoleStatements") or ():
        if statement.get("Effect") == "Allow":
            action = statement.get("Action") or ()
            yield from [action] if isinstance(action, str) else action


def _wildcards(member: Member, function: Function, granted: set[str]) -> Findings:
    path = function.config_path
    for statement in function.config.get("iamRoleStatements") or ():
        for key in ("NotAction", "NotResource"):
            if key in statement:
                text = f"{key} grants what is not listed: list what the function uses"
                yield Finding(path, line_of(path, key), text)
    for action in sorted(granted):
        if "*" in action or "?" in action:
            text = f"{action} is a wildcard: name the actions that the function uses"
            yield Finding(path, _line(function, action), text, action, member)


def _missing(
    member: Member, function: Function, used: dict[str, Call | None], granted: set[str]
) -> Findings:
    for action, call in used.items():
        if action in granted:
            continue
        if call is None:
            text = f"Lambda needs {action} for this function's events: grant it"
            path, line = function.config_path, line_of(function.config_path, "events")
        else:
            path, line = call.place.path, call.place.line
            text = f"{call.method} needs {action}: add it to iamRoleStatements of {member.name}"
        yield Finding(path, line, text, action, member)


def _idle(member: Member, function: Function, used: set[str], granted: set[str]) -> Findings:
    for action in sorted(granted - used):
        if "*" not in action and "?" not in action:
            text = f"{action} is granted, but never used: remove it, or allow it with a reason"
            yield Finding(function.config_path, _line(function, action), text, action, member)


def _lost(member: Member, facts: Facts) -> Findings:
    for place, name in facts.lost.items():
        text = f"a client goes to {name}, which can't be analysed: call its methods here"
        yield Finding(place.path, place.line, text, name, member)


def _line(function: Function, action: str) -> int:
    path = function.config_path
    return line_of(path, action, line_of(path, "iamRoleStatements"))


def _used_by_events(function: Function) -> Iterator[str]:
    for event in function.config.get("events") or ():
        for kind, source in event.items():
            if kind == "sqs":
                yield from SOURCE_ACTIONS["sqs"]
            elif kind == "stream" and isinstance(source, dict):
                yield from SOURCE_ACTIONS.get(str(source.get("type", "dynamodb")), ())
            if isinstance(source, dict):
                failure = (source.get("destinations") or {}).get("onFailure")
                if isinstance(failure, dict):
                    yield from filter(None, [DESTINATION_ACTIONS.get(str(failure.get("type")))])


def _is_known(call: Call, program: Program) -> bool:
    """Whether the call can be ignored: it is not an operation, or belongs to another service.

    If a client may be of several services, the method must exist in one of them.
    """
    if call.method in NOT_OPERATIONS or operation(call.service, call.method) is not None:
        return True
    others = {c.service for c in program.facts.calls if c.place == call.place} - {call.service}
    return any(list(_actions_of(service, call)) for service in others)


def _actions(call: Call, program: Program) -> Iterator[str]:
    for action in _actions_of(call.service, call):
        if action == "dynamodb:TransactWriteItems":
            yield from (ITEM_ACTIONS[kind] for kind in sorted(program.facts.transactions))
        else:
            yield action


def _actions_of(service: str, call: Call) -> Iterator[str]:
    for name in _operations(service, call):
        named = ACTIONS.get(service, {}).get(name)
        yield from (f"{prefix_of(service)}:{name}",) if named is None else named


def _operations(service: str, call: Call) -> Iterable[str]:
    if not is_service(service):
        return []
    if service == "s3" and call.method in TRANSFERS:
        return TRANSFERS[call.method]
    if call.method == "generate_presigned_post":
        return ["PutObject"]
    if call.method == "get_waiter":
        return filter(None, [waited_for(service, call.argument or "")])
    is_indirect = call.method in ("get_paginator", "generate_presigned_url")
    method = call.argument if is_indirect else call.method
    return filter(None, [operation(service, method or "")])


@cache
def _model(service: str) -> Any:
    return session_without_account().get_service_model(service)


@cache
def is_service(service: str) -> bool:
    try:
        _model(service)
    except UnknownServiceError:
        return False
    return True


@cache
def operation(service: str, method: str) -> str | None:
    if not is_service(service):
        return None
    names = {xform_name(name): name for name in _model(service).operation_names}
    return names.get(method)


@cache
def waited_for(service: str, waiter: str) -> str | None:
    """The operation that a waiter repeats."""
    waiters = session_without_account().get_waiter_model(service)
    names = {xform_name(name): name for name in waiters.waiter_names}
    return str(waiters.get_waiter(names[waiter]).operation) if waiter in names else None
