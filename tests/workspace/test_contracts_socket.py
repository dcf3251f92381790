"""The contracts of the WebSocket: actions, messages, and the example client."""

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest

from jobplane.contracts.catalogue import SOCKET_ACTIONS, loaded, socket_actions
from jobplane.tree.repository import Repository
from tests.published import faults, faults_of_ours
from tests.workspace.typescript import TYPES, compile_types

REPOSITORY = Repository.here()
ASYNCAPI = REPOSITORY.root / "contracts" / "asyncapi.json"


def test_the_contracts_have_exactly_the_routers_actions() -> None:
    (router,) = REPOSITORY.select(("router",))
    module = loaded(router, REPOSITORY)
    actions = module.ACTIONS
    described = {action.name: action for action in SOCKET_ACTIONS}
    assert set(described) == set(actions) | actions_with_a_route()
    for name, action in actions.items():
        payload = described[name].request.model_fields["payload"].annotation
        kinds = [kind.__name__ for kind in get_args(payload) or [payload] if action.payload]
        stored = ["StoredPayload"] if name in module.STORABLE else []
        assert kinds == [*filter(None, [action.payload]), *stored]
        queued = action.mode == "async" or action.forcible
        assert (described[name].result is not None) is queued
        answered = action.mode == "sync" and described[name].message is None
        assert (described[name].answer is not None) is answered
    operations = json.loads(ASYNCAPI.read_text(encoding="utf-8"))["operations"]
    assert len(operations) == len(socket_actions(REPOSITORY)) + 1


def actions_with_a_route() -> set[str]:
    """The actions of other functions than router."""
    events = [event for each in REPOSITORY.functions() for event in each.config.get("events", [])]
    routes = {event["websocket"]["route"] for event in events if "websocket" in event}
    return {route for route in routes if not route.startswith("$")}


def test_messages_with_unknown_fields_are_found() -> None:
    """Clients accept them, but these tests do not."""
    message = {"type": "pong", "request_id": "r", "timestamp": "2026-11-22T10:15:30.250Z"}
    assert faults_of_ours("socket/server-message", message) == []
    assert faults("socket/server-message", message | {"more": 1}) == []
    assert faults_of_ours("socket/server-message", message | {"more": 1})
    assert faults_of_ours("socket/server-message", message | {"timestamp": "now"})


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ('case "pong":\n', "", "not assignable to parameter of type 'never'"),
        ("seconds: 2", 'seconds: "2"', "Type 'string' is not assignable to type 'number'"),
        ("message.percentage.toFixed(0)", "message.percent", "'percent' does not exist"),
        ('action: "delay"', 'action: "delays"', "is not assignable to type '\"delay\"'"),
    ],
    ids=["not-dealt-with", "payload", "field", "action"],
)
def test_a_wrong_use_does_not_compile(tmp_path: Path, right: str, wrong: str, says: str) -> None:
    shutil.copytree(TYPES, tmp_path, dirs_exist_ok=True)
    example = tmp_path / "example.ts"
    text = example.read_text()
    assert right in text
    example.write_text(text.replace(right, wrong))
    done = compile_types(tmp_path)
    assert done.returncode != 0
    assert says in done.stdout
