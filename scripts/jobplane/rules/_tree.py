"""The input of the rules: members, allowed findings, analysed functions, artifacts.

An entry of a member's pyproject.toml allows a finding, with a reason:

    [tool.jobplane.check.permissions]
    "s3:ListBucket" = "With it, S3 says 404 of a missing object instead of 403."
"""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from jobplane import BUILDER
from jobplane.rules._flow import Program
from jobplane.rules._imports import canonical, requirements
from jobplane.tree.entry_points import EntryPoint, entry_points
from jobplane.tree.repository import Function, Repository, read_yaml
from lambdapack.artifacts import Artifact, Builder, Settings

type Findings = Iterator["Finding"]


@dataclass(frozen=True)
class Finding:
    path: Path
    line: int
    message: str
    subject: str = ""
    """The subject that an entry must name to allow the finding."""
    member: "Member | None" = field(default=None, compare=False)
    rule: str = ""

    def place(self, tree: "Tree") -> tuple[str, int]:
        path = self.path
        if path.is_relative_to(tree.repository.root):
            path = path.relative_to(tree.repository.root)
        return path.as_posix(), self.line

    def as_line(self, tree: "Tree") -> str:
        path, line = self.place(tree)
        return f"{path}:{line}: {self.rule}: {self.message}"

    def as_json(self, tree: "Tree") -> dict[str, Any]:
        path, line = self.place(tree)
        return {
            "path": path,
            "line": line,
            "rule": self.rule,
            "subject": self.subject,
            "message": self.message,
        }


@dataclass(frozen=True)
class Excuses:
    """`tool.jobplane.check` of a member: rule → subject → reason."""

    path: Path
    entries: Mapping[str, Any]

    def cover(self, rule: str, finding: Finding) -> bool:
        reason = self._reasons(rule).get(finding.subject)
        return bool(finding.subject) and isinstance(reason, str) and bool(reason.strip())

    def unusable(
        self, member: "Member", found: Mapping[str, list[Finding]], rules: list[str]
    ) -> Findings:
        """Entries of unknown rules, without a reason, or that match no finding."""
        for rule in self.entries:
            if rule not in rules:
                yield self._finding(rule, f"unknown rule {rule!r}: remove its entries")
        for rule, findings in found.items():
            subjects = {finding.subject for finding in findings if finding.member == member}
            for subject, reason in self._reasons(rule).items():
                if not isinstance(reason, str) or not reason.strip():
                    yield self._finding(subject, f"the entry {subject!r} needs a reason")
                elif subject not in subjects:
                    text = f"the entry {subject!r} matches no finding of {rule}: remove it"
                    yield self._finding(subject, text)

    def _reasons(self, rule: str) -> Mapping[str, Any]:
        reasons: Any = self.entries.get(rule, {})
        return reasons if isinstance(reasons, dict) else {}

    def _finding(self, subject: str, message: str) -> Finding:
        return Finding(self.path, line_of(self.path, subject), message, rule="excuses")


@dataclass(frozen=True)
class Member:
    directory: Path
    function: Function | None = None

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def project_path(self) -> Path:
        return self.directory / "pyproject.toml"

    @cached_property
    def project(self) -> dict[str, Any]:
        return tomllib.loads(self.project_path.read_text(encoding="utf-8"))

    @cached_property
    def excuses(self) -> Excuses:
        tool = self.project.get("tool", {}).get("jobplane", {})
        return Excuses(self.project_path, tool.get("check", {}))

    @property
    def distribution(self) -> str:
        return str(self.project.get("project", {}).get("name", ""))

    @cached_property
    def declared(self) -> dict[str, set[str]]:
        """Distribution → extras, of its dependencies."""
        return requirements(self.project["project"].get("dependencies", ()))

    @cached_property
    def optional(self) -> dict[str, set[str]]:
        """Extra → distributions that only this extra adds."""
        extras = self.project["project"].get("optional-dependencies", {})
        return {
            extra: set(requirements(texts)) - set(self.declared) for extra, texts in extras.items()
        }

    @property
    def sources(self) -> list[Path]:
        if self.function is not None:
            return [self.function.source]
        return sorted((self.directory / "src").rglob("*.py"))


class Tree:
    """The repository under check: all of it, or some of its functions."""

    def __init__(self, repository: Repository, functions: tuple[str, ...] = ()) -> None:
        self.repository = repository
        self.is_whole = not functions
        self.functions = repository.select(functions)

    @cached_property
    def members(self) -> list[Member]:
        found = [Member(function.directory, function) for function in self.functions]
        return found + self.libs if self.is_whole else found

    @cached_property
    def libs(self) -> list[Member]:
        paths = sorted(self.repository.root.glob("libs/*/pyproject.toml"))
        folders = [path.parent for path in paths]
        builder = self.repository.root / BUILDER
        return [Member(folder) for folder in folders if folder != builder]

    def unreadable(self) -> Findings:
        """Files that can't be parsed: modules, function.yml, pyproject.toml."""
        readers: list[tuple[Path, Callable[[str], object]]] = []
        functions = [Member(each.directory, each) for each in self.repository.functions()]
        for member in [*functions, *self.libs]:
            readers.append((member.project_path, tomllib.loads))
            readers += [(source, ast.parse) for source in member.sources]
            if member.function is not None:
                readers.append((member.function.config_path, yaml.safe_load))
        for path, read in readers:
            try:
                read(path.read_text(encoding="utf-8"))
            except (OSError, SyntaxError, ValueError, yaml.YAMLError) as error:
                line = getattr(error, "lineno", None) or 1
                why = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
                text = f"it can't be parsed ({why}): correct it first"
                yield Finding(path, line, text, rule="readable")

    def program(self, function: Function) -> Program:
        return self._programs[function.name]

    @cached_property
    def _programs(self) -> dict[str, Program]:
        return {
            function.name: Program(
                function.source, self.repository.root / "libs", self.loaded(function)
            )
            for function in self.repository.functions()
        }

    def loaded(self, function: Function) -> list[str]:
        """The objects that a function loads from packages: `jobplane_acme:numbered`."""
        declared = Member(function.directory, function).declared
        return [
            point.value
            for point in self.entry_points
            if point.loaded_by == function.name and canonical(point.distribution) in declared
        ]

    @cached_property
    def entry_points(self) -> list[EntryPoint]:
        """What packages add to functions."""
        return list(entry_points(self.repository))

    @cached_property
    def service(self) -> dict[str, Any]:
        service: dict[str, Any] = read_yaml(self.repository.root / "serverless.yml")
        return service

    @property
    def service_path(self) -> Path:
        return self.repository.root / "serverless.yml"

    @cached_property
    def artifacts(self) -> dict[str, Artifact]:
        """The functions' artifacts, built if they are out of date."""
        builder = Builder(self.repository, Settings.local())
        built = builder.build(self.functions, is_checked=False)  # the rules report where
        return {artifact.name: artifact for artifact in built}


def line_of(path: Path, text: str, start: int = 1) -> int:
    """The first line, from `start`, that contains the text as a whole word; else `start`."""
    word = re.compile(rf"(?<![\w:-]){re.escape(text)}(?![\w-])")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if number >= start and word.search(line):
            return number
    return start
