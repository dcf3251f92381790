"""OpenAPI 3.1 of the HTTP API: the functions' routes and their types.

A function with an `httpApi` event describes its routes in `functions/<name>/openapi.yml`: `paths`.
"""

from collections.abc import Iterator
from typing import Any

import click

from jobplane.contracts.catalogue import Contract
from jobplane.contracts.json_schema import definitions_of
from jobplane.tree.repository import Repository, read_yaml
from jobplane_models import lookups
from jobplane_models.assemblies import AssemblyDocument

type Route = tuple[str, str]

MODELS = (
    AssemblyDocument,
    lookups.AssemblyPage,
    lookups.BatchAnswer,
    lookups.BatchRequest,
    lookups.GatewayRefusal,
    lookups.Refusal,
)

HEADERS: dict[str, Any] = {
    "DocumentCache": {
        "description": (
            "A completed document may be cached for five minutes, one that ended otherwise only"
            " if it is revalidated, one that has not ended not at all."
        ),
        "required": True,
        "schema": {"enum": ["private, max-age=300", "private, no-cache", "no-store"]},
    },
    "ETag": {
        "description": "The version of an ended document; it also changes before the links expire.",
        "schema": {"type": "string", "pattern": '^W/"[0-9a-f]{32}"$'},
    },
    "NotCached": {"required": True, "schema": {"const": "no-store"}},
    "RetryAfter": {
        "description": "Seconds to wait before the next request.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "RetryAfterAlways": {
        "description": "Seconds to wait before the next request.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "Vary": {
        "description": "Authorization, and headers that API Gateway adds.",
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {"required": True, "schema": {"type": "string"}},
}


def refusal(
    description: str, headers: dict[str, str] | None = None, *, gateway: bool = False
) -> dict[str, Any]:
    """An error answer (Refusal); with `gateway` also API Gateway's own, with other headers."""
    schema: dict[str, Any] = {"$ref": "#/components/schemas/Refusal"}
    if gateway:
        schema = {"anyOf": [schema, {"$ref": "#/components/schemas/GatewayRefusal"}]}
    own = {} if gateway else {"Cache-Control": "NotCached"}
    return answer(description, schema, own | (headers or {}))


def answer(description: str, schema: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": schema}},
    }
    if headers:
        found["headers"] = header_references(headers)
    return found


def header_references(headers: dict[str, str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{kind}"} for name, kind in headers.items()}


RESPONSES: dict[str, dict[str, Any]] = {
    "Conflict": refusal("The assembly has not ended.", {"Retry-After": "RetryAfterAlways"}),
    "Forbidden": refusal("The assembly belongs to another user."),
    "InternalError": refusal(
        "An error of the service; report it with its `request_id`.", gateway=True
    ),
    "Invalid": refusal("The request is malformed; `problems` lists all invalid fields."),
    "NotFound": refusal(
        "The assembly does not exist (yet), or the route does not exist.",
        {"Retry-After": "RetryAfter"},
        gateway=True,
    ),
    "NotModified": {
        "description": "The caller has this version; no body.",
        "headers": header_references(
            {"Cache-Control": "DocumentCache", "ETag": "ETag", "Vary": "Vary"}
        ),
    },
    "TooLarge": refusal(
        "The answer would exceed 6 MB, the limit of Lambda. For a batch, ask for the first `fits`"
        " ids, then for the others."
    ),
    "TooSoon": refusal(
        "The webhook was triggered a moment ago, or the API is throttled.",
        {"Retry-After": "RetryAfter"},
        gateway=True,
    ),
    "Unauthorized": refusal(
        "The token is missing, expired or invalid.", {"WWW-Authenticate": "WWW-Authenticate"}
    ),
    "Unavailable": refusal(
        "Temporarily unavailable; try again.", {"Retry-After": "RetryAfter"}, gateway=True
    ),
}


def deployed_routes(repository: Repository) -> set[Route]:
    """The routes of the HTTP API, from every function.yml."""
    return set(_routes(repository))


def _routes(repository: Repository) -> Iterator[Route]:
    for function in repository.functions():
        for event in function.config.get("events", ()):
            if route := event.get("httpApi"):
                yield route["method"].upper(), route["path"]


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
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {
            "title": "Jobplane",
            "version": version,
            "summary": "Look-ups of assemblies.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [
            {
                "url": "https://{api}.execute-api.{region}.amazonaws.com",
                "variables": {
                    "api": {"default": "api", "description": "The HTTP API's id."},
                    "region": {"default": "eu-west-1"},
                },
            }
        ],
        "security": [{"token": []}],
        "paths": paths_of(repository),
        "components": {
            "headers": HEADERS,
            "responses": RESPONSES,
            "schemas": definitions_of(contracts, "#/components/schemas"),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "Claims: user_id or sub, tenant_id, exp; optional: permissions.",
                }
            },
        },
    }
