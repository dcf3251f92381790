"""TypeScript types of the contracts, by json-schema-to-typescript."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobplane.contracts.catalogue import Contract
from jobplane.contracts.json_schema import definitions_of
from jobplane.tree.repository import Repository
from lambdapack.tools import run_quietly

SCRIPT = Path(__file__).with_name("typescript.mjs")
# Conditions on several keys, which would become intersection types.
CONDITIONS = frozenset({"anyOf", "if", "not", "then"})


def typescript_of(contracts: Sequence[Contract], repository: Repository) -> str:
    """One module with every type, and `Contracts`, which maps a schema's name to its type."""
    definitions = definitions_of(contracts, "#/$defs")
    root = {
        "title": "Contracts",
        "description": "Every published contract, by the name of its JSON Schema.",
        "type": "object",
        "properties": {c.name: {"$ref": f"#/$defs/{c.title}"} for c in contracts},
        "required": [c.name for c in contracts],
        "$defs": definitions,
    }
    return typescript_from(root, "the models in libs/models", repository)


def typescript_from(schema: Any, source: str, repository: Repository) -> str:
    """The types of a JSON Schema's definitions; `source` says in the file what they are made of."""
    return run_quietly(
        ["node", SCRIPT, source],
        cwd=repository.root,
        what="json-schema-to-typescript",
        given=json.dumps(typed(schema)),
    )


def typed(schema: Any) -> Any:
    """A schema without keywords that would duplicate types."""
    if isinstance(schema, list):
        return [typed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    dropped = CONDITIONS if "properties" in schema else frozenset()
    return {name: typed(part) for name, part in schema.items() if name not in dropped}
