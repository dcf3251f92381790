"""What invokes a function, in words."""

from collections.abc import Iterator
from typing import Any

from jobplane.tree.configuration import Configuration, logical_id, references
from jobplane.tree.repository import Function

IN_WORDS = {"AWS::StepFunctions::StateMachine": "Step Functions", "AWS::Events::Rule": "rule"}


def triggers(function: Function, configuration: Configuration) -> list[str]:
    """The triggers in function.yml and in `resources/`; `invoke` if there are none."""
    declared = [_event(event) for event in function.config.get("events") or ()]
    return [*declared, *_resources(function, configuration)] or ["invoke"]


def _event(event: Any) -> str:
    if isinstance(event, str):
        return event
    ((kind, of),) = event.items()
    if kind == "websocket":
        return f"WebSocket {of['route'] if isinstance(of, dict) else of}"
    if kind == "httpApi":
        return f"{of['method']} {of['path']}" if isinstance(of, dict) else str(of)
    if kind == "schedule":
        return f"schedule {of['rate'] if isinstance(of, dict) else of}"
    used = sorted(references(of.get("arn", of) if isinstance(of, dict) else of))
    return f"{kind} {used[0]}" if used else kind


def _resources(function: Function, configuration: Configuration) -> Iterator[str]:
    for user in configuration.users(logical_id(function)):
        words = IN_WORDS.get(configuration.resources[user].body["Type"])
        if words is not None:
            yield f"{words} {user}"
