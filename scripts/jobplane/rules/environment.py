"""A function's environment variables: all read ones are declared, all declared ones are read.

Read: in the function and in the code of libs that it uses. Declared: in function.yml, in
serverless.yml for all functions, or set by Lambda. An optional variable (`.get`) of a lib may stay
undeclared; one of the function may not, unless an entry with its name allows it. A variable with a
computed name is allowed by an entry with the name of the function that reads it.
"""

from collections.abc import Iterable
from pathlib import Path

from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

from jobplane.rules._flow import Reading
from jobplane.rules._tree import Finding, Findings, Member, Tree, line_of

# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
SET_BY_LAMBDA = frozenset({
    "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT", "LANG",
    "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TZ", "_HANDLER", "_X_AMZN_TRACE_ID",
})  # fmt: skip
# Lambda refuses functions that declare one of these; others may be declared.
OVERRIDABLE = frozenset({"LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TZ"})


def findings(tree: Tree) -> Findings:
    shared = set(tree.service["provider"].get("environment") or {})
    for member in tree.members:
        function = member.function
        if function is None:
            continue
        readings = tree.program(function).facts.readings
        declared = set(function.config.get("environment") or {})
        yield from _undeclared(member, readings, declared | shared)
        yield from _unread(member, readings, declared, shared)
    if tree.is_whole:
        yield from _unread_by_all(tree, shared)


def _undeclared(member: Member, readings: Iterable[Reading], declared: set[str]) -> Findings:
    for reading in readings:
        own = member.directory in reading.place.path.parents
        if reading.name is None:
            text = f"{reading.within or 'the module'} reads a variable whose name is computed"
            advice = "use a constant name, or allow the function with a reason"
            yield Finding(*_at(reading), f"{text}: {advice}", reading.within, member)
        elif reading.name not in declared | SET_BY_LAMBDA and (own or reading.required):
            fault = "the function can't start" if reading.required else "always its default is used"
            text = f"{reading.name} is not declared, so {fault}: add it to function.yml"
            if not own:
                text += f" of {member.name}"
            yield Finding(*_at(reading), text, reading.name, member)


def _unread(
    member: Member, readings: Iterable[Reading], declared: set[str], shared: set[str]
) -> Findings:
    assert member.function is not None
    path = member.function.config_path
    read = {reading.name for reading in readings} | _read_by_sdk()
    start = line_of(path, "environment")
    for name in sorted(declared):
        line = line_of(path, name, start)
        if name in SET_BY_LAMBDA - OVERRIDABLE:
            yield Finding(path, line, f"{name} is set by Lambda, which refuses it: remove it")
        elif name in shared:
            text = f"{name} is declared in serverless.yml for all functions: declare it once"
            yield Finding(path, line, text, name, member)
        elif name not in read:
            text = f"{name} is declared, but neither {member.name} nor its libs read it: remove it"
            yield Finding(path, line, text, name, member)


def _unread_by_all(tree: Tree, shared: set[str]) -> Findings:
    read = _read_by_sdk()
    for function in tree.functions:
        read |= {reading.name for reading in tree.program(function).facts.readings}
    for name in sorted(shared):
        if name not in read:
            line = line_of(tree.service_path, name, line_of(tree.service_path, "environment"))
            text = f"{name} is declared for all functions, but no function reads it: remove it"
            yield Finding(tree.service_path, line, text)


def _read_by_sdk() -> set[str | None]:
    found: set[str | None] = {"AWS_ENDPOINT_URL"}
    for _, names, *_ in BOTOCORE_DEFAUT_SESSION_VARIABLES.values():
        found |= {names} if isinstance(names, str) else set(names or ())
    return found


def _at(reading: Reading) -> tuple[Path, int]:
    return reading.place.path, reading.place.line
