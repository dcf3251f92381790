"""The dependencies of a function, from uv.lock.

uv exports a member's dependencies as a pylock.toml; `packaging` reads it, and selects the packages
and files for the target platform by markers and tags.
"""

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path, PurePosixPath

from packaging.markers import Environment
from packaging.pylock import (
    Package,
    PackageArchive,
    PackageDirectory,
    PackageSdist,
    PackageVcs,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockValidationError,
)
from packaging.tags import Tag, compatible_tags, cpython_tags

from lambdapack.environments import uv_command, uv_locking_environment
from lambdapack.errors import BuildError
from lambdapack.files import files_below
from lambdapack.tools import ToolError, run_quietly
from lambdapack.workspace import Function, Workspace

# Artifacts are for the version that builds them: it compiles them.
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
GLIBC = (2, 28)
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
PLATFORMS = {
    arch: f"{machine}-manylinux_{GLIBC[0]}_{GLIBC[1]}" for arch, machine in MACHINES.items()
}
# The older names of manylinux platforms, by glibc version.
OLD_MANYLINUX = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
# Kinds of sources in uv.lock that are folders.
LOCAL = re.compile(r'source = \{ (?:editable|directory|virtual) = "([^"]+)"')
# Entries at the top of a lib's folder that are not in artifacts: build results, and the readme,
# which artifacts omit from the metadata.
BESIDE_A_LIB = frozenset(
    {"CHANGELOG.md", "README.md", "README.rst", "build", "dist", "node_modules", "venv"}
)
# Tables of pyproject.toml, below `tool`, that say what a wheel contains.
OF_BACKENDS = ("hatch", "setuptools", "poetry", "pdm", "flit", "maturin", "scikit-build")

type Source = PackageVcs | PackageDirectory | PackageArchive | PackageWheel | PackageSdist


class StaleLockError(BuildError):
    """uv.lock is older than the pyproject.toml files."""


class UnbuildableError(BuildError):
    """A dependency can't be part of an artifact."""


@dataclass(frozen=True)
class Distribution:
    """One dependency of a function, for the target platform."""

    name: str
    version: str
    requirement: str
    """The argument of `uv pip install`: a pinned name with its hash, a URL, or a path."""
    index: str | None = None
    """The package index in the lock."""
    is_source: bool = False
    """Whether it must be built."""
    folder: str | None = None
    """The folder of a lib, relative to the workspace's root."""


@dataclass(frozen=True)
class Closure:
    """Everything a function imports, by distribution name."""

    distributions: Mapping[str, Distribution] = field(default_factory=dict)

    @property
    def locked(self) -> dict[str, str]:
        """Requirement text of published distributions, by name."""
        return {d.name: d.requirement for d in self.distributions.values() if d.folder is None}

    @property
    def libs(self) -> dict[str, str]:
        """Folder of distributions built from one, relative to the workspace's root, by name."""
        return {d.name: d.folder for d in self.distributions.values() if d.folder is not None}

    @property
    def versions(self) -> dict[str, str]:
        return {d.name: d.version for d in self.distributions.values() if d.folder is None}


def parse_export(text: str, arch: str, *, of: str) -> Closure:
    """The packages of a pylock.toml for a platform.

    Args:
        of: the member that depends on them, for messages.

    Raises:
        UnbuildableError: a package has no files for that platform.
    """
    try:
        document = Pylock.from_dict(tomllib.loads(text))
        chosen = list(document.select(environment=environment(arch), tags=target_tags(arch)))
    except (PylockSelectError, PylockValidationError) as error:
        raise UnbuildableError(
            f"{of}: no artifact for {arch} and Python {PYTHON}: {error}. Depend on a release that "
            f"has a wheel for manylinux_{GLIBC[0]}_{GLIBC[1]}_{MACHINES[arch]}, or build a wheel "
            "of it by `uv build --wheel` and name it as a path in [tool.uv.sources], or leave the "
            "package out with a marker"
        ) from error
    found = [_distribution(package, source) for package, source in chosen]
    return Closure({d.name: d for d in sorted(found, key=lambda d: d.name)})


def _distribution(package: Package, source: Source) -> Distribution:
    name, version = str(package.name), str(package.version or "")
    match source:
        case PackageDirectory():
            folder = PurePosixPath(source.path, source.subdirectory or "").as_posix()
            return Distribution(name, version, f"{name} @ {folder}", None, True, folder)
        case PackageVcs():
            where = f"{source.type}+{source.url or source.path}@{source.commit_id}"
            where += f"#subdirectory={source.subdirectory}" if source.subdirectory else ""
            return Distribution(name, version, f"{name} @ {where}", is_source=True)
        case PackageArchive():
            where = _located(source.url, source.path, source.hashes)
            where += f"&subdirectory={source.subdirectory}" if source.subdirectory else ""
            is_source = not str(source.url or source.path).endswith(".whl")
            return Distribution(name, version, f"{name} @ {where}", is_source=is_source)
    is_source = isinstance(source, PackageSdist)
    if package.index is None or source.path or str(source.url).startswith("file:"):
        where = _located(source.url, source.path, source.hashes)
        return Distribution(name, version, f"{name} @ {where}", is_source=is_source)
    hashes = [f"--hash={kind}:{digest}" for kind, digest in sorted(source.hashes.items())]
    pinned = " ".join([f"{name}=={version}", *hashes])
    return Distribution(name, version, pinned, package.index, is_source)


def _located(url: str | None, path: str | None, hashes: Mapping[str, str]) -> str:
    digests = "&".join(f"{kind}={digest}" for kind, digest in sorted(hashes.items()))
    return f"{url or path}#{digests}"


def environment(arch: str) -> Environment:
    """The values for markers: Lambda's Python on Linux."""
    return Environment(
        implementation_name="cpython",
        implementation_version=f"{PYTHON}.0",
        os_name="posix",
        platform_machine=MACHINES[arch],
        platform_release="",
        platform_system="Linux",
        platform_version="",
        python_full_version=f"{PYTHON}.0",
        platform_python_implementation="CPython",
        python_version=PYTHON,
        sys_platform="linux",
    )


@cache
def target_tags(arch: str) -> tuple[Tag, ...]:
    """The compatible tags of wheels, the best first."""
    version = tuple(map(int, PYTHON.split(".")))
    machine = MACHINES[arch]
    platforms: list[str] = []
    for minor in range(GLIBC[1], 4, -1):
        platforms.append(f"manylinux_{GLIBC[0]}_{minor}_{machine}")
        platforms += [f"{OLD_MANYLINUX[minor]}_{machine}"] if minor in OLD_MANYLINUX else []
    short = "".join(map(str, version))
    return (
        *cpython_tags(version, [f"cp{short}"], platforms),
        *compatible_tags(version, f"cp{short}", platforms),
    )


def closures(
    workspace: Workspace, functions: Iterable[Function], arch: str, *, is_frozen: bool = False
) -> dict[str, Closure]:
    """The closure of each function, by name.

    Exports are cached by a digest of the lock and of its projects.

    Args:
        is_frozen: use the lock even if it is older than its projects.

    Raises:
        StaleLockError: the lock is older than its projects.
        UnbuildableError: a package has no files for that platform.
        ToolError: uv failed.
    """
    functions = list(functions)
    how = "--frozen" if is_frozen else "--locked"
    kept_in = workspace.scratch / "_build" / f"exports{how}.json"
    key = _lock_digest(workspace)
    texts: dict[str, str] = {}
    with suppress(OSError, ValueError):  # none yet, or one of an interrupted build
        kept = json.loads(kept_in.read_text(encoding="utf-8"))
        texts = kept["exports"] if kept["key"] == key else {}
    missing = [function for function in functions if function.name not in texts]
    if missing:
        with ThreadPoolExecutor() as pool:
            exported = pool.map(lambda each: export(workspace, each.member, how), missing)
            texts |= dict(zip((each.name for each in missing), exported, strict=True))
        kept_in.parent.mkdir(parents=True, exist_ok=True)
        kept_in.write_text(json.dumps({"key": key, "exports": texts}), encoding="utf-8")
    return {each.name: parse_export(texts[each.name], arch, of=each.member) for each in functions}


def _lock_digest(workspace: Workspace) -> str:
    """A digest of the lock, and of every pyproject.toml that it was made from."""
    lock = (workspace.root / "uv.lock").read_bytes()
    digest = hashlib.sha256(lock)
    for folder in sorted({".", *LOCAL.findall(lock.decode())}):
        for name in ("pyproject.toml", "setup.cfg", "setup.py"):
            path = workspace.root / folder / name
            digest.update(f"{folder}/{name}\0".encode())
            digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def export(workspace: Workspace, member: str, how: str = "--locked") -> str:
    """The dependencies of a member, as a pylock.toml."""
    try:
        return run_quietly(
            [
                uv_command(), "export", "--package", member, how, "--no-default-groups",
                "--no-editable", "--no-header", "--format", "pylock.toml",
                "--python", sys.executable,
            ],
            cwd=workspace.root,
            what=f"uv export of {member}",
            env=uv_locking_environment(),
        )  # fmt: skip
    except ToolError as failed:
        if "needs to be updated" in failed.output:
            raise StaleLockError(
                "uv.lock is older than the pyproject.toml files: run `uv lock`, review what it "
                "changes, and build again. A build reads neither UV_* variables nor your own "
                "uv.toml: what uv.lock needs, such as a package index, belongs in [tool.uv] of "
                "pyproject.toml"
            ) from failed
        raise


def lib_sources(workspace: Workspace, folder: str) -> list[Path]:
    """The files that a folder's wheel may be made from, for every layout.

    With those outside that its pyproject.toml names; without caches and artifacts of builds, which
    may be in it.
    """
    found = {*files_below(workspace.root / folder, BESIDE_A_LIB), *_named(workspace, folder)}
    return sorted(
        path
        for path in found
        if not path.is_relative_to(workspace.scratch)
        and not (path.parent == workspace.dist and path.suffix in (".zip", ".partial"))
    )


def project_text(folder: Path) -> str:
    """A folder's pyproject.toml; empty, if it has none."""
    path = folder / "pyproject.toml"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _named(workspace: Workspace, folder: str) -> Iterator[Path]:
    """Files that a lib's build configuration names although they are outside of it, or beside it.

    Such as `../shared/x.json` of hatchling's force-include, or of uv's cache-keys.
    """
    base = workspace.root / folder
    read = tomllib.loads(project_text(base))
    tools = read.get("tool", {})
    given = [tools.get("uv", {}).get("cache-keys"), *(tools.get(name) for name in OF_BACKENDS)]
    for text in _texts(given):
        if text.startswith("../") or text in BESIDE_A_LIB:
            for path in base.glob(text):
                if path.is_file():
                    yield path
                elif text not in BESIDE_A_LIB:
                    yield from files_below(path)


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            yield from chain(value, *map(_texts, value.values()))
        case list():
            yield from chain.from_iterable(map(_texts, value))
