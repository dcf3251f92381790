"""Pictures for docs/, generated from the configuration, the job flow and `*.dot` files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobplane.tree.configuration import Configuration, logical_id, references
from jobplane.tree.repository import Function, Repository, read_yaml
from lambdapack.tools import run_quietly

FOLDER = Path("docs", "pictures")
FLOW = Path("resources", "job-flow.asl.yml")
SCRIPT = Path(__file__).with_name("graphviz.mjs")
WRITES = ("PutItem", "UpdateItem", "DeleteItem", "SendMessage")
SHAPES = {
    "AWS::DynamoDB::Table": 'shape=cylinder, fillcolor="#fff3d6"',
    "AWS::SQS::Queue": 'shape=cds, fillcolor="#fde2e4"',
    "AWS::StepFunctions::StateMachine": 'shape=hexagon, fillcolor="#e2ecfd"',
}
FUNCTION = 'shape=box, style="rounded,filled", fillcolor="#dff3e4"'
STYLE = """\
  graph [bgcolor=white, fontname="Helvetica", rankdir={direction}, nodesep=0.25, ranksep={ranks}]
  node [fontname="Helvetica", fontsize=12, margin="0.2,0.08", color="#71717a"]
  node [style=filled, fillcolor="#f4f4f5"]
  edge [fontname="Helvetica", fontsize=10, color="#52525b", arrowsize=0.7]
"""

type Edge = tuple[str, str, str]
"""From, to, label."""


def pictures(repository: Repository) -> dict[Path, str]:
    sources = {"system": system(repository)}
    if (repository.root / FLOW).is_file():
        sources["job-flow"] = job_flow(repository)
    for path in sorted((repository.root / FOLDER).glob("*.dot")):
        sources[path.stem] = path.read_text(encoding="utf-8")
    run: dict[str, Any] = {"cwd": repository.root, "what": "Graphviz"}
    return {
        FOLDER / f"{name}.svg": run_quietly(["node", SCRIPT], given=dot, **run)
        for name, dot in sources.items()
    }


def system(repository: Repository) -> str:
    """The triggers of each function, and the tables and queues that it writes to, as DOT."""
    configuration = Configuration(repository)
    functions = repository.functions()
    edges = {
        edge
        for function in functions
        for edge in (*_triggers(function, configuration), *_writes(function, configuration))
    }
    lines = [f"  {_quoted(function.name)} [{FUNCTION}]" for function in functions]
    used = {end for edge in edges for end in edge[:2]} - {function.name for function in functions}
    kinds = {
        _short(name): declared.body["Type"] for name, declared in configuration.resources.items()
    }
    lines += [
        f"  {_quoted(name)} [{SHAPES.get(kinds.get(name, ''), 'shape=plain')}]"
        for name in sorted(used)
    ]
    return _graph(lines, sorted(edges), "LR", 0.9)


def job_flow(repository: Repository) -> str:
    """The states of the job flow and their transitions, except those to `JobFailed`, as DOT."""
    states: dict[str, Any] = read_yaml(repository.root / FLOW)["States"]
    lines = []
    edges: list[Edge] = []
    for name, state in states.items():
        lines.append(f"  {_quoted(name)} [{_look(state)}]")
        edges += [(name, follower, "") for follower in _followers(state)]
        edges += [
            (
                name,
                catch["Next"],
                "\n".join(error.rpartition(".")[2] for error in catch["ErrorEquals"]),
            )
            for catch in state.get("Catch", ())
            if catch["ErrorEquals"] != ["States.ALL"]
        ]
    return _graph(lines, edges, "TB", 0.35)


def _look(state: dict[str, Any]) -> str:
    match state["Type"]:
        case "Choice":
            return 'shape=diamond, fillcolor="#ffffff"'
        case "Succeed":
            return 'shape=box, style="rounded,filled", fillcolor="#bbf7d0"'
        case "Fail":
            return 'shape=box, style="rounded,filled", fillcolor="#fecaca"'
        case "Task" if "lambda:invoke" in str(state["Resource"]):
            return FUNCTION
    return 'shape=box, fillcolor="#e2ecfd"'


def _followers(state: dict[str, Any]) -> Iterator[str]:
    for choice in state.get("Choices", ()):
        yield choice["Next"]
    if "Default" in state:
        yield state["Default"]
    if "Next" in state:
        yield state["Next"]


def _triggers(function: Function, configuration: Configuration) -> Iterator[Edge]:
    for event in function.config.get("events") or ():
        ((kind, of),) = event.items()
        match kind:
            case "websocket":
                yield "WebSocket API", function.name, of["route"] if isinstance(of, dict) else of
            case "httpApi":
                yield "HTTP API", function.name, ""
            case "schedule":
                yield "schedule", function.name, ""
            case _:
                for source in sorted(references(of["arn"])):
                    yield _short(source), function.name, "stream" if kind == "stream" else ""
    for user in configuration.users(logical_id(function)):
        kind = configuration.resources[user].body["Type"]
        if kind in ("AWS::StepFunctions::StateMachine", "AWS::Events::Rule"):
            yield _short(user), function.name, ""


def _writes(function: Function, configuration: Configuration) -> Iterator[Edge]:
    for statement in function.config.get("iamRoleStatements") or ():
        actions = json.dumps(statement.get("Action", ""))
        if any(action in actions for action in WRITES):
            for resource in references(statement["Resource"]) & configuration.resources.keys():
                if configuration.resources[resource].body["Type"] in SHAPES:
                    yield function.name, _short(resource), ""


def _short(logical: str) -> str:
    """A resource's logical id as words: `jobs dead letter queue`, `active jobs`."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", logical).lower()
    return words.removesuffix(" table").removesuffix(" rule")


def _graph(lines: list[str], edges: list[Edge], direction: str, ranks: float) -> str:
    drawn = [
        f"  {_quoted(start)} -> {_quoted(end)}" + (f" [label={_quoted(label)}]" if label else "")
        for start, end, label in edges
    ]
    style = STYLE.format(direction=direction, ranks=ranks)
    return "\n".join(["digraph {", style, *lines, *drawn, "}", ""])


def _quoted(text: str) -> str:
    return json.dumps(text)
