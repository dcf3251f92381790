"""Bytecode that stays valid in a read-only folder and is the same bytes wherever it is made.

marshal's output depends on which strings the process has interned before, so each module is
compiled in a fresh copy of a bare interpreter: this file runs as a script, with the standard
library only, and forks once a module.
"""

import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path

UNCHECKED_HASH = 0b01


def compile_trees(*roots: Path) -> None:
    """Put an `unchecked-hash` .pyc beside every module under the folders."""
    if roots:
        subprocess.run(
            [sys.executable, "-S", "-P", __file__, *map(str, roots)],
            check=True,
            env={"PYTHONHASHSEED": "0"},
        )


def _compile(root: Path, path: Path) -> None:
    import marshal

    source = path.read_bytes()
    try:
        code = compile(source, path.relative_to(root).as_posix(), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return
    header = importlib.util.MAGIC_NUMBER + struct.pack("<I", UNCHECKED_HASH)
    target = Path(importlib.util.cache_from_source(str(path), optimization=""))
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(header + importlib.util.source_hash(source) + marshal.dumps(code))


def _main(roots: list[str]) -> int:
    free = os.cpu_count() or 1
    failures = 0
    for root in map(Path, roots):
        for path in sorted(root.rglob("*.py")):
            if free == 0:
                failures += os.wait()[1] != 0
                free += 1
            free -= 1
            if os.fork() == 0:
                status = 1
                try:
                    _compile(root, path)
                    status = 0
                finally:
                    os._exit(status)
    while free < (os.cpu_count() or 1):
        failures += os.wait()[1] != 0
        free += 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
