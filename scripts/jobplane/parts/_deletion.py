"""Takes functions out of this tree."""

import shutil
from collections.abc import Iterable

import click

from jobplane.parts._needs import Needs
from jobplane.parts._project import forget, make_again
from jobplane.parts._resources import id_of, remove_resources, unneeded
from jobplane.tree.configuration import references
from jobplane.tree.repository import Repository


def resources_of(repository: Repository, names: Iterable[str]) -> list[str]:
    """The resources that go with functions: what refers to them, and what only they led to.

    Raises:
        click.UsageError: a function is neither in the tree nor of a part, and no resource refers
            to it; or one that stays refers to it.
    """
    there = [function.name for function in repository.functions()]
    going = frozenset(names)
    for function in repository.functions():
        needed = {name for name in going if id_of(name) in references(function.config)}
        if needed and function.name not in going:
            raise click.UsageError(
                f"functions/{function.name}/function.yml refers to {', '.join(sorted(needed))}: "
                f"delete {function.name} as well, or take the reference out"
            )
    for name in sorted(going - {*there, *Needs(repository).known}):
        if not unneeded(repository, frozenset({name})):
            raise click.UsageError(f"no function {name!r}; there are: {', '.join(there)}")
    return sorted(unneeded(repository, going))


def delete(repository: Repository, names: Iterable[str]) -> None:
    """Delete functions, whose folders may be gone already, and the resources that go with them."""
    going = frozenset(names)
    remove_resources(repository, going)
    for function in repository.functions():
        if function.name in going:
            shutil.rmtree(function.directory)
    forget(repository, going)
    make_again(repository)
