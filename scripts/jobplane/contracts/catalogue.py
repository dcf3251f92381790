"""The list of contracts: every event, message, input and result, by the name of its file.

The models define them; a function's `pyproject.toml` names those of its input and result:

    [tool.jobplane.contracts]
    input = "jobplane_models.events:HttpEvent"      # or a list of accepted ones
    result = "whoami:WhoamiResult"                  # or a type in the function's own module

`operations = true` stands for the request models of the function's `OPERATIONS`.
"""

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from types import ModuleType
from typing import Annotated, Any, Literal, Union, get_args
from unittest.mock import patch

import click
from pydantic import BaseModel, Discriminator, create_model

from jobplane.tree.configuration import Configuration, event_kinds
from jobplane.tree.entry_points import PAYLOADS, EntryPoint, entry_points
from jobplane.tree.modules import imported
from jobplane.tree.repository import Function, Repository
from jobplane.tree.resolved import REGION, ResolvedStack
from jobplane_models import answers, events, lookups, messages, queues, requests, workspaces
from jobplane_models.assemblies import AssemblyDocument
from jobplane_models.payloads import ActionPayload
from lambdapack.environments import plain_environment


@dataclass(frozen=True)
class Contract:
    """A published type: `contracts/json-schema/<name>.json`; `title` is the type's name."""

    name: str
    title: str
    type: Any


@dataclass(frozen=True)
class SocketAction:
    """What a client sends for an action, and receives: an immediate answer, a job's result, or
    neither of them but a message that several actions have.
    """

    name: str
    request: type[BaseModel]
    answer: type[BaseModel] | None = None
    result: type[BaseModel] | None = None
    message: str | None = None


SOCKET_ACTIONS = (
    SocketAction("authenticate", requests.AuthenticateRequest, answers.Authenticated),
    SocketAction("callback", requests.CallbackRequest, answers.CallbackReturned),
    SocketAction("cancel", requests.CancelRequest, answers.Cancelled),
    SocketAction("count", requests.CountRequest, result=answers.CountResult),
    SocketAction("create_upload", requests.CreateUploadRequest, answers.CreatedUpload),
    SocketAction("delay", requests.DelayRequest, result=answers.DelayResult),
    SocketAction("echo", requests.EchoRequest, answers.Echo, answers.Echo),
    SocketAction("generate_report", requests.GenerateReportRequest, result=answers.Report),
    SocketAction("health", requests.HealthRequest, answers.Health, answers.Health),
    SocketAction("instruct", requests.InstructRequest, result=answers.Instructed),
    SocketAction("ping", requests.PingRequest, message="pong"),
    SocketAction("process_assembly", requests.ProcessAssemblyRequest, result=AssemblyDocument),
    SocketAction("replay", requests.ReplayRequest, message="acknowledgment"),
    SocketAction("status", requests.StatusRequest, answers.RequestState),
    SocketAction("subscribe", requests.SubscribeRequest, answers.Subscribed),
    SocketAction("unsubscribe", requests.UnsubscribeRequest, answers.Unsubscribed),
)


@cache
def socket_actions(repository: Repository) -> tuple[SocketAction, ...]:
    """The actions of router, and those that packages of the repository add."""
    added = []
    for point in entry_points(repository):
        if point.group == PAYLOADS:
            model = _imported(point)
            request = requests.request_of(point.name, model)
            added.append(SocketAction(point.name, request, result=model.result))
    return tuple(sorted((*SOCKET_ACTIONS, *added), key=attrgetter("name")))


def _imported(point: EntryPoint) -> type[ActionPayload]:
    try:
        found = getattr(importlib.import_module(point.module), point.attribute)
    except (ImportError, AttributeError) as error:
        raise click.ClickException(
            f"{point.project}: {point.group} names {point.value!r}: {error}; `uv sync "
            "--all-packages` installs a package, `jobplane check --rule references` finds more"
        ) from error
    if not (isinstance(found, type) and issubclass(found, ActionPayload)):
        raise click.ClickException(f"{point.project}: {point.value} is not an ActionPayload")
    return found


MESSAGES = {
    "socket/client-message": ("ClientMessage", messages.ClientMessage),
    "socket/server-message": ("ServerMessage", messages.ServerMessage),
    "socket/handshake": ("Handshake", lookups.ConnectAnswer | lookups.ConnectRefusal),
    "http/assembly": ("AssemblyDocument", AssemblyDocument),
    "http/assembly-page": ("AssemblyPage", lookups.AssemblyPage),
    "http/batch-answer": ("BatchAnswer", lookups.BatchAnswer),
    "http/batch-request": ("BatchRequest", lookups.BatchRequest),
    "http/refusal": ("Refusal", lookups.Refusal),
    "webhooks/body": ("AssemblyDocument", AssemblyDocument),
    "queues/dead-letter": ("DeadLetter", queues.DeadLetter),
    "queues/interrupt": ("InterruptMessage", queues.InterruptMessage),
    "queues/queued-request": ("QueuedRequest", queues.QueuedRequest),
    "queues/unreadable-record": ("UnreadableRecord", queues.UnreadableRecord),
    "queues/webhook-delivery": ("WebhookDelivery", queues.WebhookDelivery),
    "queues/worker": ("WorkerMessage", queues.WorkerMessage),
    "job-flow/input": ("JobFlowInput", workspaces.JobFlowInput),
    "job-flow/preemption-cause": ("PreemptionCause", workspaces.PreemptionCause),
    "job-flow/result": ("JobFlowResult", workspaces.JobFlowResult),
}


# The kind of event or the resource that a stack needs to send a message. The first match of a
# contract's name decides.
SENT_WITH = {
    "socket/": "websocket",
    "http/": "httpApi",
    "webhooks/": "WebhooksQueue",
    "queues/webhook-delivery": "WebhooksQueue",
    "queues/queued-request": "JobsQueue",
    "queues/unreadable-record": "RequestsFailureQueue",
    "queues/": "JobFlow",
    "job-flow/": "JobFlow",
}


def is_sent(name: str, repository: Repository) -> bool:
    wanted = next(needed for prefix, needed in SENT_WITH.items() if name.startswith(prefix))
    kinds = (event_kinds(function.config) for function in repository.functions())
    return wanted in Configuration(repository).resources or any(wanted in each for each in kinds)


def catalogue(repository: Repository) -> list[Contract]:
    messages_ = (each for each in _messages(repository) if is_sent(each.name, repository))
    found = [*messages_, *(each for f in repository.functions() for each in _of(f, repository))]
    return sorted(found, key=lambda contract: contract.name)


def _messages(repository: Repository) -> Iterator[Contract]:
    actions = socket_actions(repository)
    known = get_args(get_args(requests.ClientRequest)[0])
    added = [each.request for each in actions if each.request not in known]
    kinds: Any = Union[(*known, *added)]  # noqa: UP007 - made here
    request: Any = Annotated.__getitem__((kinds, Discriminator("action")))
    yield Contract("socket/client-request", "ClientRequest", request)
    for name, (title, kind) in MESSAGES.items():
        yield Contract(name, title, kind)
    for action in actions:
        file = action.name.replace("_", "-")
        for folder, model in (("answers", action.answer), ("results", action.result)):
            if model is not None:
                yield Contract(f"socket/{folder}/{file}", model.__name__, model)


def _of(function: Function, repository: Repository) -> Iterator[Contract]:
    """A function's input and result: `tool.jobplane.contracts` of its member."""
    folder = f"functions/{function.name}"
    declared = function.settings.get("contracts", {})
    if declared.get("operations"):
        yield from _of_operations(function, repository, folder)
        return
    for kind, ending in (("input", "Event"), ("result", "Result")):
        if references := declared.get(kind):
            title = f"{pascal(function.module)}{ending}"
            yield Contract(f"{folder}/{kind}", *_declared(references, title, function, repository))


def _declared(
    references: str | list[str], title: str, function: Function, repository: Repository
) -> tuple[str, Any]:
    """The title and the type of a reference; several become a union with its own title."""
    if isinstance(references, str):
        return references.partition(":")[2], _referred(references, function, repository)
    kinds = tuple(_referred(reference, function, repository) for reference in references)
    if title in {kind.__name__ for kind in kinds}:
        title = f"Any{title}"
    return title, Union[kinds]  # noqa: UP007 - made here


def _referred(reference: str, function: Function, repository: Repository) -> Any:
    """`module:Name`: a model of a lib, or a type of the function's own module."""
    place, _, name = reference.partition(":")
    try:
        is_own = place == function.module
        module = loaded(function, repository) if is_own else importlib.import_module(place)
        return getattr(module, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.ClickException(
            f"functions/{function.name}/pyproject.toml: "
            f"tool.jobplane.contracts names {reference!r}: {error}"
        ) from error


def _of_operations(function: Function, repository: Repository, folder: str) -> Iterator[Contract]:
    """A function with a table `OPERATIONS` of request models."""
    module = loaded(function, repository)
    kinds: list[Any] = []
    for name, (model, *_) in sorted(module.OPERATIONS.items()):
        request = _request_of(name, model, is_default=name == module.DEFAULT_OPERATION)
        yield Contract(f"{folder}/operations/{name.replace('_', '-')}", request.__name__, request)
        kinds.append(request)
    title = pascal(function.module)
    yield Contract(f"{folder}/input", f"{title}Event", Union[tuple(kinds)])  # noqa: UP007 - made here
    yield Contract(f"{folder}/result", f"{title}Result", events.ProxyAnswer)


def _request_of(name: str, model: type[BaseModel], *, is_default: bool) -> type[BaseModel]:
    """An operation's request as sent, with the operation's name."""
    operation: Any = Literal.__getitem__(name)
    named: Any = (operation | None, None) if is_default else (operation, ...)
    return create_model(
        f"{pascal(name)}Operation",
        __base__=model,
        __doc__=model.__doc__,
        operation=named,
        source=(str | None, None),
    )


def loaded(function: Function, repository: Repository) -> ModuleType:
    """A function's module, imported with its environment. Do not call it."""
    region = {"AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
    environment = plain_environment() | ResolvedStack(repository).environment(function) | region
    with patch.dict(os.environ, environment, clear=True), imported(function) as module:
        return module


def pascal(name: str) -> str:
    """`find_orphans` as `FindOrphans`."""
    return "".join(word.capitalize() for word in name.split("_"))
