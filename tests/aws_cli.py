"""The part of AWS's command line that docs/ uses: its options are those of botocore's operations.

As a program it stands in for `aws` where the documentation's commands are run on a local stage.
"""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.session
import jmespath
from botocore import xform_name
from botocore.model import OperationModel

# Options of the command line itself.
GLOBAL = {
    "cli-binary-format", "cli-read-timeout", "endpoint-url", "max-items", "output", "query",
}  # fmt: skip
OUTFILE = {("lambda", "invoke")}
# What MiniStack has no such call for: such a command is parsed and does nothing.
NOT_EMULATED = {
    ("service-quotas", "request-service-quota-increase"),
    ("sqs", "start-message-move-task"),
}


class UnknownOptionError(Exception):
    """The command line has no such service, operation or option."""


@dataclass
class Command:
    """What was asked for."""

    service: str
    operation: str
    parameters: dict[str, Any] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """Its name as a method of a client."""
        return self.operation.replace("-", "_")


def parse(arguments: list[str]) -> Command:
    """The command of these arguments, without the name of the program.

    Raises UnknownOptionError.
    """
    service, operation, *rest = arguments
    if operation == "wait":
        waiter, *rest = rest
        operation = _operation_of_waiter(service, waiter)
    command = Command(service, operation)
    model = _model(service, operation)
    members = model.input_shape.members if model.input_shape else {}
    names = {xform_name(name, "-"): name for name in members}
    while rest:
        option = rest.pop(0).removeprefix("--")
        if option in GLOBAL:
            command.options[option] = rest.pop(0)
        elif option in names and members[names[option]].type_name == "boolean":
            command.parameters[names[option]] = True
        elif option in names:
            value = rest.pop(0)
            listed = members[names[option]].type_name == "list"
            more = [] if not listed else _until_option(rest)
            shape = members[names[option]].type_name
            command.parameters[names[option]] = _value(shape, [value, *more])
        elif not rest and (service, operation) in OUTFILE:
            command.options["outfile"] = option
        else:
            raise UnknownOptionError(f"aws {service} {operation}: {option}")
    return command


def _operation_of_waiter(service: str, waiter: str) -> str:
    names = botocore.session.get_session().get_waiter_model(service)
    for name in names.waiter_names:
        if xform_name(name, "-") == waiter:
            return xform_name(names.get_waiter(name).operation, "-")
    raise UnknownOptionError(f"aws {service} wait {waiter}")


def _model(service: str, operation: str) -> OperationModel:
    session = botocore.session.get_session()
    if service not in session.get_available_services():
        raise UnknownOptionError(f"aws {service}")
    model = session.get_service_model(service)
    for name in model.operation_names:
        if xform_name(name, "-") == operation:
            return model.operation_model(name)
    raise UnknownOptionError(f"aws {service} {operation}")


def _until_option(rest: list[str]) -> list[str]:
    values = []
    while rest and not rest[0].startswith("--"):
        values.append(rest.pop(0))
    return values


def _value(shape: str, values: list[str]) -> Any:
    """A value as the operation wants it."""
    if shape == "list":
        return json.loads(values[0]) if values[0].startswith("[") else values
    (value,) = values
    if shape in {"structure", "map"} and value.startswith("{"):
        return json.loads(value)
    return {"integer": int, "long": int, "double": float}.get(shape, str)(value)


def main() -> None:
    """Run a command on the stage that the environment names, and print as `aws` does."""
    command = parse(sys.argv[1:])
    if (command.service, command.operation) in NOT_EMULATED:
        return
    client = botocore.session.get_session().create_client(
        command.service,
        endpoint_url=command.options.get("endpoint-url", os.environ["AWS_ENDPOINT_URL"]),
    )
    if "max-items" in command.options:
        pages = client.get_paginator(command.method).paginate(
            **command.parameters, PaginationConfig={"MaxItems": int(command.options["max-items"])}
        )
        answer = pages.build_full_result()
    else:
        answer = getattr(client, command.method)(**command.parameters)
    if "outfile" in command.options:
        Path(command.options["outfile"]).write_bytes(answer.pop("Payload").read())
    answer = json.loads(json.dumps(answer, default=str))  # times are text
    if "query" in command.options:
        answer = jmespath.search(command.options["query"], answer)
    if command.options.get("output") == "text":
        found = answer if isinstance(answer, list) else [answer]
        sys.stdout.write("\t".join(map(str, found)) + "\n")
    else:
        sys.stdout.write(json.dumps(answer, indent=4) + "\n")


if __name__ == "__main__":
    main()
