"""Defer work that third-party code does at import and no function needs then.

Only imports are changed, and only in the distributions named here. The workspace's own code ships
as it is written, so that tracebacks have its lines.
"""

import ast
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.util import decode_source
from pathlib import Path

from lambdapack import resolving
from lambdapack.thinning import cold_start, deferral, patches, patterns, trimming
from lambdapack.thinning.bytecode import cached, in_forks

LOG = logging.getLogger("lambdapack")

DEFERRED = frozenset(
    {
        "annotated-types", "boto3", "botocore", "certifi", "httpcore", "httpx", "jmespath",
        "pydantic", "pydantic-core", "pyjwt", "python-dateutil", "s3transfer", "six",
        "typing-inspection", "urllib3",
    }
)  # fmt: skip
# Modules that ship as a stub, if nothing else in the artifact names them: the distribution, the
# stub's own code, and what naming them looks like. pydantic asks of a class that it doesn't know
# whether it is one of v1's models.
CUT: dict[str, dict[str, tuple[str, re.Pattern[bytes]]]] = {
    "pydantic": {
        "pydantic/v1": (
            "class BaseModel:\n    pass\n",
            re.compile(rb"pydantic\.v1\b|from pydantic import\s*(?:\([^)]*|[^\n]*)\bv1\b"),
        ),
        "pydantic/mypy.py": ("", re.compile(rb"pydantic\.mypy\b")),
    },
    "python-dateutil": {"dateutil/zoneinfo": ("", re.compile(rb"\bdateutil\b"))},
}
# Modules that name them, but use nothing that the stubs lack.
NAMING = frozenset({"botocore", "boto3", "s3transfer", "pydantic", "python-dateutil"})
STUB = """\
{rest}

def __getattr__(name):
    if name.startswith('__'):
        raise AttributeError(name)
    raise ImportError(
        f'{{name}} is not there: {{__name__}} was left out of this artifact, because nothing in it '
        'imports that module by its name; import it so and build again'
    )
"""
# Parts of a slimmed distribution that are not changed.
UNTOUCHED = ("pydantic/v1/",)
# Packages that don't read their own annotations and docstrings.
TRIMMED = frozenset(
    {
        "annotated_types", "boto3", "botocore", "dateutil", "jmespath", "jwt", "pydantic",
        "pydantic_core", "s3transfer", "typing_inspection", "urllib3",
    }
)  # fmt: skip
# Packages that read annotations and docstrings of classes and functions passed to them.
READING_OTHERS = frozenset({"pydantic"})
# Modules whose fields of TypedDicts are not read at run time.
WITHOUT_FIELDS = frozenset({"pydantic_core/core_schema.py"})
TESTS = re.compile(r"(?:test_.*|.*_test|conftest)\.py")
IMPORTS_TESTS = re.compile(rb"\.tests\b|\bimport [^\n]*\btests\b|[\"']tests\b")
READS_STUBS = re.compile(rb"attach_stub|\.pyi[\"']")
# What names the encoding of a source, in one of its first two lines.
CODING = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*[-\w.]+")
type Contents = dict[str, Path | bytes]
type Job = tuple[Path, Path, frozenset[str], frozenset[str]]

HELPER = Path(cold_start.__file__)
# A process of its own: this one may have threads, and it forks once a module.
ALONE = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from lambdapack.thinning import slimming; slimming.main()"
)


def slim(distributions: Iterable[tuple[str, Path]]) -> None:
    """Leave out tests and stubs of installed distributions and put off imports, in place.

    What their modules import is noted first. A module that a patch does not fit is logged.
    """
    from lambdapack.tools import run_quietly  # not there in the process below

    marked = [("+" if name in DEFERRED else "-") + str(folder) for name, folder in distributions]
    if marked:
        source = str(Path(__file__).parents[2])
        unfit = run_quietly(
            [sys.executable, "-S", "-P", "-W", "ignore", "-c", ALONE, source, *marked],
            cwd=Path(source),
            what="deferring imports in installed packages",
        )
        for line in sorted(unfit.splitlines()):
            LOG.info("starts may be slower than with a newer version: %s", line)


def main() -> None:
    """Entry of the process that does the work."""
    folders = {Path(argument[1:]): argument[0] == "+" for argument in sys.argv[2:]}
    if in_forks(_prepare, [(folder,) for folder in folders]):
        sys.exit(1)
    jobs: list[Job] = []
    for folder in [folder for folder, is_deferred in folders.items() if is_deferred]:
        paths = sorted(
            path
            for path in folder.rglob("*.py")
            if not path.relative_to(folder).as_posix().startswith(UNTOUCHED)
        )
        modules = frozenset(_dotted(path.relative_to(folder)) for path in paths)
        starred = frozenset(_starred(folder, paths))
        jobs += [(folder, path, modules, starred) for path in paths]
    jobs.sort(key=lambda job: job[1].stat().st_size, reverse=True)
    processors = os.cpu_count() or 1
    sys.exit(in_forks(_slim_modules, [(jobs[n::processors],) for n in range(processors)]))


def _prepare(folder: Path) -> None:
    strip(folder)
    resolving.note(folder)


def strip(folder: Path) -> None:
    """Remove files that only a distribution's authors and type checkers need.

    Its `tests` stay if another of its modules names them, and its stubs if one reads stubs.
    """
    sources = [path for path in folder.rglob("*.py") if path.is_file()]
    tests = {
        path
        for path in folder.rglob("tests")
        if path.is_dir() and any(TESTS.fullmatch(inner.name) for inner in path.rglob("*.py"))
    }
    stubs = list(folder.rglob("*.pyi"))
    if tests or stubs:
        texts = [path.read_bytes() for path in sources if tests.isdisjoint(path.parents)]
        if not any(map(IMPORTS_TESTS.search, texts)):
            for path in tests:
                shutil.rmtree(path, ignore_errors=True)
        if not any(map(READS_STUBS.search, texts)):
            for path in stubs:
                path.unlink(missing_ok=True)


def cut(contents: Mapping[str, Contents]) -> Contents:
    """Replace modules that nothing names by stubs.

    Args:
        contents: files by distribution; the workspace's own files under any other name.

    Returns:
        The stubs.
    """
    stubs: Contents = {}
    for name, modules in CUT.items():
        for module, (rest, naming) in modules.items():
            files = contents.get(name, {})
            if _files_in(files, module) and not _is_named(naming, contents):
                stubs |= _stub_for(files, module, rest)
    return stubs


def _is_named(naming: re.Pattern[bytes], contents: Mapping[str, Contents]) -> bool:
    return any(
        naming.search(body if isinstance(body, bytes) else body.read_bytes())
        for distribution, files in contents.items()
        if distribution not in NAMING
        for path, body in files.items()
        if path.endswith((".py", ".so"))
    )


def _files_in(files: Contents, module: str) -> set[str]:
    """The files of a module; none in a version that lacks it."""
    return {path for path in files if path == module or path.startswith(f"{module}/")}


def _stub_for(files: Contents, module: str, rest: str) -> Contents:
    """The source of a stub, which explains why the module was left out."""
    is_file = module.endswith(".py")
    for path in _files_in(files, module) | ({cached(module)} & files.keys() if is_file else set()):
        del files[path]
    target = module if is_file else f"{module}/__init__.py"
    files[target] = STUB.format(rest=rest).encode()
    return {target: files[target]}


def _starred(folder: Path, paths: Iterable[Path]) -> Iterator[str]:
    """The modules from which another one imports `*`."""
    for path in paths:
        source = path.read_text(encoding="utf-8")
        if "import *" in source:
            module = _dotted(path.relative_to(folder))
            with suppress(SyntaxError):
                yield from deferral.starred(source, module, is_package=path.stem == "__init__")


def _slim_modules(jobs: list[Job]) -> None:
    for job in jobs:
        _slim_module(*job)


def _slim_module(
    folder: Path, path: Path, modules: frozenset[str], starred: frozenset[str]
) -> None:
    source = path.read_text(encoding="utf-8")
    name = path.relative_to(folder)
    try:
        source = patches.patched(name.parts[0], name, source)
    except patches.PatchError as unfit:  # of another version
        os.write(1, f"{unfit}\n".encode())
    try:
        tree = ast.parse(source)
    except SyntaxError:  # for another Python version; this one never imports it
        return
    if name.parts[0] in TRIMMED:
        trimming.trim(tree, source, reads_others=name.parts[0] in READING_OTHERS)
    if name.as_posix() in WITHOUT_FIELDS:
        trimming.without_fields(tree)
    if "re.compile(" in source:
        patterns.precompile(tree)
    deferral.defer(
        tree,
        package=_dotted(name) if path.name == "__init__.py" else None,
        modules=modules,
        is_starred=_dotted(name) in starred,
    )
    text = f"{deferral.leading_comments(source)}{ast.unparse(tree)}\n"
    path.write_text(text, encoding="utf-8")


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def begun_cold(source: bytes) -> bytes:
    """A function's module that begins and ends by the helper, each line where it was.

    In UTF-8 for every encoding of the source, since only the compiler reads it.
    """
    text = decode_source(source)
    for node in ast.parse(text).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if isinstance(node, ast.Import | ast.ImportFrom) and not is_future:
            lines = text.removesuffix("\n").split("\n")
            line = lines[node.lineno - 1]
            before = line.encode()[: node.col_offset].decode()
            begin = f"__import__({HELPER.stem!r}).begin(); "
            lines[node.lineno - 1] = before + begin + line.removeprefix(before)
            text = "\n".join([*lines, f"__import__({HELPER.stem!r}).end()", ""])
            break
        if not is_docstring and not is_future:
            break
    lines = text.split("\n")
    lines[:2] = [CODING.sub("# ", line) for line in lines[:2]]
    return "\n".join(lines).encode()
