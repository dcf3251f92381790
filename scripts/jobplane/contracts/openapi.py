"""OpenAPI 3.1 of the HTTP API: the functions' routes and their types.

A function with an `httpApi` event describes its routes in `functions/<name>/openapi.yml`: `paths`.
"""

from pathlib import Path
from typing import Any

import click

from jobplane.contracts.catalogue import Contract
from jobplane.contracts.json_schema import definitions_of
from jobplane.tree.repository import Repository, read_yaml
from jobplane_models import answers, lookups, messages, payloads
from jobplane_models.assemblies import AssemblyDocument

type Route = tuple[str, str]

MODELS = (
    AssemblyDocument,
    answers.Cancelled,
    answers.CreatedUpload,
    answers.RequestState,
    lookups.AcceptedJob,
    lookups.AssemblyPage,
    lookups.BatchAnswer,
    lookups.BatchRequest,
    lookups.GatewayRefusal,
    lookups.JobPage,
    lookups.PerformedAction,
    lookups.Refusal,
    messages.ClientMessage,
    payloads.CreateUpload,
)

# What does not follow from the models and the routes.
SKELETON = Path(__file__).with_name("openapi.yml")


def deployed_routes(repository: Repository) -> set[Route]:
    """The routes of the HTTP API, from every function.yml."""
    return {
        (route["method"].upper(), route["path"])
        for function in repository.functions()
        for event in function.config.get("events", ())
        if (route := event.get("httpApi"))
    }


def paths_of(repository: Repository) -> dict[str, dict[str, Any]]:
    """The paths that the functions' own files describe."""
    found: dict[str, dict[str, Any]] = {}
    for function in repository.functions():
        if not function.routes_path.is_file():
            continue
        for path, operations in read_yaml(function.routes_path).items():
            there = found.setdefault(path, {})
            for method in sorted(there.keys() & operations.keys()):
                route = f"{method.upper()} {path}"
                raise click.ClickException(f"{function.routes_path}: {route} is described twice")
            there |= operations
    return dict(sorted(found.items()))


def openapi_of(repository: Repository, version: str) -> dict[str, Any]:
    contracts = [Contract(model.__name__, model.__name__, model) for model in MODELS]
    document: dict[str, Any] = read_yaml(SKELETON)
    schemas = definitions_of(contracts, "#/components/schemas")
    return document | {
        "info": document["info"] | {"version": version},
        "paths": paths_of(repository),
        "components": document["components"] | {"schemas": schemas},
    }
