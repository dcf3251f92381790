"""Select the files of a folder that may ship."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from lambdapack.errors import BuildError

# Files of editors, tools and systems, besides those whose names begin with a dot.
LEAVINGS = re.compile(
    r"\..*|.*~|#.*#|.*\.(?:bak|orig|rej|swp|swo|pyc|tmp)|.*\.egg-info|__pycache__|Thumbs\.db"
    r"|desktop\.ini",
    re.IGNORECASE,
)


def is_leaving(name: str) -> bool:
    """Whether a file or folder belongs to an editor, a tool or a person: `.env`, `a.py~`."""
    return LEAVINGS.fullmatch(name) is not None


def installed_files(folder: Path) -> dict[str, Path]:
    """The files of an installed distribution, by their paths below its folder."""
    found: dict[str, Path] = {}
    for place, _, names in os.walk(folder):
        below = Path(place).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found |= {f"{prefix}{name}": Path(place, name) for name in names}
    return found


class UnshippableError(BuildError):
    """A file of a folder can't be part of an artifact."""


def files_below(
    folder: Path, left_out: frozenset[str] = frozenset(), above: tuple[Path, ...] = ()
) -> Iterator[Path]:
    """The files of a folder that may ship, without some entries at its top level.

    Args:
        above: the parent folders, to detect endless links.

    Raises:
        UnshippableError: a link is broken or endless, or a file is a socket, pipe or device.
    """
    above = (*above, folder.resolve())
    for path in folder.iterdir():
        if path.name in left_out or is_leaving(path.name):
            continue
        if path.is_dir():
            if path.resolve() in above:
                raise UnshippableError(
                    f"{path}: this link points to a folder that contains it: remove it"
                )
            yield from files_below(path, above=above)
        elif path.is_file():
            yield path
        elif path.is_symlink():
            raise UnshippableError(
                f"{path}: this link points to {path.readlink()}, which does not exist: remove the "
                "link, or create the file"
            )
        else:
            raise UnshippableError(f"{path}: this is neither a file nor a folder: remove it")
