"""Functions, resources and entry points that others refer to exist."""

import re
from collections import Counter

from jobplane.rules._flow import Module
from jobplane.rules._imports import canonical
from jobplane.rules._tree import Finding, Findings, Member, Tree, line_of
from jobplane.tree.configuration import Configuration, logical_id, references, role_id
from jobplane.tree.entry_points import HALVES, EntryPoint

# Resources that the framework and scripts/serverless add, beside those of each function.
ADDED = re.compile(r"AWS::.*|(?:HttpApi|HttpRoute|Serverless|Websockets)\w*|AlarmsTopic|\w+Alarm")
FUNCTION = re.compile(r"[A-Z]\w*LambdaFunction")


def findings(tree: Tree) -> Findings:
    if not tree.is_whole:
        return
    functions = tree.repository.functions()
    configuration = Configuration(tree.repository)
    there = {*configuration.resources, *map(logical_id, functions), *map(role_id, functions)}
    there |= {logical_id(each).replace("LambdaFunction", "LogGroup") for each in functions}

    def missing(value: object) -> list[str]:
        return sorted(id_ for id_ in references(value) - there if not ADDED.fullmatch(id_))

    for id_, declared in configuration.resources.items():
        path = tree.repository.root / declared.file
        for lost in missing(declared.body):
            remedy = "restore it, remove the reference, or delete the resource"
            if FUNCTION.fullmatch(lost):
                remedy = f"run `jobplane delete {_function(lost)}`, or restore the function"
            text = f"{id_} refers to {_named(lost)}: {remedy}"
            yield Finding(path, line_of(path, f"{id_}:"), text)
    for function in functions:
        path = function.config_path
        for lost in missing(function.config):
            text = f"it refers to {_named(lost)}: restore it, or remove the reference"
            yield Finding(path, line_of(path, lost), text)
    yield from _entry_points(tree)


def _entry_points(tree: Tree) -> Findings:
    """What a package adds to a function exists, has a name of its own, and is loaded."""
    functions = {each.name: Member(each.directory, each) for each in tree.repository.functions()}
    names = Counter((each.group, each.name) for each in tree.entry_points)
    for point in tree.entry_points:
        place = point.project, line_of(point.project, point.value)
        named = f"{point.name!r} of {point.group}"
        if names[point.group, point.name] > 1:
            yield Finding(*place, f"{named} is declared by two packages: rename one")
        if not _defines(point):
            text = f"{named} refers to {point.value}, which does not exist: correct it"
            yield Finding(*place, text)
        other = HALVES.get(point.group)
        if other and not names[other, point.name]:
            yield Finding(*place, f"{named} has no entry of {other}: an action needs both, add it")
        function = functions.get(point.loaded_by)
        if function and canonical(point.distribution) not in function.declared:
            text = f"{named} is loaded by {function.name}, which does not depend on the package"
            remedy = f"declare {point.distribution} in functions/{function.name}/pyproject.toml"
            yield Finding(*place, f"{text}: {remedy}")


def _defines(point: EntryPoint) -> bool:
    first, *rest = point.module.split(".")
    base = point.project.parent.joinpath("src", first, *rest)
    for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if path.is_file():
            return bool(Module(path, point.module).binders.get(point.attribute))
    return False


def _named(lost: str) -> str:
    if FUNCTION.fullmatch(lost):
        return f"the function {_function(lost)}, which is not in functions/"
    return f"{lost}, which is not in resources/"


def _function(id_: str) -> str:
    return id_.removesuffix("LambdaFunction").replace("Dash", "-").lower()
