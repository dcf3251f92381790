"""OpenAPI 3.1 of the HTTP API: the operations of the function `status`."""

from collections.abc import Iterator
from typing import Any

from jobplane.contracts.catalogue import Contract
from jobplane.contracts.json_schema import definitions_of
from jobplane.workspace import Workspace
from jobplane_models import lookups
from jobplane_models.assemblies import AssemblyDocument

type Route = tuple[str, str]
type Operation = dict[str, Any]

MODELS = (
    AssemblyDocument,
    lookups.AssemblyPage,
    lookups.BatchAnswer,
    lookups.BatchRequest,
    lookups.GatewayRefusal,
    lookups.Refusal,
)
ASSEMBLY_ID = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}

NOT_CACHED = {"Cache-Control": "NotCached"}
DOCUMENT_HEADERS = {
    "Cache-Control": "DocumentCache",
    "ETag": "ETag",
    "Retry-After": "RetryAfter",
    "Vary": "Vary",
}
HEADERS: dict[str, Any] = {
    "DocumentCache": {
        "description": "An ended document may be kept for five minutes, another not at all.",
        "required": True,
        "schema": {"enum": ["private, max-age=300", "no-store"]},
    },
    "ETag": {
        "description": "Of an ended document; changes with it, and before its links expire.",
        "schema": {"type": "string", "pattern": '^W/"[0-9a-f]{32}"$'},
    },
    "NotCached": {"required": True, "schema": {"const": "no-store"}},
    "RetryAfter": {
        "description": "Seconds until it is worth asking again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "RetryAfterAlways": {
        "description": "Seconds until it is worth asking again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "Vary": {
        "description": "Authorization, and what API Gateway adds.",
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {"required": True, "schema": {"type": "string"}},
}


def refusal(
    description: str, headers: dict[str, str] | None = None, *, gateway: bool = False
) -> dict[str, Any]:
    """An answer that is a Refusal; `gateway`: or API Gateway's own, which has other headers."""
    schema: dict[str, Any] = {"$ref": "#/components/schemas/Refusal"}
    if gateway:
        schema = {"anyOf": [schema, {"$ref": "#/components/schemas/GatewayRefusal"}]}
    own = {} if gateway else {"Cache-Control": "NotCached"}
    return answer(description, schema, own | (headers or {}))


def answer(description: str, schema: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    """An answer with a JSON body."""
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
    "InternalError": refusal("Ours; `request_id` is for whoever asks us.", gateway=True),
    "Invalid": refusal("The request is malformed; `problems` lists every field at fault."),
    "NotFound": refusal(
        "There is no such assembly, yet, or no such route.",
        {"Retry-After": "RetryAfter"},
        gateway=True,
    ),
    "NotModified": {
        "description": "The caller has this version; no body.",
        "headers": header_references(
            {"Cache-Control": "DocumentCache", "ETag": "ETag", "Vary": "Vary"}
        ),
    },
    "TooLarge": refusal("The documents together exceed 6 MB: ask for fewer."),
    "TooSoon": refusal(
        "The webhook was triggered a moment ago, or the API is throttled.",
        {"Retry-After": "RetryAfter"},
        gateway=True,
    ),
    "Unauthorized": refusal(
        "No token, or one that is not good.", {"WWW-Authenticate": "WWW-Authenticate"}
    ),
    "Unavailable": refusal("Try again.", {"Retry-After": "RetryAfter"}, gateway=True),
}

EVERYWHERE = {"400": "Invalid", "401": "Unauthorized", "500": "InternalError", "503": "Unavailable"}
OF_A_DOCUMENT = EVERYWHERE | {
    "304": "NotModified",
    "403": "Forbidden",
    "404": "NotFound",
    "409": "Conflict",
    "429": "TooSoon",
}


def reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def responses(success: dict[str, Any], others: dict[str, str]) -> dict[str, Any]:
    """The answers of an operation, by status code."""
    found = {"200": success} | {code: reference("responses", name) for code, name in others.items()}
    return dict(sorted(found.items()))


TRIGGER = {
    "name": "triggerWebhook",
    "in": "query",
    "description": "Send the assembly's webhook again; at most every 30 seconds.",
    "schema": {"type": "boolean", "default": False},
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The ETag of the version that the caller has.",
    "schema": {"type": "string"},
}
DOCUMENT = answer(
    "The assembly's document; with `triggerWebhook`, `webhook` tells what the delivery came to.",
    reference("schemas", "AssemblyDocument"),
    DOCUMENT_HEADERS,
)

OPERATIONS: dict[Route, Operation] = {
    ("GET", "/assemblies"): {
        "operationId": "listAssemblies",
        "summary": "The caller's own assemblies, newest first, without their files.",
        "parameters": [
            {
                "name": "limit",
                "in": "query",
                "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
            },
            {
                "name": "next",
                "in": "query",
                "description": "The value of `next` from an earlier answer.",
                "schema": {"type": "string", "pattern": "^[ -~]{1,64}~[A-Za-z0-9_-]{1,128}$"},
            },
        ],
        "responses": responses(
            answer("A page.", reference("schemas", "AssemblyPage"), NOT_CACHED), EVERYWHERE
        ),
    },
    ("GET", "/status"): {
        "operationId": "findAssembly",
        "summary": "An assembly's document, its id in the query.",
        "parameters": [
            {"name": "assemblyId", "in": "query", "required": True, "schema": ASSEMBLY_ID},
            TRIGGER,
            IF_NONE_MATCH,
        ],
        "responses": responses(DOCUMENT, OF_A_DOCUMENT),
    },
    ("GET", "/status/{assembly_id}"): {
        "operationId": "getAssembly",
        "summary": "An assembly's document.",
        "parameters": [
            {"name": "assembly_id", "in": "path", "required": True, "schema": ASSEMBLY_ID},
            TRIGGER,
            IF_NONE_MATCH,
        ],
        "responses": responses(DOCUMENT, OF_A_DOCUMENT),
    },
    ("POST", "/status/batch"): {
        "operationId": "getAssemblies",
        "summary": "Up to 100 documents by id; null for what is not there or not the caller's.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": reference("schemas", "BatchRequest")}},
        },
        "responses": responses(
            answer("The documents.", reference("schemas", "BatchAnswer"), NOT_CACHED),
            EVERYWHERE | {"413": "TooLarge"},
        ),
    },
}


def deployed_routes(workspace: Workspace) -> set[Route]:
    """The routes of the HTTP API, from every function.yml."""
    return set(_routes(workspace))


def _routes(workspace: Workspace) -> Iterator[Route]:
    for function in workspace.functions():
        for event in function.config.get("events", ()):
            if route := event.get("httpApi"):
                yield route["method"].upper(), route["path"]


def openapi_of(version: str) -> dict[str, Any]:
    """The whole document."""
    contracts = [Contract(model.__name__, model.__name__, model) for model in MODELS]
    paths: dict[str, dict[str, Operation]] = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = operation
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
        "paths": paths,
        "components": {
            "headers": HEADERS,
            "responses": RESPONSES,
            "schemas": definitions_of(contracts, "#/components/schemas"),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "Claims: user_id or sub, tenant_id, exp; permissions if any.",
                }
            },
        },
    }
