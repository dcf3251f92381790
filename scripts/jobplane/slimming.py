"""What third-party code does at import and no function needs then, put off at build time.

Only what imports are for is changed, and only in the distributions named here: the workspace's own
code ships as it is written, so that a stack trace names its lines.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from jobplane import deferral, deferred_imports
from jobplane.bytecode import in_forks

DEFERRED = frozenset(
    {
        "annotated-types", "boto3", "botocore", "httpcore", "httpx", "jmespath", "pydantic",
        "pyjwt", "python-dateutil", "s3transfer", "six", "typing-inspection", "urllib3",
    }
)  # fmt: skip
HELPER = Path(deferred_imports.__file__)
# A process of its own: this one may have threads, and it forks once a module.
ALONE = "import sys; sys.path.append(sys.argv[1]); from jobplane import slimming; slimming.main()"


def slim(distributions: Iterable[tuple[str, Path]]) -> None:
    """Put off the imports of installed distributions, by name and folder, in place."""
    folders = [str(folder) for name, folder in distributions if name in DEFERRED]
    if folders:
        source = str(Path(__file__).parents[1])
        subprocess.run([sys.executable, "-S", "-P", "-c", ALONE, source, *folders], check=True)


def main() -> None:
    """Entry of the process that does the work."""
    jobs = []
    for folder in map(Path, sys.argv[2:]):
        paths = sorted(folder.rglob("*.py"))
        modules = frozenset(_dotted(path.relative_to(folder)) for path in paths)
        starred = frozenset(_starred(folder, paths))
        jobs += [(folder, path, modules, starred) for path in paths]
    sys.exit(in_forks(_slim_module, jobs))


def _starred(folder: Path, paths: Iterable[Path]) -> Iterator[str]:
    """The modules of which another takes all names."""
    for path in paths:
        source = path.read_text(encoding="utf-8")
        if "import *" in source:
            module = _dotted(path.relative_to(folder))
            with suppress(SyntaxError):
                yield from deferral.starred(source, module, is_package=path.stem == "__init__")


def _slim_module(
    folder: Path, path: Path, modules: frozenset[str], starred: frozenset[str]
) -> None:
    source = path.read_text(encoding="utf-8")
    try:
        changed = deferral.defer_imports(
            source,
            package=_dotted(path.relative_to(folder)) if path.name == "__init__.py" else None,
            modules=modules,
            is_starred=_dotted(path.relative_to(folder)) in starred,
        )
    except SyntaxError:  # of another Python; never imported by this one
        return
    if changed != source:
        path.write_text(changed, encoding="utf-8")


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def digest() -> str:
    """Changes when a distribution would come out differently."""
    sources = (Path(__file__), Path(deferral.__file__), HELPER)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
