"""Templates: named steps as data. An index with any fault is refused as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jobplane_robots._errors import (
    InvalidOptionsError,
    InvalidTemplatesError,
    RobotConflictError,
    RobotUnavailableError,
    TemplateProblem,
    UnknownRobotError,
)
from jobplane_robots._io import RobotContext, RobotInput, RobotResult, Sink
from jobplane_robots._registry import get_robot

if TYPE_CHECKING:
    from jobplane_robots._robot import RobotOptions

ORIGINAL = ":original"  # the uploads, in a step's `use`
IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")
# The place of a value outside of the index; a deployment replaces `{service}` and `{stage}`.
REFERENCE = re.compile(
    r"ssm:/(?:[A-Za-z0-9_./-]|\{service\}|\{stage\})+|env:[A-Za-z_][A-Za-z0-9_]*"
)
TEMPLATE_KEYS = ("id", "steps", "webhook_url", "webhook_secret", "allow_unsigned")


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a robot, its options, and the steps whose files it uses."""

    name: str
    robot: str
    use: tuple[str, ...]
    options: RobotOptions

    def run(
        self, source: RobotInput, sink: Sink, context: RobotContext | None = None
    ) -> RobotResult:
        """Process one file with this step's robot."""
        return get_robot(self.robot).run(source, self.options, sink, context)


@dataclass(frozen=True, slots=True)
class Template:
    """A valid template; `steps` are in the order of the file."""

    id: str
    steps: Mapping[str, Step]
    webhook_url: str | None = None
    webhook_secret: str | None = None
    allow_unsigned: bool = False

    def ordered_steps(self) -> tuple[Step, ...]:
        """The steps, each after those that it uses; otherwise in the order of the file."""
        order = _order({name: step.use for name, step in self.steps.items()})
        return tuple(self.steps[name] for name in order)


def load_templates(source: str | Path | Mapping[str, Any]) -> dict[str, Template]:
    """The templates of an index by id; `source` is the path of its JSON, or the object.

    Raises InvalidTemplatesError with all faults, and OSError if the file can't be read.
    """
    index = source if isinstance(source, Mapping) else _read(Path(source))
    check = _Check()
    templates = check.index(index)
    if check.problems:
        raise InvalidTemplatesError(check.problems)
    return templates


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise InvalidTemplatesError([TemplateProblem("", "", "", f"not JSON: {error}")]) from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that appears twice: json.loads would silently keep only the last one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} appears twice")
    return found


class _Check:
    """Reads an index and collects its faults; its results are valid only without faults."""

    def __init__(self) -> None:
        self.problems: list[TemplateProblem] = []
        self._template = ""
        self._step = ""

    def index(self, index: Any) -> dict[str, Template]:
        found: dict[str, Template] = {}
        entries = index.get("templates") if isinstance(index, Mapping) else None
        if not isinstance(entries, list):
            self._note("", 'the index must be an object {"templates": [...]}')
            return found
        self._refuse_keys(index, ("templates",))
        for number, entry in enumerate(entries):
            self._template, self._step = f"#{number + 1}", ""
            template = self._one(entry)
            if template and template.id in found:
                self._note("id", "is the id of an earlier template")
            elif template:
                found[template.id] = template
        return found

    def _one(self, entry: Any) -> Template | None:
        if not isinstance(entry, Mapping):
            self._note("", "a template must be an object")
            return None
        identifier = entry.get("id")
        if _is_identifier(identifier):
            self._template = str(identifier)
        else:
            self._note("id", "must be 1 to 64 of A-Z a-z 0-9 _ -")
        self._refuse_keys(entry, TEMPLATE_KEYS)
        return Template(
            id=self._template,
            steps=self._steps(entry.get("steps")),
            webhook_url=self._webhook_url(entry.get("webhook_url")),
            webhook_secret=self._webhook_secret(entry.get("webhook_secret")),
            allow_unsigned=self._allow_unsigned(entry.get("allow_unsigned", False)),
        )

    def _steps(self, raw: Any) -> dict[str, Step]:
        if not isinstance(raw, Mapping) or not raw:
            self._note("steps", "must be an object with at least one step")
            return {}
        steps: dict[str, Step] = {}
        uses: dict[str, tuple[str, ...]] = {}
        for name, step in raw.items():
            self._step = str(name)
            if not _is_identifier(name):
                self._note("", "a step's name must be 1 to 64 of A-Z a-z 0-9 _ -")
            if not isinstance(step, Mapping):
                self._note("", "a step must be an object")
                continue
            uses[name] = self._use(step.get("use"), name, raw)
            options = self._options(step)
            if options is not None:
                steps[name] = Step(name, step["robot"], uses[name], options)
        self._step = ""
        if cycle := _cycle(uses):
            self._note("steps", f"use each other in a cycle: {' → '.join(cycle)}")
        return steps

    def _use(self, raw: Any, own: str, steps: Mapping[str, Any]) -> tuple[str, ...]:
        names = [raw] if isinstance(raw, str) else raw
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            self._note("use", f"must be {ORIGINAL}, a step's name, or a list of these")
            return ()
        for name in names:
            if name == own:
                self._note("use", "a step can't use itself")
            elif name != ORIGINAL and name not in steps:
                self._note("use", f"the template has no step {name!r}")
        if len(set(names)) < len(names):
            self._note("use", "names a step twice")
        return tuple(n for n in names if n == ORIGINAL or (n in steps and n != own))

    def _options(self, step: Mapping[str, Any]) -> RobotOptions | None:
        name = step.get("robot")
        if not isinstance(name, str):
            self._note("robot", "must be a robot's name, such as /file/hash")
            return None
        options = {key: value for key, value in step.items() if key not in ("robot", "use")}
        try:
            robot = get_robot(name)
            robot.check_available()
            return robot.parse_options(options)
        except InvalidOptionsError as error:
            for problem in error.problems:
                self._note(problem.field, problem.reason)
        except (UnknownRobotError, RobotUnavailableError, RobotConflictError) as error:
            self._note("robot", error.reason)
        return None

    def _webhook_url(self, url: Any) -> str | None:
        if url is None or (isinstance(url, str) and REFERENCE.fullmatch(url)):
            return url
        try:
            parts = urlsplit(url) if isinstance(url, str) else None
            host = parts and parts.scheme in ("https", "http") and parts.hostname
        except ValueError:
            host = None
        if not host:
            self._note(
                "webhook_url", "must be an http(s) URL, or a reference, ssm:/path or env:NAME"
            )
            return None
        return str(url)

    def _webhook_secret(self, reference: Any) -> str | None:
        if reference is None:
            return None
        if not isinstance(reference, str) or not REFERENCE.fullmatch(reference):
            # Without the value: it may be a secret.
            self._note("webhook_secret", "must be a reference, ssm:/path or env:NAME")
            return None
        return reference

    def _allow_unsigned(self, value: Any) -> bool:
        if not isinstance(value, bool):
            self._note("allow_unsigned", "must be true or false")
        return value is True

    def _refuse_keys(self, found: Mapping[str, Any], known: Iterable[str]) -> None:
        for key in found:
            if key not in known:
                self._note(str(key), f"unknown key; known: {', '.join(known)}")

    def _note(self, field: str, reason: str) -> None:
        self.problems.append(TemplateProblem(self._template, self._step, field, reason))


def _is_identifier(value: Any) -> bool:
    return isinstance(value, str) and IDENTIFIER.fullmatch(value) is not None


def _order(uses: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The names, each after those that it uses; without the names of a cycle."""
    order: list[str] = []
    waiting = list(uses)
    while ready := next((n for n in waiting if _is_ready(uses[n], order)), None):
        order.append(ready)
        waiting.remove(ready)
    return order


def _is_ready(used: Iterable[str], done: list[str]) -> bool:
    return all(name == ORIGINAL or name in done for name in used)


def _cycle(uses: Mapping[str, tuple[str, ...]]) -> list[str]:
    """One cycle, with its first name again at the end; [] without a cycle."""
    stuck = uses.keys() - set(_order(uses))
    path: list[str] = []
    name = next((name for name in uses if name in stuck), None)
    while name is not None and name not in path:
        path.append(name)
        name = next((used for used in uses[name] if used in stuck), None)
    return [*path[path.index(name) :], name] if name is not None else []
