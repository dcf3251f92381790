"""Install distributions for the target platform, each into its own cached folder.

With a folder each, distributions that share files or a namespace can't change one another, and a
function's artifact is a selection of folders.
"""

import hashlib
import logging
import re
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import Distribution as Metadata
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import urlsplit

from packaging.tags import parse_tag

from lambdapack import resolving
from lambdapack.environments import uv_command, uv_environment
from lambdapack.errors import BuildError
from lambdapack.files import files_below, is_leaving
from lambdapack.requirements import (
    PLATFORMS,
    PYTHON,
    Distribution,
    UnbuildableError,
    lib_sources,
    project_text,
    target_tags,
)
from lambdapack.thinning import bytecode, slimming
from lambdapack.tools import MissingToolError, ToolError, run_quietly
from lambdapack.workspace import Workspace

LOG = logging.getLogger("lambdapack")

# Files of an installer that depend on machine and time. RECORD is rewritten for what ships.
OF_THE_INSTALLER = frozenset(
    {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"}
)
SCRIPT = """\
#!/usr/bin/env python3
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from {module} import {top}

sys.exit({name}())
"""
AT_ONCE = 8
# setuptools writes there instead of beside the sources, where old results would ship again.
OF_SETUPTOOLS = "[build]\nbuild_base = {0}\n[egg_info]\negg_base = {0}\n"
# What takes a version from git, in a pyproject.toml.
OF_GIT = re.compile(r"[-_\"']scm\b|\bhatch-vcs\b|\bversioningit\b|dynamic-versioning\b")
NOT_COPIED = frozenset({"build", "dist", "node_modules", "venv"})
ELF_MACHINES = {"x86_64": 62, "arm64": 183}
# The minor version of glibc 2 on Lambda, and where a library names those that it needs.
GLIBC_OF_LAMBDA = 34
NEEDED_GLIBC = re.compile(rb"\bGLIBC_2\.(\d+)")


class UnreadableSourceError(BuildError):
    """A module of the workspace is not Python."""

    @classmethod
    def of(cls, workspace: Workspace, path: Path, error: SyntaxError | ValueError) -> Self:
        """The error for a file that can't be compiled; names file, line and remedy."""
        below = path.is_relative_to(workspace.root)
        name = (path.relative_to(workspace.root) if below else path).as_posix()
        line = getattr(error, "lineno", None) or 1
        return cls(
            f"{name}:{line}: {getattr(error, 'msg', error)}: correct it, or give it another "
            "extension than .py if it is not a module"
        )


def error_in(source: bytes) -> SyntaxError | ValueError | None:
    """Why a module can't be compiled, if it can't."""
    try:
        compile(source, "<module>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return error
    return None


def check_source(workspace: Workspace, name: str, path: Path) -> None:
    """Refuse a module that can't be compiled.

    A file that no import can name, such as a template of a module, may contain anything.

    Args:
        name: its name in the artifact.
        path: where it is written.

    Raises:
        UnreadableSourceError: it is not Python.
    """
    error = error_in(path.read_bytes())
    parts = PurePosixPath(name).with_suffix("").parts
    if error is not None and all(map(str.isidentifier, parts)):
        raise UnreadableSourceError.of(workspace, path, error) from error


class WheelStore:
    """The installed distributions of one architecture."""

    def __init__(self, workspace: Workspace, arch: str, *, thin: bool = True) -> None:
        self.workspace = workspace
        self.arch = arch
        self.thin = thin
        kind = f"cp{PYTHON}-{PLATFORMS[arch]}{'' if thin else '-whole'}"
        self.root = workspace.scratch / "_build" / "wheels" / kind

    def folder(self, distribution: Distribution) -> Path:
        """The folder of an installed distribution, by its requirement."""
        parts = [builder_digest(), distribution.requirement, str(distribution.index)]
        if distribution.folder is not None:
            parts.append(lib_digest(self.workspace, distribution.folder))
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
        return self.root / "-".join(filter(None, [distribution.name, distribution.version, digest]))

    def fill(self, distributions: Iterable[Distribution]) -> dict[Distribution, Path]:
        """Install distributions that are missing.

        Returns:
            Their folders.

        Raises:
            UnreadableSourceError: a module of a lib is not Python.
            UnbuildableError: a distribution has no files for the platform.
        """
        folders = {each: self.folder(each) for each in dict.fromkeys(distributions)}
        wanted = {path: each for each, path in folders.items()}
        missing = {path: wanted[path] for path in sorted(wanted) if not path.is_dir()}
        if not missing:
            return folders
        others = [each for each in missing.values() if each.folder is None]
        if others:
            LOG.info(
                f"installing {len(others)} packages for the artifacts; new ones are downloaded"
            )
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".filling-") as scratch:
            staged = {path: Path(scratch) / path.name for path in missing}
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(self._install, missing.values(), staged.values()))
            published = {
                staged[path]: each.name for path, each in missing.items() if each.folder is None
            }
            if self.thin:
                slimming.slim((name, path) for path, name in published.items())
            else:
                for path in published:
                    resolving.note(path)
            bytecode.compile_trees(*staged.values())
            for source in staged.values():  # files that don't compile stay sources
                shutil.rmtree(source / "bin" / "__pycache__", ignore_errors=True)
            for target, source in staged.items():
                if not target.is_dir():
                    source.rename(target)
        return folders

    def _install(self, distribution: Distribution, target: Path) -> None:
        if distribution.folder is None:
            self._uv_install(distribution, distribution.requirement, target)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                wheel = self._uv_build(distribution, Path(scratch))
                self._uv_install(distribution, str(wheel), target)
        (target / ".lock").unlink(missing_ok=True)
        (info,) = target.glob("*.dist-info")
        tags = re.findall(r"^Tag: (\S+)$", (info / "WHEEL").read_text(encoding="utf-8"), re.M)
        self._check_libraries(distribution, target, tags)
        if distribution.is_source:
            self._check_tags(distribution, tags)
            (info / "WHEEL").write_bytes(_without_generator((info / "WHEEL").read_bytes()))
        for path in list(info.iterdir()):
            if path.name in OF_THE_INSTALLER:
                path.unlink()
        if self.thin:
            metadata = info / "METADATA"
            metadata.write_bytes(_without_prose(metadata.read_bytes()))
        _write_scripts(info)
        if distribution.folder is not None:
            self._remove_leavings(distribution, target)
            self._check_sources(distribution.folder, target)
            resolving.note(target)

    def _remove_leavings(self, distribution: Distribution, target: Path) -> None:
        found = [path for path in sorted(target.rglob("*")) if is_leaving(path.name)]
        named = [path.relative_to(target).as_posix() for path in found if "__" not in path.name]
        if named:
            LOG.info(
                f"{distribution.name}: {', '.join(named)} will not ship, as its name is one of "
                "tools, editors or secrets: rename what the code reads"
            )
        for path in found:
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)

    def _check_sources(self, folder: str, target: Path) -> None:
        """Check what a lib ships, and name where it is written."""
        for path in sorted(target.rglob("*.py")):
            if error_in(path.read_bytes()) is not None:
                name = path.relative_to(target).as_posix()
                written = [
                    each
                    for each in lib_sources(self.workspace, folder)
                    if each.name == path.name and each.read_bytes() == path.read_bytes()
                ]
                check_source(self.workspace, name, next(iter(written), path))

    def _check_tags(self, distribution: Distribution, tags: list[str]) -> None:
        """Check that a distribution built here runs on the target platform."""
        supported = set(target_tags(self.arch))
        if not any(tag in supported for text in tags for tag in parse_tag(text)):
            raise UnbuildableError(
                f"{distribution.name} was built from its sources for {', '.join(tags)}, and the "
                f"artifact is for {PLATFORMS[self.arch]}. {self._by_hand()}"
            )

    def _by_hand(self) -> str:
        return (
            "Depend on a release that has a wheel for it, or build one by `uv build --wheel` on "
            f"Linux of {self.arch} and name it as a path in [tool.uv.sources]"
        )

    def _check_libraries(
        self, distribution: Distribution, target: Path, tags: Iterable[str]
    ) -> None:
        """Check that shared libraries are for Lambda's machine, and for its glibc.

        A tag such as linux_x86_64, of a wheel that was built by hand, names no version of glibc.
        """
        is_any_linux = any("-linux_" in tag for tag in tags)
        for path in target.rglob("*.so*"):
            library = path.read_bytes() if path.is_file() else b""
            if library[:4] != b"\x7fELF":
                continue
            name = f"{path.relative_to(target).as_posix()} of {distribution.name}"
            if int.from_bytes(library[18:20], "little") != ELF_MACHINES[self.arch]:
                raise UnbuildableError(
                    f"{name} is for another kind of machine than {self.arch}: depend on a release "
                    "that has a wheel for it"
                )
            needed = max(map(int, NEEDED_GLIBC.findall(library)), default=0) if is_any_linux else 0
            if needed > GLIBC_OF_LAMBDA:
                raise UnbuildableError(
                    f"{name} needs glibc 2.{needed}, and Lambda has 2.{GLIBC_OF_LAMBDA}: build its "
                    "wheel on Amazon Linux 2023, or in a manylinux image"
                )

    def _uv_build(self, distribution: Distribution, scratch: Path) -> Path:
        """Build the wheel of a folder."""
        assert distribution.folder is not None
        source = self.workspace.root / distribution.folder
        sources: tuple[str, ...] = ()
        if _writes_beside_sources(source):
            hidden = [path for path in source.glob(".*") if path.is_file()]  # such as .version
            for path in [*files_below(source, NOT_COPIED), *hidden]:
                copied = scratch / "source" / path.relative_to(source)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copied)
                copied.chmod(copied.stat().st_mode | 0o200)
            source = scratch / "source"
            sources = ("--no-sources",)  # it is not in the workspace
        limits = scratch / "constraints.txt"
        constraints = _configuration(self.workspace).get("build-constraint-dependencies", [])
        limits.write_text("\n".join(constraints), encoding="utf-8")
        made = scratch / "made"
        made.mkdir()
        settings = scratch / "setuptools.cfg"
        settings.write_text(OF_SETUPTOOLS.format(made), encoding="utf-8")
        self._uv(
            distribution, "build", "--wheel", *sources, "--build-constraints", limits,
            "--out-dir", scratch / "wheel", source,
            DIST_EXTRA_CONFIG=str(settings),
        )  # fmt: skip
        (wheel,) = scratch.glob("wheel/*.whl")
        return wheel

    def _uv_install(self, distribution: Distribution, what: str, target: Path) -> None:
        listing = target.with_name(f"{target.name}.txt")
        listing.write_text(f"{what}\n", encoding="utf-8")
        is_wheel = distribution.folder is not None or not distribution.is_source
        self._uv(
            distribution, "pip", "install", "--no-deps", "--target", target,
            "--python-version", PYTHON, "--python-platform", PLATFORMS[self.arch],
            "--no-compile-bytecode", "--link-mode", "copy",
            *(["--only-binary", ":all:"] if is_wheel else []),
            "-r", listing,
        )  # fmt: skip

    def _uv(self, distribution: Distribution, *arguments: str | Path, **variables: str) -> None:
        try:
            run_quietly(
                [
                    uv_command(),
                    *arguments,
                    "--quiet",
                    "--no-config",
                    *index_options(self.workspace, distribution.index),
                    "--python",
                    sys.executable,
                ],
                cwd=self.workspace.root,
                what="uv",
                env=uv_environment() | variables,
            )
        except ToolError as failed:
            raise UninstallableError(
                f"uv could not install {distribution.requirement.partition(' --hash')[0]} for "
                f"{PLATFORMS[self.arch]} and Python {PYTHON}; see its messages above"
                + (f". {self._by_hand()}" if distribution.is_source else ""),
                failed.output,
            ) from failed


def _writes_beside_sources(folder: Path) -> bool:
    """Whether the build backend is one that leaves folders where it builds.

    One that takes the version from git needs the repository around the folder.
    """
    text = project_text(folder)
    backend = tomllib.loads(text).get("build-system", {}).get("build-backend", "setuptools")
    return backend.startswith(("setuptools", "pdm")) and not OF_GIT.search(text)


def index_options(workspace: Workspace, first: str | None = None) -> list[str]:
    """uv's options for the package indexes that the project names, as its configuration has them.

    By its name an index gets the user's UV_INDEX_NAME_USERNAME and _PASSWORD.

    Args:
        first: the address, as uv.lock has it, of the index to ask before all others.
    """
    config = _configuration(workspace)
    indexes = [
        *config.get("index", []),
        *({"url": url} for url in config.get("extra-index-url", [])),
        *({"url": url, "default": True} for url in [config.get("index-url")] if url),
    ]
    options: list[str] = []
    if first is not None:
        known = [each for each in indexes if _without_password(each["url"]) == first.rstrip("/")]
        options += ["--index", _named(known[0]) if known else first]
    for each in indexes:
        if not each.get("explicit"):
            options += ["--default-index" if each.get("default") else "--index", _named(each)]
    for key in ("index-strategy", "keyring-provider"):
        options += [f"--{key}", config[key]] if key in config else []
    for where in config.get("find-links", []):
        options += ["--find-links", where]
    return options


def _configuration(workspace: Workspace) -> dict[str, Any]:
    """uv's settings of the project."""
    file = workspace.root / "uv.toml"
    if file.is_file():
        return tomllib.loads(file.read_text(encoding="utf-8"))
    project = (workspace.root / "pyproject.toml").read_text(encoding="utf-8")
    found: dict[str, Any] = tomllib.loads(project).get("tool", {}).get("uv", {})
    return found


def _named(index: Mapping[str, str]) -> str:
    return f"{index['name']}={index['url']}" if "name" in index else index["url"]


def _without_password(url: str) -> str:
    parts = urlsplit(url.rstrip("/"))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class UninstallableError(ToolError):
    """uv failed on one distribution."""


def _without_prose(metadata: bytes) -> bytes:
    """Metadata without the long description, which only an index shows."""
    return metadata.replace(b"\r\n", b"\n").partition(b"\n\n")[0] + b"\n\n"


def _without_generator(wheel: bytes) -> bytes:
    """WHEEL without the version of the build backend, which uv chooses anew on another day."""
    return re.sub(rb"(?m)^Generator:.*\n", b"", wheel.replace(b"\r\n", b"\n"))


def _write_scripts(info: Path) -> None:
    """A distribution's commands, as scripts that start on any machine."""
    folder = info.parent / "bin"
    for script in folder.glob("*"):
        if script.is_file() and script.read_bytes()[:2] == b"#!":
            first, _, rest = script.read_bytes().partition(b"\n")
            if b"python" in first:
                script.write_bytes(b"#!/usr/bin/env python3\n" + rest)
    for entry in Metadata.at(info).entry_points:
        script = folder / entry.name
        if entry.group in ("console_scripts", "gui_scripts") and script.is_file():
            text = SCRIPT.format(
                module=entry.module, top=entry.attr.partition(".")[0], name=entry.attr
            )
            script.write_text(text, encoding="utf-8")


@cache
def builder_digest() -> str:
    """A digest of the code that determines the written bytes."""
    return code_digest(Path(__file__).parent)


def code_digest(folder: Path) -> str:
    """A digest of all modules of a package, nested ones included, with their paths."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def lib_digest(workspace: Workspace, folder: str) -> str:
    """A digest of the files that a folder's wheel is made from."""
    digest = hashlib.sha256()
    for path in lib_sources(workspace, folder):
        digest.update(path.relative_to(workspace.root / folder).as_posix().encode() + b"\0")
        digest.update(b"x" if path.stat().st_mode & 0o100 else b"-")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(_state_of_git(workspace.root / folder))
    return digest.hexdigest()


def _state_of_git(folder: Path) -> bytes:
    """The commit and tag that a folder's version is made from, if it takes it from git."""
    if not OF_GIT.search(project_text(folder)):
        return b""
    describe = ["git", "describe", "--tags", "--always", "--long", "--dirty"]
    try:
        return run_quietly(describe, cwd=folder, what="git describe").encode()
    except (ToolError, MissingToolError):  # its build says what it needs
        return b""


def prune(store: WheelStore, keep: set[Path]) -> None:
    """Delete cached folders that no function has used for a day."""
    yesterday = time.time() - 86_400
    for path in store.root.glob("*"):
        if path not in keep and path.lstat().st_mtime < yesterday:
            if path.is_symlink():  # into another workspace's store
                path.unlink()
            else:
                shutil.rmtree(path)
