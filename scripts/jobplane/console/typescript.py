"""TypeScript types of the console's API, for its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from jobplane.console import api
from jobplane.contracts.json_schema import PublishedSchema
from jobplane.contracts.typescript import typescript_from
from jobplane.tree.repository import Repository

PLACE = Path("web/console/src/api.ts")


def api_types(repository: Repository) -> str:
    """One module with every type, and `ConsoleApi`, which maps each path to its types."""
    asked = {model for table in (api.GETS, api.POSTS) for model, _ in table.values() if model}
    shown = {model for table in (api.GETS, api.POSTS) for _, model in table.values()}
    models: list[type[BaseModel]] = [*sorted(asked | shown, key=lambda m: m.__name__), api.Problem]
    kinds: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (m.__name__, "validation" if m in asked else "serialization", TypeAdapter(m))
        for m in models
    ]
    roots, shared = TypeAdapter.json_schemas(
        kinds,
        ref_template="#/$defs/{model}",
        schema_generator=PublishedSchema,
    )
    definitions = dict(shared.get("$defs", {}))
    for (name, _), schema in roots.items():
        if schema != {"$ref": f"#/$defs/{name}"}:
            definitions[name] = {"title": name} | schema
    root = {
        "title": "ConsoleApi",
        "description": "What each path below `/api/` takes and answers.",
        "type": "object",
        "properties": {"gets": _paths(api.GETS), "posts": _paths(api.POSTS)},
        "required": ["gets", "posts"],
        "additionalProperties": False,
        "$defs": definitions,
    }
    return typescript_from(root, "scripts/jobplane/console/api.py", repository)


def _paths(table: Mapping[str, tuple[type[BaseModel] | None, type[BaseModel]]]) -> dict[str, Any]:
    return _object({path: _path(asked, shown) for path, (asked, shown) in table.items()})


def _path(asked: type[BaseModel] | None, shown: type[BaseModel]) -> dict[str, Any]:
    takes = {"$ref": f"#/$defs/{asked.__name__}"} if asked else _object({})
    return _object({"asks": takes, "answer": {"$ref": f"#/$defs/{shown.__name__}"}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
