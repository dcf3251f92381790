"""Functions and resources that others refer to exist."""

import re

from jobplane.rules._tree import Finding, Findings, Tree, line_of
from jobplane.tree.configuration import Configuration, logical_id, references, role_id

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


def _named(lost: str) -> str:
    if FUNCTION.fullmatch(lost):
        return f"the function {_function(lost)}, which is not in functions/"
    return f"{lost}, which is not in resources/"


def _function(id_: str) -> str:
    return id_.removesuffix("LambdaFunction").replace("Dash", "-").lower()
