"""The functions of each part, and the functions that these need."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from jobplane.tree.configuration import references
from jobplane.tree.repository import Function, Repository

LIST = Path("scripts", "jobplane", "parts", "parts.toml")
# Events that come from a resource that other functions write to.
READ = ("sqs", "stream")
WRITES = ("dynamodb:PutItem", "dynamodb:UpdateItem", "sqs:SendMessage")


@dataclass(frozen=True)
class Part:
    name: str
    summary: str
    words: str
    """A regular expression that matches text about it in the documentation."""
    functions: frozenset[str]
    brings: tuple[str, ...]
    """Other parts that it is taken with."""


def parts(repository: Repository) -> dict[str, Part]:
    listed = tomllib.loads((repository.root / LIST).read_text(encoding="utf-8"))
    return {
        name: Part(
            name,
            part["summary"],
            part["words"],
            frozenset(part["functions"]),
            tuple(part.get("brings", ())),
        )
        for name, part in listed.items()
    }


def chosen(repository: Repository, names: Iterable[str]) -> frozenset[str]:
    known = parts(repository)
    functions: set[str] = set()
    for name in names:
        if name not in known:
            raise click.UsageError(f"unknown part {name!r}; choose from {', '.join(known)}")
        for each in (name, *known[name].brings):
            functions |= known[each].functions
    return closed(repository, functions)


def closed(repository: Repository, names: Iterable[str]) -> frozenset[str]:
    """The functions, and those that read the queues and streams that they write to."""
    functions = {function.name: function for function in repository.functions()}
    kept = set(names) & functions.keys()
    while True:
        written = {logical for name in kept for logical in _written(functions[name])}
        more = {name for name, each in functions.items() if _read(each) & written} - kept
        if not more:
            return frozenset(kept)
        kept |= more


def _written(function: Function) -> set[str]:
    found: set[str] = set()
    for statement in function.config.get("iamRoleStatements") or ():
        if set(_list(statement["Action"])) & set(WRITES):
            found |= references(statement["Resource"])
    return found


def _read(function: Function) -> set[str]:
    return {
        logical
        for event in function.config.get("events") or ()
        if isinstance(event, dict)
        for kind in READ
        if kind in event
        for logical in references(event[kind])
    }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
