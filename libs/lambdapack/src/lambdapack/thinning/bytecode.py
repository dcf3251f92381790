"""Reproducible bytecode that stays valid in a read-only folder.

marshal's output depends on which strings the process has interned before, so each module is
compiled in a fresh copy of a bare interpreter: this file runs as a script, with the standard
library only, and forks once a module.
"""

import importlib.util
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePath

UNCHECKED_HASH = 0b01


def compile_trees(*roots: Path) -> None:
    """Put an `unchecked-hash` .pyc beside every module under the folders."""
    if roots:
        subprocess.run(
            [sys.executable, "-S", "-P", __file__, *map(str, roots)],
            check=True,
            env={"PYTHONHASHSEED": "0"},
        )


def cached(source: str) -> str:
    """The path of a module's bytecode beside it, regardless of PYTHONPYCACHEPREFIX."""
    path = PurePath(source)
    name = f"{path.stem}.{sys.implementation.cache_tag}.pyc"
    return str(path.parent / "__pycache__" / name)


def _compile(root: Path, path: Path) -> None:
    import marshal

    source = path.read_bytes()
    try:
        code = compile(source, path.relative_to(root).as_posix(), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return
    header = importlib.util.MAGIC_NUMBER + struct.pack("<I", UNCHECKED_HASH)
    target = Path(cached(str(path)))
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(header + importlib.util.source_hash(source) + marshal.dumps(code))


def of_source(data: bytes, source: bytes) -> bytes:
    """A .pyc's bytes, with the hash of this source."""
    return data[:8] + importlib.util.source_hash(source) + data[16:]


def in_forks[*Arguments](work: Callable[[*Arguments], None], jobs: list[tuple[*Arguments]]) -> int:
    """Run each job in a forked copy of this process, in parallel on all processors.

    Returns:
        1 if any failed.
    """
    free = processors = os.cpu_count() or 1
    failures = 0
    for job in jobs:
        if free == 0:
            failures += os.wait()[1] != 0
            free += 1
        free -= 1
        if os.fork() == 0:
            status = 1
            try:
                work(*job)
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
    while free < processors:
        failures += os.wait()[1] != 0
        free += 1
    return 1 if failures else 0


def _main(roots: list[str]) -> int:
    folders = [Path(root) for root in roots]
    return in_forks(
        _compile, [(root, path) for root in folders for path in sorted(root.rglob("*.py"))]
    )


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
