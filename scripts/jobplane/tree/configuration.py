"""The parts of a function's configuration, by where they are written.

If two trees have equal parts, they give the function the same CloudFormation on every stage: parts
of `function.yml`, shared parts of serverless.yml, the stage parameters that both refer to,
the resources that they refer to, and the triggers in `resources/` that invoke the function.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jobplane.tree.repository import Function, Repository, read_yaml

VARIABLE = re.compile(r"\$\{(param|self|file)[:(]([^},)]+)")
SUBSTITUTED = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.[A-Za-z0-9.]+)?\}")
# Settings of the provider that reach only functions with such an event.
OF_EVENTS = {"httpApi": ("httpApi",), "websocket": ("websocket", "websockets")}
# Settings of the provider that have no effect on functions.
OF_THE_STACK = frozenset({"deploymentBucket", "stackTags", "stackName", "stackParameters"})
TRIGGERS = frozenset({
    "AWS::Events::Rule", "AWS::IAM::Policy", "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Permission", "AWS::Scheduler::Schedule",
})  # fmt: skip

type Parts = dict[str, str]
"""Digest of each part, by where it is written."""


@dataclass(frozen=True)
class Declared:
    file: str
    body: Any


class Configuration:
    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.service: dict[str, Any] = read_yaml(repository.root / "serverless.yml")

    @cached_property
    def resources(self) -> dict[str, Declared]:
        return {
            logical: Declared(f"resources/{path.name}", body)
            for path in self.repository.resources
            for logical, body in (read_yaml(path).get("Resources") or {}).items()
        }

    def of(self, function: Function) -> Parts:
        """The parts that decide this function's configuration and its resources."""
        parts = dict(self._shared)
        parts[f"functions/{function.name}/function.yml"] = _digest(function.config)
        provider = self._provider(event_kinds(function.config))
        parts |= {f"serverless.yml: provider.{key}": _digest(v) for key, v in provider.items()}
        reached = [function.config, provider]
        for logical in self.reached_from(reached) | self._triggers_of(function):
            declared = self.resources[logical]
            parts[f"{declared.file}: {logical}"] = _digest(declared.body)
            reached.append(declared.body)
        return parts | self._variables(reached)

    def of_the_stack(self) -> Parts:
        """All parts: those of the functions, and those that belong to no function."""
        parts = dict(self._shared)
        provider = self.service.get("provider", {})
        parts |= {f"serverless.yml: provider.{key}": _digest(v) for key, v in provider.items()}
        reached: list[Any] = [provider]
        for path in self.repository.resources:
            document = read_yaml(path)
            for section, entries in document.items():
                for logical, body in (entries or {}).items():
                    where = logical if section == "Resources" else f"{section}.{logical}"
                    parts[f"resources/{path.name}: {where}"] = _digest(body)
            reached.append(document)
        for function in self.repository.functions():
            parts[f"functions/{function.name}/function.yml"] = _digest(function.config)
            reached.append(function.config)
        return parts | self._variables(reached)

    def named_by(self, function: Function) -> set[str]:
        return references(function.config) & self.resources.keys()

    def users(self, logical: str) -> list[str]:
        return [user for user, body in self.resources.items() if logical in references(body.body)]

    @cached_property
    def _shared(self) -> Parts:
        """The files that shape the CloudFormation of every function."""
        parts: Parts = {}
        root = self.repository.root
        scripts = sorted((root / "scripts" / "serverless").glob("*.js"))
        for path in [root / "package-lock.json", *scripts]:
            if path.is_file():
                parts[path.relative_to(root).as_posix()] = _file_digest(path)
        for key, value in self.service.items():
            if key not in ("provider", "custom"):
                parts[f"serverless.yml: {key}"] = _digest(value)
        for key, value in self.service.get("custom", {}).items():
            if key != "stages":
                parts[f"serverless.yml: custom.{key}"] = _digest(value)
        script = "\n".join(path.read_text(encoding="utf-8") for path in scripts)
        for name in self._parameters:
            # The scripts may derive other parameters from it.
            if re.search(rf"\b{re.escape(name)}\b", script):
                parts |= self._parameter(name)
        return parts

    @cached_property
    def _parameters(self) -> dict[str, dict[str, Any]]:
        """The value of each parameter by block of `custom.stages`."""
        found: dict[str, dict[str, Any]] = {}
        stages = self.service.get("custom", {}).get("stages", {})
        for stage, values in stages.items():
            for name, value in (values or {}).items():
                found.setdefault(name, {})[stage] = value
        return found

    def _parameter(self, name: str) -> Parts:
        values = self._parameters.get(name, {})
        return {
            f"serverless.yml: custom.stages.{stage}.{name}": _digest(value)
            for stage, value in values.items()
        }

    def _provider(self, kinds: set[str]) -> dict[str, Any]:
        declared: dict[str, Any] = self.service.get("provider", {})

        def is_seen(key: str) -> bool:
            if key in OF_THE_STACK:
                return False
            for kind, prefixes in OF_EVENTS.items():
                if key.startswith(prefixes):
                    return kind in kinds
            return True

        return {key: value for key, value in declared.items() if is_seen(key)}

    def reached_from(self, start: Iterable[Any]) -> set[str]:
        """The resources that are referred to, directly or by another resource."""
        found: set[str] = set()
        waiting = {logical for value in start for logical in references(value)}
        while waiting:
            logical = waiting.pop()
            if logical in self.resources and logical not in found:
                found.add(logical)
                waiting |= references(self.resources[logical].body)
        return found

    def _triggers_of(self, function: Function) -> set[str]:
        return {
            user
            for logical in (logical_id(function), role_id(function))
            for user in self.users(logical)
            if self.resources[user].body["Type"] in TRIGGERS
        }

    def _variables(self, values: Iterable[Any]) -> Parts:
        """The parameters, files and other sources that `${…}` in the values refers to."""
        parts: Parts = {}
        seen: set[tuple[str, str]] = set()
        waiting = {variable for value in values for variable in _variables_in(value)}
        while waiting:
            kind, address = variable = waiting.pop()
            if variable in seen:
                continue
            seen.add(variable)
            if kind == "param":
                parts |= self._parameter(address)
                waiting |= set(_variables_in(self._parameters.get(address)))
            elif kind == "file":
                path = self.repository.root / address
                parts[address] = _file_digest(path) if path.is_file() else ""
            else:
                value = self._at(address)
                parts[f"serverless.yml: {address}"] = _digest(value)
                waiting |= set(_variables_in(value))
        return parts

    def _at(self, address: str) -> Any:
        value: Any = self.service
        for key in address.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value


def logical_id(function: Function) -> str:
    """The function's logical id in the template."""
    name = function.name.replace("-", "Dash")
    return f"{name[0].upper()}{name[1:]}LambdaFunction"


def role_id(function: Function) -> str:
    """The logical id of the function's role."""
    return "".join(word[0].upper() + word[1:] for word in function.name.split("-")) + "Role"


def event_kinds(config: dict[str, Any]) -> set[str]:
    return {next(iter(e)) if isinstance(e, dict) else e for e in config.get("events") or ()}


def references(value: Any) -> set[str]:
    """The logical ids that CloudFormation's intrinsic functions and DependsOn name."""
    return set(_references(value))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "Ref" and isinstance(item, str):
                yield item
            elif key == "Fn::GetAtt":
                yield item.partition(".")[0] if isinstance(item, str) else item[0]
            elif key == "DependsOn":
                yield from [item] if isinstance(item, str) else item
            elif key == "Fn::Sub":
                text = item if isinstance(item, str) else item[0]
                yield from SUBSTITUTED.findall(text)
                yield from _references(item)
            else:
                yield from _references(item)


def _variables_in(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        for kind, address in VARIABLE.findall(value):
            yield kind, address.strip()
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _variables_in(key)
            yield from _variables_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _variables_in(item)


def _digest(value: Any) -> str:
    text = json.dumps(value, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
