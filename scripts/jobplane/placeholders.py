"""Placeholders in event files: values that are known at run time, and values of any kind.

In an event or a `given` file they are filled in; in an `expect` file they match.
"""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from jobplane.tokens import mint

FILLED = re.compile(r"<(now|iso-now|date|token|table|bucket|queue|service|stage|uuid)([^<>]*)>")
OFFSET = re.compile(r"^([+-]\d+)?$")
UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
ISO_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")


class PlaceholderError(ValueError):
    """A placeholder that can't be filled in; carries it."""


@dataclass(frozen=True)
class Values:
    """What the placeholders of a case stand for on its stage."""

    service: str
    stage: str
    jwt_secret: str
    tables: Mapping[str, str] = field(default_factory=dict)
    buckets: Mapping[str, str] = field(default_factory=dict)
    queues: Mapping[str, str] = field(default_factory=dict)

    def fill(self, document: Any) -> Any:
        """A copy with every placeholder replaced; `<now+60>` alone becomes a number."""
        if isinstance(document, dict):
            return {self.fill(key): self.fill(value) for key, value in document.items()}
        if isinstance(document, list):
            return [self.fill(value) for value in document]
        if not isinstance(document, str):
            return document
        whole = FILLED.fullmatch(document)
        if whole is not None:
            return self._value(whole)
        return FILLED.sub(lambda match: str(self._value(match)), document)

    def _value(self, match: re.Match[str]) -> Any:
        kind, argument = match[1], match[2]
        named = {"table": self.tables, "bucket": self.buckets, "queue": self.queues}
        if kind in named and argument.startswith(":"):
            short = argument[1:]
            if short not in named[kind]:
                raise PlaceholderError(f"{match[0]}: there is {', '.join(named[kind]) or 'none'}")
            return named[kind][short]
        if kind == "token" and argument.startswith(":"):
            return self._token(argument[1:])
        if kind == "date" and OFFSET.match(argument):
            return (datetime.now(UTC).date() + timedelta(days=int(argument or 0))).isoformat()
        if kind in ("now", "iso-now") and OFFSET.match(argument):
            then = datetime.now(UTC) + timedelta(seconds=int(argument or 0))
            iso = then.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            return int(then.timestamp()) if kind == "now" else iso
        if kind == "service" and not argument:
            return self.service
        if kind == "stage" and not argument:
            return self.stage
        if kind == "uuid" and not argument:
            return str(uuid.uuid4())
        raise PlaceholderError(f"{match[0]} is not understood")

    def _token(self, argument: str) -> str:
        claims = dict(part.partition("=")[::2] for part in argument.split(","))
        permissions = [name for name in claims.get("permissions", "").split("+") if name]
        return mint(
            claims.get("secret", self.jwt_secret),
            user=claims["user"],
            tenant=claims["tenant"],
            permissions=permissions,
            ttl=int(claims.get("ttl", 3600)),
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


KINDS: dict[str, Callable[[Any], bool]] = {
    "<any>": lambda value: True,
    "<string>": lambda value: isinstance(value, str),
    "<int>": lambda value: _is_number(value) and value == int(value),
    "<number>": _is_number,
    "<bool>": lambda value: isinstance(value, bool),
    "<uuid>": lambda value: isinstance(value, str) and UUID.match(value) is not None,
    "<iso-time>": lambda value: isinstance(value, str) and ISO_TIME.match(value) is not None,
}


def mismatches(expected: Any, actual: Any, where: str = "answer") -> list[str]:
    """Where a value is not what was expected, one line each; empty when it is.

    Objects match by subset, lists element by element; JSON in a string is looked into when
    an object or a list is expected; `<absent>` is a key that must not be there.
    """
    if isinstance(expected, dict | list) and isinstance(actual, str):
        actual = _parsed(actual)
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            return [f"{where}: expected an object, got {_shown(actual)}"]
        return [
            line
            for key, value in expected.items()
            for line in _entry(value, actual, key, f"{where}.{key}")
        ]
    if isinstance(expected, list):
        if not isinstance(actual, list) or len(actual) != len(expected):
            return [f"{where}: expected {len(expected)} elements, got {_shown(actual)}"]
        return [
            line
            for index, (value, other) in enumerate(zip(expected, actual, strict=True))
            for line in mismatches(value, other, f"{where}[{index}]")
        ]
    if _matches(expected, actual):
        return []
    return [f"{where}: expected {_shown(expected)}, got {_shown(actual)}"]


def _entry(expected: Any, actual: dict[str, Any], key: str, where: str) -> list[str]:
    if expected == "<absent>":
        return [f"{where}: is there: {_shown(actual[key])}"] if key in actual else []
    if key not in actual:
        return [f"{where}: is missing"]
    return mismatches(expected, actual[key], where)


def _matches(expected: Any, actual: Any) -> bool:
    if isinstance(expected, str):
        if expected in KINDS:
            return KINDS[expected](actual)
        kind, _, argument = expected.removesuffix(">").partition(":")
        if kind == "<contains" and expected.endswith(">"):
            return isinstance(actual, str) and argument in actual
        if kind == "<regex" and expected.endswith(">"):
            return isinstance(actual, str) and re.search(argument, actual) is not None
    return (
        type(expected) is type(actual)
        and bool(expected == actual)
        or (_is_number(expected) and _is_number(actual) and Decimal(str(expected)) == actual)
    )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)[:300]
