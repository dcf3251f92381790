"""Which files of a folder may ship."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

# What editors, tools and systems leave in a folder, besides files that begin with a dot.
LEAVINGS = re.compile(
    r"\..*|.*~|#.*#|.*\.(?:bak|orig|rej|swp|swo|pyc|tmp)|.*\.egg-info|__pycache__|Thumbs\.db"
    r"|desktop\.ini",
    re.IGNORECASE,
)


def is_leaving(name: str) -> bool:
    """Whether a file or folder belongs to an editor, a tool or a person: `.env`, `a.py~`."""
    return LEAVINGS.fullmatch(name) is not None


class UnshippableError(click.ClickException):
    """Something in a folder can't be part of an artifact."""


def files_below(
    folder: Path, left_out: frozenset[str] = frozenset(), above: tuple[Path, ...] = ()
) -> Iterator[Path]:
    """The files of a folder that may ship, without the entries of that name at its top.

    Args:
        above: the folders that lead to this one.

    Raises:
        UnshippableError: a link leads to nothing, or to a folder that it lies in; a socket.
    """
    above = (*above, folder.resolve())
    for path in folder.iterdir():
        if path.name in left_out or is_leaving(path.name):
            continue
        if path.is_dir():
            if path.resolve() in above:
                raise UnshippableError(
                    f"{path}: this link leads to a folder that it lies in, without end: remove it"
                )
            yield from files_below(path, above=above)
        elif path.is_file():
            yield path
        elif path.is_symlink():
            raise UnshippableError(
                f"{path}: this link leads to {path.readlink()}, which is not there: remove the "
                "link, or put the file there"
            )
        else:
            raise UnshippableError(f"{path}: this is neither a file nor a folder: remove it")
