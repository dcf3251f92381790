"""What third-party code does at import and no function needs then, put off at build time.

Only what imports are for is changed, and only in the distributions named here: the workspace's own
code ships as it is written, so that a stack trace names its lines.
"""

import ast
import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from jobplane import cold_start, deferral, patches, patterns, trimming
from jobplane.bytecode import in_forks

DEFERRED = frozenset(
    {
        "annotated-types", "boto3", "botocore", "certifi", "httpcore", "httpx", "jmespath",
        "pydantic", "pydantic-core", "pyjwt", "python-dateutil", "s3transfer", "six",
        "typing-inspection", "urllib3",
    }
)  # fmt: skip
# Modules that ship as a stub, by package. pydantic asks of a class that it doesn't know whether it
# is one of v1's models.
CUT = {
    "pydantic": {"pydantic/v1": "class BaseModel:\n    pass\n", "pydantic/mypy.py": ""},
    "dateutil": {"dateutil/zoneinfo": ""},
}
STUB = """\
{rest}

def __getattr__(name):
    if name.startswith('__'):
        raise AttributeError(name)
    raise ImportError(
        f'{{name}} is not there: {{__name__}} was left out of this artifact; '
        'take it from CUT in scripts/jobplane/slimming.py and build again'
    )
"""
# Packages that look at no annotation and no docstring of their own.
TRIMMED = frozenset(
    {
        "annotated_types", "boto3", "botocore", "dateutil", "jmespath", "jwt", "pydantic",
        "pydantic_core", "s3transfer", "typing_inspection", "urllib3",
    }
)  # fmt: skip
# Packages that look at those of the classes and functions that they are given.
READING_OTHERS = frozenset({"pydantic"})
# Modules of which nobody reads what their TypedDicts' fields are.
WITHOUT_FIELDS = frozenset({"pydantic_core/core_schema.py"})
# What no artifact holds.
STRIPPED_FOLDERS = frozenset({"tests", "test"})
type Job = tuple[Path, Path, frozenset[str], frozenset[str]]

HELPER = Path(cold_start.__file__)
# A process of its own: this one may have threads, and it forks once a module.
ALONE = "import sys; sys.path.append(sys.argv[1]); from jobplane import slimming; slimming.main()"


def slim(distributions: Iterable[tuple[str, Path]]) -> None:
    """Put off the imports of installed distributions, by name and folder, in place."""
    from jobplane.console import run_quietly  # not there in the process below

    folders = [str(folder) for name, folder in distributions if name in DEFERRED]
    if folders:
        source = str(Path(__file__).parents[1])
        run_quietly(
            [sys.executable, "-S", "-P", "-c", ALONE, source, *folders],
            cwd=Path(source),
            what="putting off what no function needs at its start",
        )


def main() -> None:
    """Entry of the process that does the work."""
    jobs: list[Job] = []
    for folder in map(Path, sys.argv[2:]):
        for package in folder.iterdir():
            patches.check_modules(package.name, folder)
            for name, rest in CUT.get(package.name, {}).items():
                _cut(folder / name, rest)
        paths = sorted(folder.rglob("*.py"))
        names = [path.relative_to(folder) for path in paths]
        modules = frozenset(
            _dotted(name) for name in names if STRIPPED_FOLDERS.isdisjoint(name.parts)
        )
        starred = frozenset(_starred(folder, paths))
        jobs += [(folder, path, modules, starred) for path in paths]
    jobs.sort(key=lambda job: job[1].stat().st_size, reverse=True)
    processors = os.cpu_count() or 1
    sys.exit(in_forks(_slim_modules, [(jobs[n::processors],) for n in range(processors)]))


def _cut(path: Path, rest: str) -> None:
    """Leave a stub in a module's place, which says that and why the module is not there."""
    target = path if path.suffix == ".py" else path / "__init__.py"
    if not target.is_file():
        raise FileNotFoundError(f"{path} is to be cut and is not there: see {__name__}.CUT")
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
    target.write_text(STUB.format(rest=rest), encoding="utf-8")


def _starred(folder: Path, paths: Iterable[Path]) -> Iterator[str]:
    """The modules of which another takes all names."""
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
    source = patches.patched(name.parts[0], name, source)
    try:
        tree = ast.parse(source)
    except SyntaxError:  # of another Python; never imported by this one
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


def begun_cold(source: str) -> str:
    """A function's module that begins and ends by the helper, each line where it was."""
    for node in ast.parse(source).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if isinstance(node, ast.Import | ast.ImportFrom) and not is_future:
            lines = source.removesuffix("\n").split("\n")
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = f"__import__({HELPER.stem!r}).begin(); {line}"
            return "\n".join([*lines, f"__import__({HELPER.stem!r}).end()", ""])
        if not is_docstring and not is_future:
            break
    return source


def digest() -> str:
    """Changes when a distribution would come out differently."""
    modules = (deferral, patches, patterns, trimming)
    sources = (Path(__file__), *(Path(str(module.__file__)) for module in modules), HELPER)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
