"""The functions that resources refer to are in the tree."""

import re

from jobplane.configuration import references
from jobplane.rules._steps import logical_id
from jobplane.rules._tree import Finding, Findings, Tree, line_of
from jobplane.workspace import read_yaml

FUNCTION = re.compile(r"[A-Z]\w*LambdaFunction")


def findings(tree: Tree) -> Findings:
    if not tree.is_whole:
        return
    there = {logical_id(function.name) for function in tree.workspace.functions()}
    for path in tree.workspace.resources:
        for logical, resource in (read_yaml(path).get("Resources") or {}).items():
            for missing in sorted(references(resource) - there):
                if FUNCTION.fullmatch(missing):
                    name = missing.removesuffix("LambdaFunction").replace("Dash", "-").lower()
                    text = (
                        f"{logical} refers to the function {name}, which is not in functions/: "
                        "delete the resource, or restore the function"
                    )
                    yield Finding(path, line_of(path, f"{logical}:"), text)
