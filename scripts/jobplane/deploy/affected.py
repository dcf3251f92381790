"""The functions that a change affects, with the reasons.

Compares the working tree with a revision by the digests of the artifacts' inputs, as `build` does.
The reasons are found separately, part by part; they only explain the result.
"""

import hashlib
import subprocess
import tarfile
import tempfile
import tomllib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from jobplane import BUILDER
from jobplane.tree.configuration import Configuration, Parts
from jobplane.tree.repository import Function, Repository
from lambdapack.artifacts import Builder, Settings
from lambdapack.environments import plain_environment
from lambdapack.requirements import Closure, closures, lib_sources
from lambdapack.thinning.sdk import Grants
from lambdapack.tools import ToolError, run_quietly
from lambdapack.wheels import code_digest

THE_BUILDER = "libs/lambdapack (the builder itself)"
NEW_STACK = "serverless.yml (new)"
# A folder without one of these files is another project, or not one yet.
PROJECT = frozenset({"pyproject.toml", "serverless.yml", "uv.lock"})
SHOWN_FILES = 4


class UnknownRevisionError(click.UsageError):
    """The revision does not exist."""


class NoRepositoryError(click.ClickException):
    """The project is not in a git repository, so there is no commit to compare with."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} is not in a git repository: `affected` compares the files with a commit; "
            "run `git init`, or clone the project with git"
        )


@dataclass(frozen=True)
class Affected:
    name: str
    artifact: list[str] = field(default_factory=list)
    """Why its artifact differs; empty if it is the same."""
    configuration: list[str] = field(default_factory=list)
    """Why its configuration, or a resource that it refers to, differs; empty if it is the same."""
    state: str = "changed"
    """`changed`, `new` or `removed`."""

    @property
    def reasons(self) -> list[str]:
        return list(dict.fromkeys([*self.artifact, *self.configuration]))


@dataclass(frozen=True)
class Change:
    revision: str
    commit: str
    functions: list[Affected]
    stack: list[str]
    """Changed parts of the stack that belong to no function."""

    @property
    def needs_the_stack(self) -> bool:
        return bool(self.stack) or any(
            affected.configuration or affected.state != "changed" for affected in self.functions
        )


def affected(repository: Repository, since: str = "HEAD") -> Change:
    """Compare the working tree with a revision; `REV...` is the common ancestor with REV."""
    commit = resolve(repository, since)
    after = Tree(repository)
    if not PROJECT.issubset(_git(repository, since, "ls-tree", "--name-only", commit).splitlines()):
        return Change(since, commit, [_new(name) for name in after.functions], [NEW_STACK])
    with tree_of(repository, commit) as before:
        return compare(Tree(before), after, since, commit)


def compare(before: "Tree", after: "Tree", revision: str, commit: str) -> Change:
    names = sorted(before.functions.keys() | after.functions.keys())
    builder = [] if before.builder_like(after) else [THE_BUILDER]
    found = [_compare_one(name, before, after, builder) for name in names]
    touched = {part for name in names for tree in (before, after) for part in tree.parts(name)}
    stack = [
        reason
        for part, reason in _differences(before.stack_parts, after.stack_parts)
        if part not in touched
    ]
    return Change(revision, commit, [each for each in found if each is not None], stack)


def _compare_one(name: str, before: "Tree", after: "Tree", builder: list[str]) -> Affected | None:
    if name not in before.functions:
        return _new(name)
    if name not in after.functions:
        return Affected(name, [], [f"functions/{name} (removed)"], "removed")
    artifact = list(builder)
    if before.inputs(name) != after.inputs(name):
        # Any other difference is attributed to the builder.
        artifact += list(_explained(name, before, after)) or ([] if builder else [THE_BUILDER])
    configuration = [
        _with_users(part, reason, name, after)
        for part, reason in _differences(before.parts(name), after.parts(name))
    ]
    if not artifact and not configuration:
        return None
    return Affected(name, artifact, configuration)


def _new(name: str) -> Affected:
    reasons = [f"functions/{name} (new)"]
    return Affected(name, reasons, reasons, "new")


class Tree:
    """One tree of files; each fact is computed once."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.settings = Settings.local()

    @cached_property
    def functions(self) -> dict[str, Function]:
        return {function.name: function for function in self.repository.functions()}

    @cached_property
    def closures(self) -> dict[str, Closure]:
        everything = self.functions.values()
        return closures(self.repository, everything, self.settings.arch, is_frozen=True)

    @cached_property
    def configuration(self) -> Configuration:
        return Configuration(self.repository)

    @cached_property
    def stack_parts(self) -> Parts:
        return self.configuration.of_the_stack()

    @cached_property
    def dependencies(self) -> dict[str, list[str]]:
        """The dependencies of each distribution in uv.lock."""
        text = (self.repository.root / "uv.lock").read_text(encoding="utf-8")
        return {each["name"]: list(_required(each)) for each in tomllib.loads(text)["package"]}

    def way(self, start: str, end: str) -> list[str]:
        """The distributions on the shortest path between the two."""
        ways: deque[list[str]] = deque([[start]])
        seen = {start}
        while ways:
            way = ways.popleft()
            for name in self.dependencies.get(way[-1], ()):
                if name == end:
                    return way[1:]
                if name not in seen:
                    seen.add(name)
                    ways.append([*way, name])
        return []

    def inputs(self, name: str) -> str:
        """The digests that `build` compares, computed by this command's code for either tree."""
        builder = Builder(self.repository, self.settings)
        return builder.inputs(self.functions[name], self.closures[name])

    def parts(self, name: str) -> Parts:
        function = self.functions.get(name)
        return self.configuration.of(function) if function is not None else {}

    def builder_like(self, other: "Tree") -> bool:
        mine, others = (
            code_digest(tree.repository.root / BUILDER / "src") for tree in (self, other)
        )
        return mine == others


def _required(package: Mapping[str, Any]) -> Iterator[str]:
    groups = [package.get("dependencies", []), *package.get("optional-dependencies", {}).values()]
    for group in groups:
        for dependency in group:
            yield dependency["name"]


def _explained(name: str, before: Tree, after: Tree) -> Iterator[str]:
    old, new = before.functions[name], after.functions[name]
    for shipped in _changed(_digests(old.shipped_files()), _digests(new.shipped_files())):
        own = new.shipped_files().get(shipped) or old.shipped_files()[shipped]
        yield _short(own, after.repository.root, before.repository.root)
    old_closure, new_closure = before.closures[name], after.closures[name]
    for lib in sorted(old_closure.libs.keys() | new_closure.libs.keys()):
        yield from _explained_lib(lib, name, before, after)
    for distribution in _changed(old_closure.locked, new_closure.locked):
        tree = after if distribution in new_closure.locked else before
        was = old_closure.versions.get(distribution, "none")
        now = new_closure.versions.get(distribution, "none")
        what = f"{was} → {now}" if was != now else f"{now}, its files"
        way = _way(tree.way(f"jobplane-{name}", distribution))
        yield f"uv.lock: {distribution} {what}{way}"
    if Grants.of(old) != Grants.of(new):
        yield f"functions/{name}/function.yml: the SDK is cut to its IAM statements"


def _explained_lib(lib: str, name: str, before: Tree, after: Tree) -> Iterator[str]:
    was, now = before.closures[name].libs.get(lib), after.closures[name].libs.get(lib)
    way = _way((after if now else before).way(f"jobplane-{name}", lib))
    if was is None or now is None:
        yield f"{now or was} ({'now' if now else 'no longer'} a dependency){way}"
        return
    changed = _changed(_lib_files(before, was), _lib_files(after, now))
    if changed:
        yield f"{now}: {_some(changed)}{way}"


def _lib_files(tree: Tree, folder: str) -> dict[str, str]:
    root = tree.repository.root / folder
    package = root / "src" / f"jobplane_{root.name}"
    return {
        _short(path, package, root): digest
        for path, digest in _digests({p: p for p in lib_sources(tree.repository, folder)}).items()
    }


def _short(path: Path, *folders: Path) -> str:
    """The path below the first folder that it is in."""
    return next(path.relative_to(f).as_posix() for f in folders if path.is_relative_to(f))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN_FILES])
    more = len(names) - SHOWN_FILES
    return f"{shown} and {more} more" if more > 0 else shown


def _with_users(part: str, reason: str, name: str, tree: Tree) -> str:
    """For a resource that the function does not refer to itself, name the one that does."""
    logical = part.rpartition(": ")[2]
    resources = tree.configuration.resources
    if not part.startswith("resources/") or logical not in resources:
        return reason
    named_by = tree.configuration.named_by(tree.functions[name])
    if logical in named_by:
        return f"{reason}, referenced by functions/{name}/function.yml"
    users = [user for user in tree.configuration.users(logical) if user in named_by]
    return f"{reason}, referenced by {', '.join(users)}" if users else reason


def _differences(before: Parts, after: Parts) -> Iterator[tuple[str, str]]:
    """The parts that differ, described."""
    for part in _changed(before, after):
        how = " (new)" if part not in before else " (removed)" if part not in after else ""
        yield part, f"{part}{how}"


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))


def _digests[Name](files: Mapping[Name, Path]) -> dict[Name, str]:
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def _way(names: Iterable[str]) -> str:
    between = [name.removeprefix("jobplane-") for name in names]
    return f" ← {' ← '.join(reversed(between))}" if between else ""


def resolve(repository: Repository, revision: str) -> str:
    """The commit that a revision names."""
    if revision.endswith("..."):
        return _git(repository, revision, "merge-base", revision.removesuffix("..."), "HEAD")
    return _git(repository, revision, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")


def _git(repository: Repository, revision: str, *arguments: str) -> str:
    try:
        return run_quietly(["git", *arguments], cwd=repository.root, what="git").strip()
    except ToolError as failed:
        said = failed.output.strip()
        if "not a git repository" in said:
            raise NoRepositoryError(repository.root) from failed
        raise UnknownRevisionError(
            f"git does not know the commit {revision!r}" + (f": {said}" if said else "")
        ) from failed


@contextmanager
def tree_of(repository: Repository, commit: str) -> Iterator[Repository]:
    with tempfile.TemporaryDirectory(prefix="jobplane-") as folder:
        archive = subprocess.Popen(
            ["git", "archive", "--format=tar", commit],
            cwd=repository.root,
            env=plain_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with archive:
            assert archive.stdout is not None and archive.stderr is not None
            with tarfile.open(fileobj=archive.stdout, mode="r|") as tar:
                tar.extractall(folder, filter="data")
            said = archive.stderr.read().decode(errors="replace")
        if archive.returncode != 0:
            raise ToolError(f"git archive {commit} failed", said)
        yield Repository(Path(folder))
