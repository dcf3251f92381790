"""The state machines of resources/*.asl.yml and the functions that their states call."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jobplane.tree.configuration import logical_id
from jobplane.tree.repository import Repository, read_yaml


@dataclass(frozen=True)
class Step:
    """A state: the function it calls, if any, and the errors that its Retry and Catch name."""

    name: str
    function: str | None
    errors: tuple[str, ...]
    waits_for_worker: bool
    service: str
    """The service that it calls and the operation, `lambda:invoke`; empty without a call."""


@dataclass(frozen=True)
class StateMachine:
    path: Path
    definition: Mapping[str, Any]
    functions: Mapping[str, str]
    """Substitution → function."""
    resources: Path
    """The file that declares it, with its role."""
    granted: frozenset[str]
    """The actions that its role allows."""
    logs: bool
    traces: bool

    @cached_property
    def steps(self) -> list[Step]:
        return list(self._steps(self.definition))

    @property
    def called(self) -> set[str]:
        return {step.function for step in self.steps if step.function is not None}

    def _steps(self, machine: Mapping[str, Any]) -> Iterator[Step]:
        for name, state in machine["States"].items():
            errors = [
                error
                for field in ("Retry", "Catch")
                for entry in state.get(field, ())
                for error in entry["ErrorEquals"]
            ]
            called = str((state.get("Arguments") or {}).get("FunctionName", ""))
            function = self.functions.get(called.removeprefix("${").removesuffix("}"))
            if called.startswith("${") and function is None:
                errors = []  # the rule `references` reports a missing function
            waits = str(state.get("Resource", "")).endswith(".waitForTaskToken")
            resource = str(state.get("Resource", "")).partition(":states:::")[2]
            service = resource.removeprefix("aws-sdk:").partition(".")[0]
            yield Step(name, function, tuple(dict.fromkeys(errors)), waits, service)
            for inner in ("ItemProcessor", "Iterator"):
                if inner in state:
                    yield from self._steps(state[inner])
            for branch in state.get("Branches", ()):
                yield from self._steps(branch)


def state_machines(repository: Repository) -> list[StateMachine]:
    """Every state machine whose definition is a file."""
    by_id = {logical_id(function): function.name for function in repository.functions()}
    found = []
    for path in repository.resources:
        resources = read_yaml(path).get("Resources") or {}
        for resource in resources.values():
            properties = resource.get("Properties") or {}
            named = re.fullmatch(r"\$\{file\((.+)\)\}", str(properties.get("Definition", "")))
            if resource.get("Type") != "AWS::StepFunctions::StateMachine" or named is None:
                continue
            functions = {}
            for name, value in (properties.get("DefinitionSubstitutions") or {}).items():
                target = value.get("Fn::GetAtt") if isinstance(value, dict) else None
                if target and target[0] in by_id:
                    functions[name] = by_id[target[0]]
            definition = repository.root / named[1]
            machine = StateMachine(
                definition,
                read_yaml(definition),
                functions,
                path,
                _granted(resources, properties.get("RoleArn")),
                logs="LoggingConfiguration" in properties,
                traces=bool((properties.get("TracingConfiguration") or {}).get("Enabled")),
            )
            found.append(machine)
    return found


def _granted(resources: Mapping[str, Any], arn: Any) -> frozenset[str]:
    """The actions that a role of the same file allows."""
    name = str(arn["Fn::GetAtt"][0]) if isinstance(arn, dict) and "Fn::GetAtt" in arn else ""
    policies = (resources.get(name) or {}).get("Properties", {}).get("Policies", ())
    found: set[str] = set()
    for policy in policies:
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = statement.get("Action") or ()
            found |= {actions} if isinstance(actions, str) else set(actions)
    return frozenset(found)
