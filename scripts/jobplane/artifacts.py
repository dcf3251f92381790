"""Artifacts: `dist/<name>.zip` and `dist/manifest.json`, from uv.lock and the tree alone.

The same inputs give the same bytes: fixed order, dates, modes and compression; nothing in an
artifact names the machine or the folder that built it. What has not changed is not built again.
"""

import hashlib
import json
import platform
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.util import cache_from_source, source_from_cache
from pathlib import Path, PurePosixPath

from jobplane import bytecode, methods, sdk, slimming
from jobplane.console import note
from jobplane.locks import exclusive
from jobplane.requirements import PINNED, Closure, closures
from jobplane.wheels import (
    PYTHON,
    UnreadableSourceError,
    WheelStore,
    bytecode_digest,
    lib_digest,
    prune,
)
from jobplane.workspace import Function, Workspace

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
COMPRESSION_LEVEL = 6
ENTRY_POINTS_KEPT = "[jobplane."
STRIPPED_SUFFIXES = frozenset({".pyi", ".pyx", ".pxd", ".c", ".h", ".typed"})
# wrapt, which the X-Ray SDK patches with, has the same in Python.
STRIPPED_EXTENSIONS = ("wrapt/",)
RUNTIME_SDK = frozenset(
    {"boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3"}
)

type Contents = dict[str, Path | bytes]
type Module = tuple[str, bytes]
"""A module's name in the artifact, and its source."""


@dataclass(frozen=True)
class Settings:
    """What a build can be told."""

    arch: str
    sdk: str = "cut"

    @classmethod
    def local(cls) -> "Settings":
        """For this machine, where the local stage runs."""
        machine = platform.machine().lower()
        return cls("arm64" if machine in ("arm64", "aarch64") else "x86_64")


@dataclass(frozen=True)
class Artifact:
    """One entry of the manifest."""

    name: str
    zip: str
    digest: str
    size: int
    unpacked_size: int
    files: int
    dependencies: dict[str, str]
    inputs: str
    arch: str
    sdk: str
    built: bool = False
    """Built by this run, not by an earlier one; not stored."""


@dataclass(frozen=True)
class Draft:
    """An artifact's files, before the modules that were made for it are compiled."""

    others: Contents
    """Third-party."""
    own: Contents
    changed: frozenset[Module]
    """Modules of the others."""
    written: frozenset[Module]
    """Modules of our own, as they are compiled."""

    @property
    def fresh(self) -> frozenset[Module]:
        return self.changed | self.written

    def finished(self, compiled: Mapping[Module, bytes]) -> Contents:
        """Everything, with the bytecode that was missing."""

        def bytecode_of(modules: frozenset[Module]) -> Contents:
            return {_cached(module[0]): self._sealed(module, compiled) for module in modules}

        return (
            _sourceless(self.others | bytecode_of(self.changed))
            | self.own
            | bytecode_of(self.written)
        )

    def _sealed(self, module: Module, compiled: Mapping[Module, bytes]) -> bytes:
        """Its bytecode, which says that it is of the source that ships."""
        shipped = self.own.get(module[0], module[1])
        source = shipped if isinstance(shipped, bytes) else shipped.read_bytes()
        return bytecode.of_source(compiled[module], source)


class Builder:
    """Builds functions of one workspace with one set of settings."""

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        self.workspace = workspace
        self.settings = settings
        self.wheels = WheelStore(workspace, settings.arch)

    def build(self, functions: Iterable[Function]) -> list[Artifact]:
        """Bring the artifacts up to date and write the manifest.

        Raises:
            ToolError: uv failed.
            UnreadableSourceError: a module of a function or of a lib is no Python.
            click.ClickException: a statement names a service that botocore doesn't have.
        """
        functions = list(functions)
        with exclusive(self.workspace, "build"):
            manifest = read_manifest(self.workspace)
            found = closures(self.workspace, functions)
            inputs = {f.name: self.inputs(f, found[f.name]) for f in functions}
            stale = [
                function
                for function in functions
                if not is_current(
                    self.workspace, manifest.get(function.name), inputs[function.name]
                )
            ]
            if stale:
                note(f"building {len(stale)} of {len(functions)} artifacts")
                everything = closures(self.workspace, self.workspace.functions())
                self._install([found[f.name] for f in stale], list(everything.values()))
                with ThreadPoolExecutor() as pool:
                    drafts = list(pool.map(lambda f: self._draft(f, found[f.name]), stale))
                    compiled = _compiled({module for draft in drafts for module in draft.fresh})
                    built = list(
                        pool.map(
                            lambda f, draft: self._write(
                                f, found[f.name], inputs[f.name], draft.finished(compiled)
                            ),
                            stale,
                            drafts,
                        )
                    )
                manifest |= {artifact.name: artifact for artifact in built}
            known = {function.name for function in self.workspace.functions()}
            gone = [name for name in manifest if name not in known]
            for name in gone:
                (self.workspace.dist / f"{name}.zip").unlink(missing_ok=True)
                del manifest[name]
            if stale or gone:
                write_manifest(self.workspace, manifest)
        return [manifest[function.name] for function in functions]

    def inputs(self, function: Function, closure: Closure) -> str:
        """One digest of everything that decides the artifact's bytes."""
        parts: list[object] = [
            PYTHON, asdict(self.settings), COMPRESSION_LEVEL, builder_digest(),
            closure.locked,
            {lib: lib_digest(self.workspace, lib) for lib in closure.libs},
            sdk.Grants.of(function.name, function.config).actions,
            [
                (name, _sha256(path.read_bytes()))
                for name, path in function.shipped_files().items()
            ],
        ]  # fmt: skip
        return _sha256(json.dumps(parts, sort_keys=True).encode())

    def _install(self, wanted: list[Closure], everything: list[Closure]) -> None:
        requirements = [text for closure in wanted for text in self._shipped(closure).values()]
        self.wheels.fill(requirements, [lib for closure in wanted for lib in closure.libs])
        used = {self.wheels.locked(text) for c in everything for text in c.locked.values()}
        used |= {self.wheels.lib(lib) for closure in everything for lib in closure.libs}
        prune(self.wheels, used)

    def _shipped(self, closure: Closure) -> dict[str, str]:
        if self.settings.sdk == "cut":
            return closure.locked
        return {name: text for name, text in closure.locked.items() if name not in RUNTIME_SDK}

    def _write(
        self, function: Function, closure: Closure, inputs: str, contents: Contents
    ) -> Artifact:
        target = self.workspace.dist / f"{function.name}.zip"
        target.parent.mkdir(exist_ok=True)
        partial = target.with_suffix(".zip.partial")
        unpacked = write_zip(partial, contents)
        partial.replace(target)
        archive = target.read_bytes()
        versions = {
            name: match["version"]
            for name, text in self._shipped(closure).items()
            if (match := PINNED.match(text))
        }
        libs = {f"jobplane-{Path(lib).name}": "workspace" for lib in closure.libs}
        return Artifact(
            name=function.name,
            zip=target.relative_to(self.workspace.root).as_posix(),
            digest=_sha256(archive),
            size=len(archive),
            unpacked_size=unpacked,
            files=len(contents),
            dependencies=dict(sorted((versions | libs).items())),
            inputs=inputs,
            arch=self.settings.arch,
            sdk=self.settings.sdk,
            built=True,
        )

    def _draft(self, function: Function, closure: Closure) -> "Draft":
        grants = sdk.Grants.of(function.name, function.config)
        folders = {name: self.wheels.locked(text) for name, text in self._shipped(closure).items()}
        others: Contents = {}
        changed: Contents = {}
        for name, folder in folders.items():
            if name == "botocore":
                changed = sdk.cut_botocore(folder, grants)
                others |= _kept(changed)
            elif name == "boto3":
                services = grants.services(_service_folders(folders["botocore"]))
                others |= _kept(sdk.cut_boto3(folder, grants, services))
            else:
                others |= _kept(_files_of(folder))
        if "certifi" in folders:
            others.pop("botocore/cacert.pem", None)  # it asks for certifi's first
        own: Contents = {}
        for lib in closure.libs:
            own |= _kept(_files_of(self.wheels.lib(lib)))
        written: Contents = {**function.shipped_files(), slimming.HELPER.name: slimming.HELPER}
        own |= written
        source = function.source.read_text(encoding="utf-8")
        try:
            written[function.source.name] = slimming.begun_cold(source).encode()
        except SyntaxError as error:
            raise UnreadableSourceError.of(self.workspace, function.source, error) from error
        made: Contents = {f"{methods.MODULE}.py": methods.compiled(others | own).encode()}
        return Draft(others | made, own, _modules(changed | made), _modules(written))


def _modules(contents: Mapping[str, Path | bytes]) -> frozenset[Module]:
    """The modules that have no bytecode yet."""
    return frozenset(
        (name, body if isinstance(body, bytes) else body.read_bytes())
        for name, body in contents.items()
        if name.endswith(".py") and (isinstance(body, bytes) or not _has_bytecode(body))
    )


def _has_bytecode(path: Path) -> bool:
    return Path(cache_from_source(str(path), optimization="")).is_file()


def _sourceless(contents: Contents) -> Contents:
    """With each module's bytecode in its source's place, where Python takes it for the module.

    A trace still names file and line. The workspace's own code keeps its source beside it.
    """
    compiled = {
        PurePosixPath(source_from_cache(name)): body
        for name, body in contents.items()
        if name.endswith(".pyc")
    }
    others = {
        name: body
        for name, body in contents.items()
        if not name.endswith(".pyc") and PurePosixPath(name) not in compiled
    }
    return others | {path.with_suffix(".pyc").as_posix(): body for path, body in compiled.items()}


def _service_folders(botocore: Path) -> list[str]:
    return [path.name for path in (botocore / "botocore" / "data").iterdir() if path.is_dir()]


def _files_of(folder: Path) -> Contents:
    return {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }


def _kept(contents: Contents) -> Contents:
    """Without tests, stubs, headers, prose and installer's records."""
    return {name: body for name, body in contents.items() if _is_kept(name, body)}


def _is_kept(name: str, body: Path | bytes) -> bool:
    path = PurePosixPath(name)
    top = path.parts[0]
    if top.endswith(".dist-info"):
        return path.name in ("METADATA", "entry_points.txt") and _declares_entry_points(body)
    if top == "bin" or top.endswith("-stubs") or path.suffix in STRIPPED_SUFFIXES:
        return False
    if path.suffix == ".so" and name.startswith(STRIPPED_EXTENSIONS):
        return False
    return slimming.STRIPPED_FOLDERS.isdisjoint(path.parts[:-1])


def _declares_entry_points(body: Path | bytes) -> bool:
    if isinstance(body, bytes):
        return False
    declared = body.with_name("entry_points.txt")
    return declared.is_file() and ENTRY_POINTS_KEPT in declared.read_text()


def _compiled(modules: Iterable[Module]) -> dict[Module, bytes]:
    """Bytecode of modules, each compiled once however many artifacts hold it."""
    with tempfile.TemporaryDirectory() as scratch:
        roots = {module: Path(scratch, str(n)) for n, module in enumerate(sorted(modules))}
        for (name, body), root in roots.items():
            target = root / name
            target.parent.mkdir(parents=True)
            target.write_bytes(body)
        bytecode.compile_trees(*roots.values())
        return {module: (root / _cached(module[0])).read_bytes() for module, root in roots.items()}


def _cached(name: str) -> str:
    return PurePosixPath(cache_from_source(name, optimization="")).as_posix()


def write_zip(target: Path, contents: Mapping[str, Path | bytes]) -> int:
    """Write a zip whose bytes depend on names and contents alone; returns the unpacked size."""
    unpacked = 0
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(contents):
            body = contents[name]
            data = body if isinstance(body, bytes) else body.read_bytes()
            entry = zipfile.ZipInfo(name, ZIP_DATE)
            entry.create_system = 3
            executable = re.search(r"\.so(\.|$)", name) is not None
            entry.external_attr = (0o100755 if executable else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=COMPRESSION_LEVEL)
            unpacked += len(data)
    return unpacked


def is_current(workspace: Workspace, artifact: Artifact | None, inputs: str) -> bool:
    """Whether the artifact is there, is the one of the manifest, and is made of these inputs."""
    if artifact is None or artifact.inputs != inputs:
        return False
    path = workspace.root / artifact.zip
    return path.is_file() and _sha256(path.read_bytes()) == artifact.digest


def stale_functions(workspace: Workspace, functions: Iterable[Function]) -> list[str]:
    """The functions whose artifact isn't what the tree would build now, whatever its settings."""
    functions = list(functions)
    manifest = read_manifest(workspace)
    found = closures(workspace, functions)
    stale = []
    for function in functions:
        artifact = manifest.get(function.name)
        if artifact is not None:
            builder = Builder(workspace, Settings(artifact.arch, artifact.sdk))
            inputs = builder.inputs(function, found[function.name])
            if is_current(workspace, artifact, inputs):
                continue
        stale.append(function.name)
    return stale


def read_manifest(workspace: Workspace) -> dict[str, Artifact]:
    """The artifacts that were built, by function."""
    path = workspace.dist / "manifest.json"
    if not path.is_file():
        return {}
    functions = json.loads(path.read_text())["functions"]
    return {name: Artifact(name=name, **entry) for name, entry in functions.items()}


def write_manifest(workspace: Workspace, manifest: Mapping[str, Artifact]) -> None:
    entries = {}
    for name, artifact in sorted(manifest.items()):
        entries[name] = asdict(replace(artifact))
        del entries[name]["name"], entries[name]["built"]
    path = workspace.dist / "manifest.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"functions": entries}, indent=2) + "\n")
    partial.replace(path)


def clean(workspace: Workspace) -> None:
    """Remove every artifact and every cached wheel."""
    shutil.rmtree(workspace.dist, ignore_errors=True)
    shutil.rmtree(workspace.scratch / "_build", ignore_errors=True)


def builder_digest() -> str:
    """Changes when this code would write other bytes."""
    return _sha256(
        Path(__file__).read_bytes()
        + (sdk.digest() + slimming.digest() + methods.digest() + bytecode_digest()).encode()
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
