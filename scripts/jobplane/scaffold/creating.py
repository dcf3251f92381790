"""Create functions, actions and robots from templates: code, configuration, events and tests.

A template is a folder of `templates/`. In names and texts of its files, `__NAME__` (kebab-case),
`__MODULE__` (snake_case), `__RESOURCE__` (CamelCase) and `__FUNCTION__` (the function's logical id)
are replaced.
"""

import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import yaml

from jobplane.contracts.catalogue import socket_actions
from jobplane.deploy.templates import templates
from jobplane.rules.names import FORBIDDEN
from jobplane.scaffold.registering import LOADED_BY, registrations
from jobplane.tree.configuration import Configuration, logical_id, references
from jobplane.tree.repository import Function, Repository
from lambdapack.environments import uv_command, uv_locking_environment
from lambdapack.tools import run_quietly

TEMPLATES = Path(__file__).parent / "templates"
# Replaces `invoke` if the table of its example does not exist.
PLAIN = Path(__file__).parent / "plain"
SUFFIX = ".tmpl"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# With a stage of 20 characters and a region of 14, the role's name has 64.
MAX_NAME = 19
# The targets of a template's folders in the repository.
PLACES = {
    "function": "functions/__NAME__",
    "package": "libs/__NAME__",
    "processor": "functions/processor/events",
    "resources": "resources",
    "router": "functions/router/events",
    "test": "tests/unit",
}


class NameRefusedError(click.UsageError):
    """The name can't be used for a function."""


class MissingResourceError(click.UsageError):
    """The repository lacks a resource that the example uses."""

    def __init__(self, trigger: str, missing: set[str]) -> None:
        super().__init__(
            f"the example for {trigger} refers to {', '.join(sorted(missing))}, which resources/ "
            "does not have: use --trigger invoke, and add the event to its function.yml"
        )


def check_name(repository: Repository, name: str) -> None:
    """Check a new function's name; raise NameRefusedError with the remedy."""
    module = name.replace("-", "_")
    if not NAME.fullmatch(name):
        better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f": {better}?" if NAME.fullmatch(better) else ""
        raise NameRefusedError(f"{name!r} is not kebab-case (a-z, 0-9, single hyphens){hint}")
    if len(name) > MAX_NAME:
        raise NameRefusedError(
            f"{name!r} has {len(name)} characters of {MAX_NAME}: its role's name would be too long"
        )
    if keyword.iskeyword(module):
        raise NameRefusedError(f"{name!r} is a keyword of Python: its module can't be imported")
    if module in sys.stdlib_module_names:
        raise NameRefusedError(
            f"{name!r} would hide a module of the standard library: choose another name"
        )
    if module in FORBIDDEN:
        raise NameRefusedError(f"{name!r} is too general: name the function by what it does")
    for taken in (f"functions/{name}", f"libs/{name}", f"tests/unit/test_{module}.py"):
        if (repository.root / taken).exists():
            raise NameRefusedError(f"{taken} already exists: choose another name")
    found = importlib.util.find_spec(module)
    if found is not None and found.origin is not None:
        raise NameRefusedError(
            f"{name!r} would hide the module of an installed package: choose another name"
        )


def check_package(repository: Repository, name: str, kind: str) -> None:
    """Check the name of a new action or robot; raise NameRefusedError with the remedy."""
    repository.require(f"--{kind}", *LOADED_BY[kind])
    check_name(repository, name)
    module = name.replace("-", "_")
    if importlib.util.find_spec(f"jobplane_{module}") is not None:
        raise NameRefusedError(f"jobplane_{module} is an installed package: choose another name")
    if kind == "action" and module in {each.name for each in socket_actions(repository)}:
        raise NameRefusedError(f"there is an action {module!r} already: choose another name")
    if kind == "robot" and f"tpl_{module}" in {each.id for each in templates(repository)}:
        raise NameRefusedError(f"there is a template tpl_{module} already: choose another name")


def create(repository: Repository, name: str, trigger: str) -> tuple[list[Path], list[Path]]:
    """Write the member's files and update uv.lock, or change nothing; what is new, and changed."""
    if trigger in LOADED_BY:
        check_package(repository, name, trigger)
    else:
        check_name(repository, name)
    files = _files(repository, name, TEMPLATES / trigger)
    if missing := _missing(repository, files):
        if trigger != "invoke":
            raise MissingResourceError(trigger, missing)
        files = _files(repository, name, PLAIN)
    written: list[Path] = []
    changes = registrations(repository, name, trigger)
    before = {path: path.read_bytes() for path in (*changes, repository.root / "uv.lock")}
    try:
        for path, text in changes.items():
            path.write_text(text, encoding="utf-8")
        for target, text in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8") as file:
                written.append(target)
                file.write(text)
        run_quietly(
            [uv_command(), "lock"],
            cwd=repository.root,
            what="uv lock",
            env=uv_locking_environment(),
        )
    except BaseException:
        _remove(repository, written)
        for path, content in before.items():
            path.write_bytes(content)
        raise
    return written, list(before)


def _files(repository: Repository, name: str, template: Path) -> dict[Path, str]:
    words = {
        "__NAME__": name,
        "__MODULE__": name.replace("-", "_"),
        "__RESOURCE__": "".join(word.capitalize() for word in name.split("-")),
        "__FUNCTION__": _logical_id(repository, name),
    }

    def filled(text: str) -> str:
        for placeholder, word in words.items():
            text = text.replace(placeholder, word)
        return text

    files = {}
    for path in sorted(template.rglob(f"*{SUFFIX}")):
        place, *inside = path.relative_to(template).parts
        target = repository.root / filled("/".join([PLACES[place], *inside]))
        text = filled(path.read_text("utf-8"))
        files[target.with_name(target.name.removesuffix(SUFFIX))] = text
    return files


def _logical_id(repository: Repository, name: str) -> str:
    return logical_id(Function(name, repository.root / "functions" / name))


def _missing(repository: Repository, files: Mapping[Path, str]) -> set[str]:
    """The resources that the files refer to, but that do not exist."""
    documents = [yaml.safe_load(text) for path, text in files.items() if path.suffix == ".yml"]
    own = {id_ for document in documents for id_ in document.get("Resources") or ()}
    own |= {_logical_id(repository, path.parent.name) for path in files}
    there = own | Configuration(repository).resources.keys()
    return {id_ for id_ in references(documents) - there if not id_.startswith("AWS::")}


def _remove(repository: Repository, written: list[Path]) -> None:
    for path in written:
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == repository.root or any(folder.iterdir()):
                break
            folder.rmdir()
