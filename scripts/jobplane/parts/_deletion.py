"""Delete functions of the repository."""

import shutil
from collections.abc import Iterable

import click

from jobplane.parts._needs import Needs
from jobplane.parts._project import forget, make_again
from jobplane.parts._resources import id_of, remove_resources, unneeded
from jobplane.tree.configuration import references
from jobplane.tree.repository import Repository


def resources_of(repository: Repository, names: Iterable[str]) -> list[str]:
    """The resources to delete with functions: those that refer to them, and that only they use."""
    there = [function.name for function in repository.functions()]
    going = frozenset(names)
    for function in repository.functions():
        needed = {name for name in going if id_of(name) in references(function.config)}
        if needed and function.name not in going:
            raise click.UsageError(
                f"functions/{function.name}/function.yml refers to {', '.join(sorted(needed))}: "
                f"delete {function.name} as well, or remove the reference"
            )
    for name in sorted(going - {*there, *Needs(repository).known}):
        if not unneeded(repository, frozenset({name})):
            raise click.UsageError(f"unknown function {name!r}; known are: {', '.join(there)}")
    return sorted(unneeded(repository, going))


def delete(repository: Repository, names: Iterable[str]) -> None:
    going = frozenset(names)
    remove_resources(repository, going)
    for function in repository.functions():
        if function.name in going:
            shutil.rmtree(function.directory)
    forget(repository, going)
    make_again(repository)
