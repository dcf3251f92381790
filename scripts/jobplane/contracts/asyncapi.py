"""AsyncAPI 3.0 of the socket: what a client sends for each action, and what it may receive."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobplane.contracts.catalogue import Contract, SocketAction, socket_actions
from jobplane.contracts.json_schema import definitions_of
from jobplane.tree.repository import Repository, read_yaml
from jobplane_models import answers, messages

# What does not follow from the models.
SKELETON = Path(__file__).with_name("asyncapi.yml")
SCHEMAS = "#/components/schemas"
MESSAGES = "#/channels/socket/messages"
HEARD: dict[str, type[BaseModel]] = {
    "acknowledgment": messages.AcknowledgmentMessage,
    "complete": messages.CompleteMessage,
    "error": messages.ErrorMessage,
    "ping": messages.PingMessage,
    "pong": messages.PongMessage,
    "progress": messages.ProgressMessage,
    "response": messages.ResponseMessage,
}


def camel(action: str) -> str:
    """`create_upload` as `createUpload`."""
    first, *rest = action.split("_")
    return first + "".join(word.capitalize() for word in rest)


def schema_of(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"{SCHEMAS}/{model.__name__}"}


def summary_of(model: type[BaseModel]) -> str:
    """The first sentence of a model's docstring, without its full stop."""
    first, _, _ = (model.__doc__ or "").partition("\n")
    return first.strip().removesuffix(".")


def message(name: str, payload: dict[str, Any], summary: str, correlated_by: str) -> dict[str, Any]:
    return {
        "name": name,
        "summary": summary,
        "contentType": "application/json",
        "correlationId": {"location": f"$message.payload#/{correlated_by}"},
        "payload": payload,
    }


def narrowed(base: type[BaseModel], field: str, kinds: list[type[BaseModel]]) -> dict[str, Any]:
    choices = [schema_of(kind) for kind in kinds]
    content = choices[0] if len(choices) == 1 else {"anyOf": choices}
    return {"allOf": [schema_of(base), {"type": "object", "properties": {field: content}}]}


def messages_of(action: SocketAction) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a client sends for an action, and the answers that only this action has."""
    name = camel(action.name)
    request = action.request
    yield (
        f"{name}Request",
        message(f"{name}Request", schema_of(request), summary_of(request), "id"),
    )
    if action.answer is not None:
        payload = narrowed(messages.ResponseMessage, "data", [action.answer])
        summary = f"Answers `{action.name}`"
        yield f"{name}Response", message(f"{name}Response", payload, summary, "request_id")
    if action.result is not None:
        kinds: list[type[BaseModel]] = [action.result, answers.LinkedResult]
        payload = narrowed(messages.CompleteMessage, "result", kinds)
        summary = f"Ends `{action.name}`"
        yield f"{name}Complete", message(f"{name}Complete", payload, summary, "request_id")


def replies_to(action: SocketAction) -> list[str]:
    name = camel(action.name)
    own = [action.message] if action.message else []
    if action.answer is not None:
        own.append(f"{name}Response")
    if action.result is not None:
        own += ["acknowledgment", "progress", f"{name}Complete"]
    return [*own, "error"]


def operation_of(action: SocketAction) -> dict[str, Any]:
    channel = {"$ref": "#/channels/socket"}
    return {
        "action": "receive",
        "channel": channel,
        "summary": summary_of(action.request),
        "messages": [{"$ref": f"{MESSAGES}/{camel(action.name)}Request"}],
        "reply": {
            "channel": channel,
            "messages": [{"$ref": f"{MESSAGES}/{name}"} for name in replies_to(action)],
        },
    }


def asyncapi_of(version: str, repository: Repository) -> dict[str, Any]:
    """The whole document, from the service's view: it receives requests and sends messages."""
    actions = socket_actions(repository)
    models = {model.__name__: model for model in HEARD.values()}
    models |= {"LinkedResult": answers.LinkedResult}
    for action in actions:
        kinds = (action.request, action.answer, action.result)
        models |= {kind.__name__: kind for kind in kinds if kind is not None}
    known = {
        name: message(name, schema_of(model), summary_of(model), "request_id")
        for name, model in HEARD.items()
    }
    for action in actions:
        known |= messages_of(action)
    told = ("progress", "complete", "error", "ping")
    contracts = [Contract(name, name, model) for name, model in models.items()]
    document: dict[str, Any] = read_yaml(SKELETON)
    socket = document["channels"]["socket"]
    listed = {name: {"$ref": f"#/components/messages/{name}"} for name in sorted(known)}
    tell = {"messages": [{"$ref": f"{MESSAGES}/{name}"} for name in told]}
    return document | {
        "info": document["info"] | {"version": version},
        "channels": {"socket": socket | {"messages": listed}},
        "operations": {
            **{camel(action.name): operation_of(action) for action in actions},
            "tell": document["operations"]["tell"] | tell,
        },
        "components": document["components"]
        | {
            "messages": dict(sorted(known.items())),
            "schemas": definitions_of(contracts, SCHEMAS),
        },
    }
