"""Artifacts: `dist/<name>.zip` and `dist/manifest.json`, from uv.lock and the sources only.

The same inputs give the same bytes: fixed order, dates, modes and compression, no names of the
machine or its folders. Artifacts whose inputs have not changed are not built again.
"""

import ast
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path, PurePosixPath

from lambdapack import resolving
from lambdapack.errors import BuildError
from lambdapack.files import installed_files
from lambdapack.locks import exclusive
from lambdapack.requirements import PYTHON, Closure, Distribution, UnbuildableError, closures
from lambdapack.thinning import bytecode, methods, sdk, slimming
from lambdapack.thinning.bytecode import cached
from lambdapack.wheels import (
    WheelStore,
    builder_digest,
    check_source,
    error_in,
    lib_digest,
    prune,
)
from lambdapack.workspace import Function, Workspace

LOG = logging.getLogger("lambdapack")

# A variable that has the effect of `thin=False`, also on a build that another program starts.
NO_THIN = "LAMBDAPACK_NO_THIN"
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
COMPRESSION_LEVEL = 6
# wrapt, which the X-Ray SDK uses, also has a Python version of its C extension.
STRIPPED_EXTENSIONS = re.compile(r"wrapt/.*\.(?:so|c)")
RUNTIME_SDK = frozenset(
    {"boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3"}
)

# The top-level modules of these.
RUNTIME_MODULES = (RUNTIME_SDK - {"python-dateutil"}) | {"dateutil"}

HANDLERS = frozenset({"handler", "lambda_handler"})
"""Names by which the module of a handler is found."""

HELPERS = frozenset({methods.MODULE, slimming.HELPER.stem})
"""Modules that a build adds to an artifact."""
# Names that no other module of an artifact may have.
RESERVED = sys.stdlib_module_names | HELPERS

type Contents = dict[str, Path | bytes]
type Module = tuple[str, bytes]
"""A module's name in the artifact, and its source."""


@dataclass(frozen=True)
class Settings:
    """Settings of a build."""

    arch: str
    sdk: str = "cut"
    thin: bool = field(default_factory=lambda: not os.environ.get(NO_THIN))
    """Whether artifacts are made smaller and faster to start; else files ship as installed."""

    @classmethod
    def local(cls) -> "Settings":
        """Settings for this machine, where the local stage runs."""
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
    thin: bool = True
    handlers: tuple[str, ...] = ()
    """The modules with its handler."""
    is_checked: bool = False
    """Whether its imports were checked against its own files."""
    built: bool = False
    """Whether this run built it; not stored."""


@dataclass(frozen=True)
class Draft:
    """An artifact's files, before its generated modules are compiled."""

    others: Contents
    """Third-party."""
    own: Contents
    changed: frozenset[Module]
    """Modules of third-party distributions."""
    written: frozenset[Module]
    """Modules of the workspace, in the form that is compiled."""
    records: Mapping[str, list[str]]
    """The files of each distribution, by its `.dist-info`."""
    missing: tuple[str, ...]
    """Messages about unresolved imports, with the remedy."""
    handlers: tuple[str, ...]
    """The handler's modules."""
    thin: bool

    @property
    def fresh(self) -> frozenset[Module]:
        return self.changed | self.written

    def finished(self, compiled: Mapping[Module, bytes]) -> Contents:
        """All files, with the bytecode that was missing."""

        def bytecode_of(modules: frozenset[Module]) -> Contents:
            readable = modules & compiled.keys()
            return {cached(module[0]): self._sealed(module, compiled) for module in readable}

        others = self.others | bytecode_of(self.changed)
        if self.thin:
            others = _sourceless(others)
        contents = others | self.own | bytecode_of(self.written)
        return contents | {
            f"{info}/RECORD": _record(info, files, contents) for info, files in self.records.items()
        }

    def _sealed(self, module: Module, compiled: Mapping[Module, bytes]) -> bytes:
        """Its bytecode, with the hash of the source that ships."""
        shipped = self.own.get(module[0], module[1])
        source = shipped if isinstance(shipped, bytes) else shipped.read_bytes()
        return bytecode.of_source(compiled[module], source)


class Builder:
    """Build functions of one workspace with one set of settings."""

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        self.workspace = workspace
        self.settings = settings
        self.wheels = WheelStore(workspace, settings.arch, thin=settings.thin)
        # Most distributions are in many artifacts, and their folders do not change.
        self._installed = cache(installed_files)
        self._noted = cache(resolving.noted)

    def build(self, functions: Iterable[Function], *, is_checked: bool = True) -> list[Artifact]:
        """Bring the artifacts up to date and write the manifest.

        Args:
            is_checked: fail if an artifact lacks something that its modules import.

        Raises:
            ToolError: uv failed.
            UnreadableSourceError: a module of a function or of a lib is not Python.
            StaleLockError: uv.lock is older than the pyproject.toml files.
            UnbuildableError: a dependency, a name or an import is not possible in an artifact.
        """
        functions = list(functions)
        with exclusive(self.workspace, "build"):
            manifest = read_manifest(self.workspace)
            found = closures(self.workspace, functions, self.settings.arch)
            inputs = self.inputs_of(functions, found)
            stale = [
                function
                for function in functions
                if not is_current(
                    self.workspace, manifest.get(function.name), inputs[function.name]
                )
                or (is_checked and not manifest[function.name].is_checked)
            ]
            if stale:
                LOG.info("building %d of %d artifacts", len(stale), len(functions))
                folders = self._install([found[f.name] for f in stale])
                drafts = [self._draft(f, found[f.name], folders) for f in stale]
                missing = [text for draft in drafts for text in draft.missing]
                if missing and is_checked:
                    raise UnbuildableError("\n".join(missing))
                compiled = _compiled({module for draft in drafts for module in draft.fresh})
                with ThreadPoolExecutor(os.cpu_count()) as pool:  # to compress
                    built = list(
                        pool.map(
                            lambda f, draft: self._write(
                                f, found[f.name], inputs[f.name], draft, compiled
                            ),
                            stale,
                            drafts,
                        )
                    )
                manifest |= {artifact.name: artifact for artifact in built}
            known = {function.name for function in self.workspace.functions()}
            gone = [name for name in manifest if name not in known]
            for name in gone:
                (self.workspace.root / manifest[name].zip).unlink(missing_ok=True)
                del manifest[name]
            if stale or gone:
                write_manifest(self.workspace, manifest)
        return [manifest[function.name] for function in functions]

    def inputs(self, function: Function, closure: Closure) -> str:
        """A digest of everything that determines the artifact's bytes."""
        return self.inputs_of([function], {function.name: closure})[function.name]

    def inputs_of(
        self, functions: Iterable[Function], found: Mapping[str, Closure]
    ) -> dict[str, str]:
        """The same for several functions, by name; the files of a lib are read once."""
        code, digest_of = builder_digest(), cache(partial(lib_digest, self.workspace))
        return {f.name: self._inputs(f, found[f.name], code, digest_of) for f in functions}

    def _inputs(
        self, function: Function, closure: Closure, code: str, digest_of: Callable[[str], str]
    ) -> str:
        parts: list[object] = [
            PYTHON, asdict(self.settings), COMPRESSION_LEVEL, code,
            closure.locked,
            {name: digest_of(folder) for name, folder in closure.libs.items()},
            asdict(sdk.Grants.of(function)), function.module,
            [
                (name, bool(path.stat().st_mode & 0o100), _sha256(path.read_bytes()))
                for name, path in function.shipped_files().items()
            ],
        ]  # fmt: skip
        return _sha256(json.dumps(parts, sort_keys=True).encode())

    def _install(self, wanted: list[Closure]) -> dict[Distribution, Path]:
        """The folders of the distributions; a build hook may change sources as it runs."""
        filled = self.wheels.fill(each for closure in wanted for each in self._shipped(closure))
        with suppress(BuildError):  # another function's: reported when that one is built
            self._prune()
        return filled

    def _prune(self) -> None:
        everything = closures(self.workspace, self.workspace.functions(), self.settings.arch)
        prune(
            self.wheels,
            {
                self.wheels.folder(distribution)
                for closure in everything.values()
                for distribution in closure.distributions.values()
            },
        )

    def _shipped(self, closure: Closure) -> list[Distribution]:
        left = RUNTIME_SDK if self.settings.sdk == "runtime" else frozenset()
        return [each for each in closure.distributions.values() if each.name not in left]

    def _write(
        self,
        function: Function,
        closure: Closure,
        inputs: str,
        draft: "Draft",
        compiled: Mapping[Module, bytes],
    ) -> Artifact:
        contents = draft.finished(compiled)
        target = self.workspace.dist / f"{function.name}.zip"
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".zip.partial")
        unpacked = write_zip(partial, contents)
        partial.replace(target)
        archive = target.read_bytes()
        versions = {
            each.name: each.version if each.folder is None else "workspace"
            for each in self._shipped(closure)
        }
        return Artifact(
            name=function.name,
            zip=_inside(self.workspace.root, target),
            digest=_sha256(archive),
            size=len(archive),
            unpacked_size=unpacked,
            files=len(contents),
            dependencies=versions,
            inputs=inputs,
            arch=self.settings.arch,
            sdk=self.settings.sdk,
            thin=self.settings.thin,
            handlers=draft.handlers,
            is_checked=not draft.missing,
            built=True,
        )

    def _draft(
        self, function: Function, closure: Closure, filled: Mapping[Distribution, Path]
    ) -> "Draft":
        shipped = self._shipped(closure)
        folders = {each.name: filled[each] for each in shipped}
        contents = self._files(function, folders)
        thin = self.settings.thin
        written: Contents = dict(function.shipped_files())
        if thin:
            written = {slimming.HELPER.name: slimming.HELPER, **written}
        libs = [each.name for each in shipped if each.folder is not None]
        records = {
            path.parts[0]: list(files)
            for files in contents.values()
            for path in map(PurePosixPath, files)
            if path.name == "METADATA" and path.parts[0].endswith(".dist-info")
        }
        changed: Contents = {
            name: body
            for files in contents.values()
            for name, body in files.items()
            if isinstance(body, bytes)
        }
        if thin:
            changed |= slimming.cut({**contents, function.name: written})
        others, own = _joined(function, contents, libs, written)
        sources = self._sources(function, contents.get(function.member, {}))
        handlers = _handlers(function, sources)
        begun: Contents = {}
        made: Contents = {}
        if thin:
            begun = {path: slimming.begun_cold(sources[path]) for path in handlers}
            made[f"{methods.MODULE}.py"] = methods.compiled(
                others | own, has_plugins=_has_entry_points(folders.values(), "pydantic")
            ).encode()
        return Draft(
            others | made,
            own,
            _modules(changed | made),
            _modules({**written, **begun}),
            records,
            tuple(self._missing(function, folders, sources, handlers, {*others, *own})),
            tuple(map(_module_of, handlers)),
            thin,
        )

    def _sources(self, function: Function, of_its_wheel: Contents) -> dict[str, bytes]:
        """The member's own modules, by name in the artifact."""
        found = {name: _bytes(body) for name, body in of_its_wheel.items() if name.endswith(".py")}
        for name, path in function.shipped_files().items():
            if name.endswith(".py"):
                check_source(self.workspace, name, path)
                found[name] = path.read_bytes()
        return {name: body for name, body in found.items() if error_in(body) is None}

    def _files(self, function: Function, folders: Mapping[str, Path]) -> dict[str, Contents]:
        """The files that each distribution ships."""
        grants = sdk.Grants.of(function)
        cut: Contents = {}
        if self.settings.thin and self.settings.sdk == "cut" and "botocore" in folders:
            try:
                installed = self._installed(folders["botocore"])
                cut = sdk.cut_botocore(folders["botocore"], installed, grants)
            except sdk.UncuttableError as other:
                LOG.info(f"{function.name}: this version of botocore ships whole: {other}")
        found: dict[str, Contents] = {}
        for name, folder in folders.items():
            files: Contents = dict(self._installed(folder))
            if self.settings.thin:
                if cut and name == "botocore":
                    files = cut
                elif cut and name == "boto3":
                    services = grants.services(_service_folders(folders["botocore"]))
                    files = sdk.cut_boto3(self._installed(folder), grants, services)
                files = {
                    path: body
                    for path, body in files.items()
                    if not STRIPPED_EXTENSIONS.fullmatch(path)
                }
            files.pop(resolving.NOTES, None)
            found[name] = files
        if self.settings.thin and "certifi" in folders and "botocore" in found:
            found["botocore"].pop("botocore/cacert.pem", None)  # it asks for certifi's first
        return found

    def _missing(
        self,
        function: Function,
        folders: Mapping[str, Path],
        sources: Mapping[str, bytes],
        handlers: list[str],
        files: set[str],
    ) -> Iterator[str]:
        """A message for each unresolved import of the artifact."""
        imports: dict[str, resolving.Imports] = {}
        owners: dict[str, str] = {}
        for name, folder in folders.items():
            found = self._noted(folder)
            imports |= found
            owners |= dict.fromkeys(found, name)
        for name, source in sources.items():
            module, is_package = resolving.module_name(PurePosixPath(name))
            imports[module] = resolving.imports_of(source, module, is_package=is_package, lazy=True)
            if "botocore" in folders:
                yield from _clients_without_service(function, name, source, files)
        given = RUNTIME_MODULES if self.settings.sdk == "runtime" else frozenset()
        expected = {*given, *function.settings.get("missing-imports", ())}
        starts = list(map(_module_of, handlers or sources))
        for each in resolving.unresolved(starts, files, imports, expected):
            owner = owners.get(each.by)
            remedy = (
                self._packaging_of(each.name)
                or _untested(each.name)
                or (
                    f"add the distribution with it to {_project_of(function)} (or its name to "
                    f"{function.settings_in}.missing-imports there, if it is never imported)"
                )
            )
            yield (
                f"{function.name}: {each.by}{f' of {owner}' if owner else ''} imports {each.name}, "
                f"which is neither in the artifact nor in Python {PYTHON}'s standard library: "
                f"{remedy}"
            )

    def _packaging_of(self, module: str) -> str | None:
        """What makes the member of this name a package; None if it is one already."""
        lock = tomllib.loads((self.workspace.root / "uv.lock").read_text(encoding="utf-8"))
        for each in lock.get("package", []):
            name = each["name"].replace("-", "_")
            if name == module.partition(".")[0] and "virtual" in each["source"]:
                project = PurePosixPath(each["source"]["virtual"], "pyproject.toml")
                return (
                    f"{each['name']} is not a package; give {project} a [build-system] such as "
                    "uv_build, without package = false, and run `uv lock`"
                )
        return None


def _untested(module: str) -> str | None:
    """What brings tests of a dependency back; None if the module is not one."""
    if "tests" not in module.split("."):
        return None
    return "tests of dependencies are left out: build with --no-thin, which keeps them"


def _clients_without_service(
    function: Function, name: str, source: bytes, files: set[str]
) -> Iterator[str]:
    for line, service in sdk.clients(source):
        if not any(file.startswith(f"botocore/data/{service}/") for file in files):
            yield (
                f"{function.name}: {name}:{line} makes a client of {service!r}, which the artifact "
                f"does not contain: grant the actions that it calls in {function.statements_in}, "
                f"or name {service!r} in {function.settings_in}.sdk of {_project_of(function)} if "
                "another role allows it"
            )


def _project_of(function: Function) -> str:
    return (PurePosixPath(function.folder) / "pyproject.toml").as_posix()


def _module_of(path: str) -> str:
    return resolving.module_name(PurePosixPath(path))[0]


def _handlers(function: Function, sources: Mapping[str, bytes]) -> list[str]:
    """The files of the handler's modules: the named one, or those that define a handler.

    Raises:
        UnbuildableError: the member has no module or no handler with the name.
    """
    if function.module is None:
        return sorted(path for path, source in sources.items() if defined(source) & HANDLERS)
    by_module = {_module_of(path): path for path in sources}
    named = function.module.replace("/", ".")  # Lambda takes both
    module, _, name = named.rpartition(".")
    if named in by_module:
        return [by_module[named]]
    if module not in by_module:
        raise UnbuildableError(
            f"{function.name}: the handler {function.module!r} is not in one of its modules: "
            f"{', '.join(sorted(by_module)) or '(empty)'}; correct the handler's name, or add the "
            "module"
        )
    known = _bound(sources[by_module[module]])
    if not {name, "*"} & known:
        raise UnbuildableError(
            f"{function.name}: module {module!r} defines no {name!r}: correct the handler's name"
        )
    return [by_module[module]]


def _bound(source: bytes) -> set[str]:
    """The names that a module may bind; `*` for all names of another one."""
    nodes = list(ast.walk(ast.parse(source)))
    found = {node.id for node in nodes if isinstance(node, ast.Name)}
    found |= {
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    return found | {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}


def defined(source: bytes) -> set[str]:
    """The names that a module binds at its top level."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {each.id for each in targets if isinstance(each, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case ast.ImportFrom(names=names) | ast.Import(names=names):
                found |= {each.asname or each.name for each in names}
    return found


def _joined(
    function: Function, contents: Mapping[str, Contents], libs: list[str], written: Contents
) -> tuple[Contents, Contents]:
    """The files of distributions and of the workspace, each path once.

    Raises:
        UnbuildableError: a file of the workspace has the path of another one.
    """
    others: Contents = {}
    own: Contents = {}
    owners: dict[str, str] = {}
    ours = [*((name, contents[name]) for name in libs), (function.folder, written)]
    theirs = [(name, files) for name, files in contents.items() if name not in libs]
    for name, files, is_own in [*((*t, False) for t in theirs), *((*o, True) for o in ours)]:
        target = own if is_own else others
        for path, body in files.items():
            if path in owners and _bytes(body) != _bytes((others | own)[path]):
                _settle(function, path, owners[path], name, is_own=is_own)
            target[path] = body
            owners[path] = name
    tops = {path.partition("/")[0] for path in others}
    for name, files in ours:
        for path, body in files.items():
            top, _, below = path.partition("/")
            stem = top.removesuffix(".py")
            if (below and f"{stem}/__init__.py" not in files) or body == slimming.HELPER:
                continue
            if stem in RESERVED or (top.endswith(".py") and stem in tops):
                taken = "Python's standard library" if stem in sys.stdlib_module_names else stem
                raise UnbuildableError(
                    f"{function.name}: {name} has a module {stem!r}, a name that belongs to "
                    f"{taken if stem in sys.stdlib_module_names else 'a dependency or the build'}: "
                    "rename it"
                )
    return others, own


def _settle(function: Function, path: str, first: str, second: str, *, is_own: bool) -> None:
    text = f"{function.name}: {path} is in both {first} and {second}, with different content"
    if is_own:
        raise UnbuildableError(f"{text}: rename yours")
    if path.endswith((".py", ".so")):
        LOG.info(f"{text}; the artifact would contain {second}'s: depend on one of them only")


def _bytes(body: Path | bytes) -> bytes:
    return body if isinstance(body, bytes) else body.read_bytes()


def _has_entry_points(folders: Iterable[Path], group: str) -> bool:
    return any(
        f"[{group}]" in path.read_text(encoding="utf-8")
        for folder in folders
        for path in folder.glob("*.dist-info/entry_points.txt")
    )


def _record(info: str, files: Iterable[str], contents: Contents) -> bytes:
    """A distribution's RECORD for the files that ship."""
    rows = []
    for name in [*files, f"{info}/RECORD"]:
        compiled = PurePosixPath(name).with_suffix(".pyc").as_posix()
        shipped = name if name in contents or name.endswith("/RECORD") else compiled
        if shipped in contents or shipped.endswith("/RECORD"):
            rows.append(f"{_quoted(shipped)},,\n")
    return "".join(sorted(rows)).encode()


def _quoted(name: str) -> str:
    return f'"{name}"' if "," in name else name


def _modules(contents: Mapping[str, Path | bytes]) -> frozenset[Module]:
    """The modules to compile, with their sources.

    Bytecode beside them is not looked at: in a workspace it is whatever Python last left there.
    """
    return frozenset(
        (name, _bytes(body)) for name, body in contents.items() if name.endswith(".py")
    )


def _sourceless(contents: Contents) -> Contents:
    """Replace each module by its bytecode, which Python can import without the source.

    Tracebacks still have file and line. Code of the workspace keeps its source beside it, and so do
    files in a folder that is not a package, which may be templates. Bytecode that a distribution
    itself has in `__pycache__` is of its own Python.
    """

    def folder(name: str) -> str:
        return name.rpartition("/")[0]

    packages = {"", *(folder(name) for name in contents if name.endswith("__init__.py"))}
    modules = {name for name in contents if name.endswith(".py") and cached(name) in contents}
    replaced = {name for name in modules if folder(name) in packages}
    kept = {cached(name) for name in modules - replaced}

    def is_kept(name: str) -> bool:
        in_cache = folder(name).rpartition("/")[2] == "__pycache__"
        return name not in replaced and (not in_cache or name in kept)

    others = {name: body for name, body in contents.items() if is_kept(name)}
    return others | {f"{name}c": contents[cached(name)] for name in replaced}


def _service_folders(botocore: Path) -> list[str]:
    return [path.name for path in (botocore / "botocore" / "data").iterdir() if path.is_dir()]


def _compiled(modules: Iterable[Module]) -> dict[Module, bytes]:
    """Bytecode of modules; each is compiled once for all artifacts.

    A file that is not Python, such as a template of a module, has none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        roots = {module: Path(scratch, str(n)) for n, module in enumerate(sorted(modules))}
        for (name, body), root in roots.items():
            target = root / name
            target.parent.mkdir(parents=True)
            target.write_bytes(body)
        bytecode.compile_trees(*roots.values())
        targets = {module: root / cached(module[0]) for module, root in roots.items()}
        return {each: target.read_bytes() for each, target in targets.items() if target.is_file()}


def write_zip(target: Path, contents: Mapping[str, Path | bytes]) -> int:
    """Write a zip whose bytes depend only on names and contents; the unpacked size."""
    unpacked = 0
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(contents):
            body = contents[name]
            data = body if isinstance(body, bytes) else body.read_bytes()
            entry = zipfile.ZipInfo(name, ZIP_DATE)
            entry.create_system = 3
            executable = isinstance(body, Path) and body.stat().st_mode & 0o100
            entry.external_attr = (0o100755 if executable else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=COMPRESSION_LEVEL)
            unpacked += len(data)
    return unpacked


def is_current(workspace: Workspace, artifact: Artifact | None, inputs: str) -> bool:
    """Whether the artifact exists, matches the manifest, and was made from these inputs."""
    if artifact is None or artifact.inputs != inputs:
        return False
    path = workspace.root / artifact.zip
    return path.is_file() and _sha256(path.read_bytes()) == artifact.digest


def stale_functions(workspace: Workspace, functions: Iterable[Function]) -> list[str]:
    """The functions whose artifact is out of date, for the settings that it was built with."""
    functions = list(functions)
    manifest = read_manifest(workspace)
    current: set[str] = set()
    for settings in {_settings_of(artifact) for artifact in manifest.values()}:
        builder = Builder(workspace, settings)
        built = [
            function
            for function in functions
            if (artifact := manifest.get(function.name)) is not None
            and _settings_of(artifact) == settings
        ]
        found = closures(workspace, built, settings.arch)
        inputs = builder.inputs_of(built, found)
        current |= {
            function.name
            for function in built
            if is_current(workspace, manifest[function.name], inputs[function.name])
        }
    return [function.name for function in functions if function.name not in current]


def _settings_of(artifact: Artifact) -> Settings:
    return Settings(artifact.arch, artifact.sdk, artifact.thin)


def read_manifest(workspace: Workspace) -> dict[str, Artifact]:
    """The built artifacts, by function."""
    path = workspace.manifest
    if not path.is_file():
        return {}
    functions = json.loads(path.read_text())["functions"]
    return {
        name: Artifact(**entry | {"name": name, "handlers": tuple(entry.get("handlers", ()))})
        for name, entry in functions.items()
    }


def write_manifest(workspace: Workspace, manifest: Mapping[str, Artifact]) -> None:
    """Write the manifest: artifacts by the name of their function."""
    entries = {}
    for name, artifact in sorted(manifest.items()):
        entries[name] = asdict(replace(artifact))
        del entries[name]["name"], entries[name]["built"]
    path = workspace.manifest
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"functions": entries}, indent=2) + "\n")
    partial.replace(path)


def clean(workspace: Workspace) -> None:
    """Remove every artifact and every cached wheel."""
    shutil.rmtree(workspace.dist, ignore_errors=True)
    shutil.rmtree(workspace.scratch / "_build", ignore_errors=True)


def _inside(folder: Path, path: Path) -> str:
    """A path relative to a folder, if it is in it."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
