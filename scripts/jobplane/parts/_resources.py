"""Remove resources that only removed functions need."""

import re
from pathlib import Path

import click

from jobplane.tree.configuration import Configuration, logical_id, references
from jobplane.tree.repository import Function, Repository, read_yaml

SECTION = re.compile(r"^[A-Za-z]+:")
ENTRY = re.compile(r"^  ([A-Za-z0-9]+):")


def remove_resources(repository: Repository, going: frozenset[str]) -> None:
    """Edit resources/*.yml as text, to keep comments and order.

    Resources that no function refers to are kept: they belong to the whole stack.
    """
    superfluous = unneeded(repository, going)
    for path in repository.resources:
        before = read_yaml(path)
        kept = without(path.read_text(encoding="utf-8"), superfluous)
        wanted = {
            section: {id_: each for id_, each in (of or {}).items() if id_ not in superfluous}
            for section, of in before.items()
        }
        wanted = {section: of for section, of in wanted.items() if of}
        if not wanted:
            path.unlink()
            path.with_name(f"{path.stem}.asl.yml").unlink(missing_ok=True)
            continue
        path.write_text(kept, encoding="utf-8")
        if {section: of for section, of in read_yaml(path).items() if of} != wanted:
            raise click.ClickException(
                f"{path.name}: a YAML anchor is shared by kept and removed resources; write it out"
            )


def unneeded(repository: Repository, going: frozenset[str]) -> frozenset[str]:
    """The resources that only removed functions need, whose folders may be deleted already."""
    configuration = Configuration(repository)
    functions = {function.name: function for function in repository.functions()}
    names = {logical_id(function): name for name, function in functions.items()}
    resources = {id_: declared.body for id_, declared in configuration.resources.items()}
    gone = {id_of(name) for name in going}

    # Remove what refers to a removed function or resource.
    useless: set[str] = set()
    while True:
        more = {
            id_ for id_, body in resources.items() if references(body) & (gone | useless)
        } - useless
        if not more:
            break
        useless |= more
    leading = {
        id_: body
        for id_, body in resources.items()
        if id_ not in useless and references(body) & (names.keys() - gone)
    }
    staying = [functions[name].config for name in functions.keys() - going]
    needed = leading.keys() | configuration.reached_from([*staying, *leading.values()])
    was_needed = configuration.reached_from(
        functions[name].config for name in going & functions.keys()
    )
    was_needed |= useless | configuration.reached_from(resources[id_] for id_ in useless)
    return frozenset(was_needed - needed)


def id_of(name: str) -> str:
    """The logical id of a function, whose folder may be deleted."""
    return logical_id(Function(name, Path("functions", name)))


def without(text: str, ids: frozenset[str]) -> str:
    """A template's text without entries of these ids, nor the comments above each."""
    kept: list[str] = []
    above: list[str] = []
    drop = False
    for line in text.splitlines(keepends=True):
        entry = ENTRY.match(line)
        if line.startswith("  #") or not line.strip():
            above.append(line)
            continue
        if entry or SECTION.match(line):
            drop = entry is not None and entry[1] in ids
        if not drop:
            kept += above
            kept.append(line)
        above = []
    return re.sub(r"\n{3,}", "\n\n", "".join(kept)).rstrip("\n") + "\n"
