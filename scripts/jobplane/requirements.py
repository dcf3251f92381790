"""What a function is made of, by uv.lock alone."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from jobplane.console import run_quietly
from jobplane.environments import uv_command
from jobplane.workspace import Function, Workspace

PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")


@dataclass(frozen=True)
class Closure:
    """Everything a function imports: locked distributions and workspace libs."""

    locked: dict[str, str] = field(default_factory=dict)
    """Requirement text with hashes, by distribution name."""
    libs: tuple[str, ...] = ()
    """Folders of workspace libs, relative to the root."""

    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.locked, self.libs]).encode()).hexdigest()


def parse_export(text: str) -> Closure:
    """Read `uv export`'s requirements: a pinned line each, hashes on the lines below."""
    locked: dict[str, str] = {}
    libs: list[str] = []
    for line in _logical_lines(text):
        if line.startswith("./"):
            libs.append(line.removeprefix("./"))
        elif pinned := PINNED.match(line):
            locked[pinned["name"].lower()] = line
        else:
            raise ValueError(f"uv export wrote a line that is neither pinned nor a lib: {line}")
    return Closure(dict(sorted(locked.items())), tuple(sorted(libs)))


def _logical_lines(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        stripped = " ".join(line.split())
        if stripped and not stripped.startswith("#"):
            yield stripped


def closures(workspace: Workspace, functions: Iterable[Function]) -> dict[str, Closure]:
    """The closure of each function, by name.

    Exports are kept between runs, under a digest of the lock and of every pyproject.toml.
    """
    functions = list(functions)
    cache = workspace.scratch / "_build" / "exports.json"
    key = _lock_digest(workspace)
    texts: dict[str, str] = {}
    if cache.is_file():
        kept = json.loads(cache.read_text())
        texts = kept["exports"] if kept["key"] == key else {}
    missing = [function for function in functions if function.name not in texts]
    if missing:
        with ThreadPoolExecutor() as pool:
            exported = pool.map(lambda function: export(workspace, function.member), missing)
        texts |= {function.name: text for function, text in zip(missing, exported, strict=True)}
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps({"key": key, "exports": texts}))
    return {function.name: parse_export(texts[function.name]) for function in functions}


def _lock_digest(workspace: Workspace) -> str:
    digest = hashlib.sha256()
    for path in [workspace.root / "uv.lock", *sorted(workspace.root.glob("*/*/pyproject.toml"))]:
        digest.update(path.relative_to(workspace.root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def export(workspace: Workspace, member: str) -> str:
    """What a member of the workspace needs, as requirements."""
    return run_quietly(
        [
            uv_command(), "export", "--package", member, "--frozen", "--no-dev",
            "--no-editable", "--no-header", "--no-annotate", "--format", "requirements-txt",
        ],
        cwd=workspace.root,
        what=f"uv export of {member}",
    )  # fmt: skip


def lib_sources(workspace: Workspace, lib: str) -> list[Path]:
    """The files that a workspace lib's wheel is made from."""
    root = workspace.root / lib
    sources = [path for path in (root / "src").rglob("*") if path.is_file()]
    sources = [path for path in sources if "__pycache__" not in path.parts]
    return sorted([root / "pyproject.toml", *sources])
