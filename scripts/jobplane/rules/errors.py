"""Errors in a state machine's Retry and Catch are raised by the functions that it calls.

An error's name is its class. Errors of AWS count as raised; a task that waits for a worker may also
fail with errors that `jobplane_client` reports.
"""

import ast
import re

from jobplane.rules._steps import state_machines
from jobplane.rules._tree import Finding, Findings, Tree, line_of

PLATFORM = re.compile(r"(States|Lambda|S3|Sqs|SQS|DynamoDb|Sfn)\.\w+")
# botocore's classes, which leave a function that does not catch them.
BOTOCORE = re.compile(r"ClientError|BotoCoreError|\w+Exception")


def findings(tree: Tree) -> Findings:
    functions = {function.name: function for function in tree.repository.functions()}
    checked = {function.name for function in tree.functions}
    for machine in state_machines(tree.repository):
        for step in machine.steps:
            if not tree.is_whole and step.function not in checked:
                continue
            known = _reported_by_workers(tree) if step.waits_for_worker else set()
            if step.function is not None:
                known = known | tree.program(functions[step.function]).facts.raised
            for error in step.errors:
                if PLATFORM.fullmatch(error) or BOTOCORE.fullmatch(error) or error in known:
                    continue
                line = line_of(machine.path, error, line_of(machine.path, f"{step.name}:"))
                raiser = f"{step.function} never raises" if step.function else "no code raises"
                text = f"{step.name} handles {error}, which {raiser}: name an error that is raised"
                yield Finding(machine.path, line, text)


def _reported_by_workers(tree: Tree) -> set[str]:
    """Texts that jobplane_client gives as `error`, itself or by a constant's name."""
    constants: dict[str, str] = {}
    reported: set[str] = set()
    for path in sorted((tree.repository.root / "libs" / "client" / "src").rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(module):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        constants[target.id] = str(node.value.value)
            elif isinstance(node, ast.keyword) and node.arg == "error":
                if isinstance(node.value, ast.Constant):
                    reported.add(str(node.value.value))
                elif isinstance(node.value, ast.Name):
                    reported.add(node.value.id)
    return {constants.get(name, name) for name in reported}
