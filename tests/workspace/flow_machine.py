"""The job flow in process: its states in order, with results that a test sets.

Expressions are evaluated by the engine that the emulator has. Every payload is measured, as Step
Functions counts it: UTF-8 bytes of JSON text.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jsonata
from jsonata.functions import Functions

from jobplane.tree.repository import Repository, read_yaml

MAX_BYTES = 262_144
"""Of a state's input, output and arguments, of one variable, and of what one state assigns."""
MAX_CAUSE = 32_768
EXECUTION = "n" * 80
ROOT = Repository.here().root
BUCKET = "b" * 63
PYTHONS_DEPTH = 1000
JAVASCRIPT_DEPTH = 10_000

# Importing jsonata changes it for the whole process, and so for other tests.
sys.setrecursionlimit(PYTHONS_DEPTH)

type Json = Any
type Answers = Mapping[str, Json | Exception | Callable[[Json], Json]]


class Encoder(Functions.Encoder):  # type: ignore[misc]
    """JSON as the reference engine writes it: without escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"ensure_ascii": False})


Functions.Encoder = Encoder


class TaskError(Exception):
    """A task's error, with the name that Retry and Catch match."""

    def __init__(self, name: str | None, cause: str | None = "") -> None:
        super().__init__(name)
        self.name = name
        self.cause = cause


def size(value: Json) -> int:
    """The bytes of a value's JSON text."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode(errors="surrogatepass"))


@dataclass
class Run:
    """An execution. `answers` has each task's result by its state's name."""

    answers: Answers
    variables: dict[str, Json] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """The largest payload of each state, by `state.kind`."""
    arguments: dict[str, Json] = field(default_factory=dict)
    fields: dict[str, Json] = field(default_factory=dict)
    """What HeartbeatSeconds and TimeoutSeconds came to."""
    path: list[str] = field(default_factory=list)

    def start(self, given: Json, machine: Mapping[str, Any] | None = None) -> Json:
        """The output of the execution, or its error as `{"Error", "Cause"}`."""
        states = (machine or definition())["States"]
        name, value = (machine or definition())["StartAt"], given
        while True:
            self.path.append(name)
            state = states[name]
            self._measure(name, "input", value)
            value, following = self._step(name, state, value)
            self._measure(name, "output", value)
            if following is None:
                return value
            name = following

    def _step(self, name: str, state: Mapping[str, Any], value: Json) -> tuple[Json, str | None]:
        scope: dict[str, Json] = {"input": value}
        match state["Type"]:
            case "Succeed":
                return value, None
            case "Fail":
                told = {k: self._value(state[k], scope) for k in ("Error", "Cause")}
                assert len(told["Cause"]) <= MAX_CAUSE, (name, len(told["Cause"]))
                return told, None
            case "Choice":
                for rule in state["Choices"]:
                    if self._value(rule["Condition"], scope):
                        return self._leave(name, rule, scope, value, rule["Next"])
                return self._leave(name, state, scope, value, state["Default"])
            case "Pass" | "Wait":
                return self._leave(name, state, scope, value, state.get("Next"))
            case "Map":
                items = self._value(state["Items"], scope)
                found = [self.start(item, state["ItemProcessor"]) for item in items]
                scope["result"] = found
                return self._leave(name, state, scope, found, state["Next"])
        return self._task(name, state, scope)

    def _task(self, name: str, state: Mapping[str, Any], scope: dict[str, Json]) -> Any:
        arguments = self._value(state.get("Arguments", {}), scope)
        self.arguments[name] = arguments
        self._measure(name, "arguments", arguments)
        for field_name in ("HeartbeatSeconds", "TimeoutSeconds"):
            if field_name in state:
                self.fields[field_name] = self._value(state[field_name], scope)
        if "MessageBody" in arguments:
            self._measure(name, "message", json.dumps(arguments["MessageBody"], ensure_ascii=False))
        try:
            answer = self.answers[name]
            if isinstance(answer, TaskError):
                raise answer
            result = answer(arguments) if callable(answer) else answer
            if ":lambda:invoke" in state["Resource"]:
                result = {"StatusCode": 200, "Payload": result}
            self._measure(name, "result", result)
            return self._leave(name, state, scope | {"result": result}, result, state.get("Next"))
        except TaskError as error:
            told = {"Error": error.name, "Cause": error.cause}
            told = {key: value for key, value in told.items() if value is not None}
            scope = scope | {"errorOutput": told}
            for catch in state.get("Catch", []):
                if {error.name, "States.ALL"} & set(catch["ErrorEquals"]):
                    return self._leave(name, catch, scope, told, catch["Next"])
            raise

    def _leave(
        self, name: str, rule: Mapping[str, Any], scope: dict[str, Json], value: Json, to: Any
    ) -> tuple[Json, str | None]:
        output = self._value(rule["Output"], scope) if "Output" in rule else value
        assigned = {key: self._value(each, scope) for key, each in rule.get("Assign", {}).items()}
        self._measure(name, "assigned", assigned)
        self.variables |= assigned
        return output, to

    def _measure(self, state: str, kind: str, value: Json) -> None:
        key = f"{state}.{kind}"
        self.sizes[key] = max(size(value), self.sizes.get(key, 0))

    def _value(self, template: Json, scope: Mapping[str, Json]) -> Json:
        if isinstance(template, dict):
            return {name: self._value(each, scope) for name, each in template.items()}
        if isinstance(template, list):
            return [self._value(each, scope) for each in template]
        if not isinstance(template, str):
            return template
        text = template.replace("${FilesBucket}", BUCKET)
        if not text.startswith("{%"):
            return text
        context = {
            "Execution": {"Name": EXECUTION, "Id": f"arn:{'e' * 200}"},
            "State": {"EnteredTime": "2026-11-28T12:00:00.000Z", "RetryCount": 0},
            "Task": {"Token": "t" * 2048},
        }
        null = jsonata.utils.Utils.NULL_VALUE
        bindings = {k: null if v is None else v for k, v in self.variables.items()}
        bindings["states"] = {**scope, "context": context}
        try:
            value = evaluated(text[2:-2], bindings)
            # The engine gives None for null as well.
            if value is None and not evaluated(f"$exists({text[2:-2]})", bindings):
                raise TaskError("States.QueryEvaluationError", f"{text}: nothing (undefined)")
        except (jsonata.jexception.JException, UnicodeError) as error:
            raise TaskError("States.QueryEvaluationError", f"{text}: {error}") from error
        return plain(value)


def evaluated(text: str, bindings: Mapping[str, Json]) -> Json:
    """The value of an expression, with the depth of recursion that jsonata is written for."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(JAVASCRIPT_DEPTH)
    try:
        expression = jsonata.Jsonata.jsonata(text.strip())
        expression.register_lambda("hash", lambda *_: "h" * 64)
        return expression.evaluate(None, bindings)
    finally:
        sys.setrecursionlimit(before)


def plain(value: Json) -> Json:
    """The value without the engine's own types."""
    if value is jsonata.utils.Utils.NULL_VALUE:
        return None
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def definition() -> Mapping[str, Any]:
    """The state machine in resources/."""
    found: Mapping[str, Any] = read_yaml(ROOT / "resources" / "job-flow.asl.yml")
    return found


def expressions(value: Json) -> Iterator[str]:
    """Every text of a definition."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from expressions(each)
