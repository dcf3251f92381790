"""Values against the published schemas, as `contracts/` has them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

SCHEMAS = Path(__file__).resolve().parents[1] / "contracts" / "json-schema"


def is_published(name: str) -> bool:
    """Whether there is a schema of that name."""
    return (SCHEMAS / f"{name}.json").is_file()


def faults(name: str, value: Any) -> list[str]:
    """What is wrong with a value from outside, by the schema of that name."""
    return _faults(_validator(name, closed=False), value)


def faults_of_ours(name: str, value: Any) -> list[str]:
    """What is wrong with a value that we made: keys that the schema does not name are, too."""
    return _faults(_validator(name, closed=True), value)


def _faults(validator: jsonschema_rs.Draft202012Validator, value: Any) -> list[str]:
    return [
        f"{'/'.join(map(str, error.instance_path))}: {error.message:.500}"
        for error in validator.iter_errors(value)
    ]


@cache
def _validator(name: str, *, closed: bool) -> jsonschema_rs.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    return jsonschema_rs.Draft202012Validator(
        _closed(schema) if closed else schema, validate_formats=True
    )


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: _closed(part) for name, part in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        parts.setdefault("additionalProperties", False)
    return parts
