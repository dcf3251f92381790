"""Installed distributions for the target platform, one cached folder each.

uv installs what is missing in one call; the result is then split by each distribution's
RECORD, so that a function's artifact is a choice of folders and nothing is installed twice.
"""

import ast
import csv
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import click

from jobplane import bytecode, slimming
from jobplane.console import note, run_quietly
from jobplane.environments import uv_command
from jobplane.requirements import PINNED, lib_sources
from jobplane.workspace import Workspace

PYTHON = "3.13"
PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}


class UnreadableSourceError(click.ClickException):
    """A module of the workspace is no Python."""

    @classmethod
    def of(cls, workspace: Workspace, path: Path, error: SyntaxError) -> Self:
        name = path.relative_to(workspace.root).as_posix()
        return cls(f"{name}:{error.lineno}: {error.msg}")


class WheelStore:
    """The installed distributions of one architecture."""

    def __init__(self, workspace: Workspace, arch: str) -> None:
        self.workspace = workspace
        self.platform = PLATFORMS[arch]
        self.root = workspace.scratch / "_build" / "wheels" / f"cp{PYTHON}-{self.platform}"

    def locked(self, requirement: str) -> Path:
        """The folder of a locked distribution, by its requirement text."""
        pinned = PINNED.match(requirement)
        if pinned is None:
            raise ValueError(f"not a pinned requirement: {requirement}")
        how = bytecode_digest() + slimming.digest()
        digest = hashlib.sha256(f"{how} {requirement}".encode()).hexdigest()[:12]
        return self.root / f"{pinned['name']}-{pinned['version']}-{digest}"

    def lib(self, lib: str) -> Path:
        """The folder of a workspace lib, by what its sources are now."""
        return self.root / f"{Path(lib).name}-{lib_digest(self.workspace, lib)[:12]}"

    def fill(self, requirements: Iterable[str], libs: Iterable[str]) -> None:
        """Install what is not there yet.

        Raises:
            UnreadableSourceError: a module of a lib is no Python.
        """
        missing = {text: self.locked(text) for text in sorted(set(requirements))}
        missing = {text: path for text, path in missing.items() if not path.is_dir()}
        missing_libs = {lib: self.lib(lib) for lib in sorted(set(libs))}
        missing_libs = {lib: path for lib, path in missing_libs.items() if not path.is_dir()}
        if not missing and not missing_libs:
            return
        if missing:
            note(f"installing {len(missing)} packages for the artifacts; new ones are downloaded")
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".filling-") as scratch:
            staged = self._install_locked(missing, Path(scratch))
            slimming.slim((_name_of(target), folder) for target, folder in staged.items())
            with ThreadPoolExecutor() as pool:
                installed = pool.map(
                    lambda lib: self._install_lib(lib, Path(scratch)), missing_libs
                )
                staged |= dict(zip(missing_libs.values(), installed, strict=True))
            bytecode.compile_trees(*staged.values())
            for target, source in staged.items():
                if not target.is_dir():
                    source.rename(target)

    def _install_locked(self, missing: dict[str, Path], scratch: Path) -> dict[Path, Path]:
        if not missing:
            return {}
        listing = scratch / "requirements.txt"
        listing.write_text("\n".join(missing) + "\n")
        union = scratch / "union"
        self._uv_install(union, ["--only-binary", ":all:", "-r", listing])
        records = {_normal(path.name): path for path in union.glob("*.dist-info")}
        staged: dict[Path, Path] = {}
        for text, target in missing.items():
            name, version, _ = target.name.rsplit("-", 2)
            info = records.get(_normal(f"{name}-{version}.dist-info"))
            staging = scratch / target.name
            staging.mkdir()
            if info is not None:
                _move_recorded(union, info, staging)
            elif ";" not in text:
                raise FileNotFoundError(f"uv installed nothing for {name}=={version}")
            staged[target] = staging
        return staged

    def _install_lib(self, lib: str, scratch: Path) -> Path:
        for path in lib_sources(self.workspace, lib):
            if path.suffix == ".py":
                try:
                    ast.parse(path.read_bytes())
                except SyntaxError as error:
                    raise UnreadableSourceError.of(self.workspace, path, error) from error
        union = scratch / "libs" / lib
        self._uv_install(union, ["--refresh", "--no-sources", self.workspace.root / lib])
        (info,) = union.glob("*.dist-info")
        staging = scratch / "staged" / lib
        staging.mkdir(parents=True)
        _move_recorded(union, info, staging)
        return staging

    def _uv_install(self, target: Path, what: list[str | Path]) -> None:
        run_quietly(
            [
                uv_command(), "pip", "install", "--quiet", "--no-deps", "--target", target,
                "--python-version", PYTHON, "--python-platform", self.platform,
                "--no-compile-bytecode", "--link-mode", "copy", *what,
            ],
            cwd=self.workspace.root,
            what="uv pip install",
        )  # fmt: skip


def _name_of(target: Path) -> str:
    return target.name.rsplit("-", 2)[0]


def _normal(dist_info: str) -> str:
    return re.sub(r"[-_.]+", "-", dist_info).lower()


def _move_recorded(union: Path, info: Path, target: Path) -> None:
    with (info / "RECORD").open(newline="") as record:
        names = [row[0] for row in csv.reader(record)]
    for name in names:
        source = union / name
        if name.startswith("..") or not source.is_file():
            continue
        moved = target / name
        moved.parent.mkdir(parents=True, exist_ok=True)
        source.rename(moved)


def bytecode_digest() -> str:
    """Changes when compiled files would."""
    return hashlib.sha256(Path(bytecode.__file__).read_bytes()).hexdigest()


def lib_digest(workspace: Workspace, lib: str) -> str:
    """Changes when the lib's wheel would."""
    digest = hashlib.sha256(bytecode_digest().encode())
    for path in lib_sources(workspace, lib):
        digest.update(path.relative_to(workspace.root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def prune(store: WheelStore, keep: set[Path]) -> None:
    """Drop what no function is made of any more, once it has not been for a day."""
    yesterday = time.time() - 86_400
    for path in store.root.glob("*"):
        if path not in keep and path.lstat().st_mtime < yesterday:
            if path.is_symlink():  # into another workspace's store
                path.unlink()
            else:
                shutil.rmtree(path)
