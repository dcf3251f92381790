"""The handler that the Serverless Framework deploys exists.

Reads key, handler and artifact of every function from the framework's configuration
(scripts/serverless/functions.js), and looks for the handler in the module.
"""

import ast
import json

from jobplane.rules._tree import Finding, Findings, Tree
from jobplane.stage.framework import install_framework
from jobplane.tree.repository import Function
from lambdapack.tools import run_quietly

PRINT = "console.log(JSON.stringify(require('./scripts/serverless/functions.js')))"
PARAMETERS = ["event", "context"]


def findings(tree: Tree) -> Findings:
    install_framework(tree.repository)
    output = run_quietly(
        ["node", "-e", PRINT],
        cwd=tree.repository.root,
        what="reading scripts/serverless/functions.js",
    )
    deployed = json.loads(output)
    for function in tree.functions:
        config = deployed.pop(function.name, None)
        if config is None:
            text = (
                "the framework does not find this function: its module or function.yml is missing"
            )
            yield Finding(function.config_path, 1, text)
            continue
        artifact = (config.get("package") or {}).get("artifact")
        if artifact != f"dist/{function.name}.zip":
            text = f"it is deployed from {artifact}, and its artifact is dist/{function.name}.zip"
            yield Finding(function.config_path, 1, text)
        yield from _handler(function, str(config.get("handler")))
    if tree.is_whole:
        for name in deployed:
            text = f"{name} is deployed, but the repository has no such function"
            yield Finding(tree.service_path, 1, text)


def _handler(function: Function, handler: str) -> Findings:
    module, _, name = handler.rpartition(".")
    path = function.directory / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        text = f"the handler {handler} is not in a module of this folder"
        yield Finding(function.config_path, 1, text)
        return
    definitions = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    if not definitions:
        yield Finding(path, 1, f"the deployed handler {handler} does not exist")
        return
    definition = definitions[-1]
    given = [argument.arg for argument in (*definition.args.posonlyargs, *definition.args.args)]
    if given != PARAMETERS:
        text = f"{name} takes ({', '.join(given)}), but Lambda passes (event, context)"
        yield Finding(path, definition.lineno, text)
