"""Placeholders in case files, for values that are known only at run time.

In an event or a `given` file they are replaced; in an `expect` file they match.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import click

from jobplane_client import mint_token

OFFSET = r"(?:[+-][0-9]+)?"
UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
ISO_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")
KIND = re.compile(r"[a-z]+(-[a-z]+)*")
CLAIM = r"(?:user|tenant|permissions|ttl|secret)=[^,<>]*"


class PlaceholderError(click.ClickException):
    """A stage has no value for a placeholder or a name."""


@dataclass(frozen=True)
class Placeholder:
    """One kind of placeholder, written between angle brackets."""

    example: str
    pattern: str
    """Regular expression of the text between the brackets; `{}` stands for the stack's names."""
    meaning: str

    @property
    def kind(self) -> str:
        """Its first word: `now`, `table`, `contains`."""
        return KIND.match(self.pattern)[0]  # type: ignore[index]  # all begin with a word


# These are replaced by values, in events and `given` files.
VALUES = (
    Placeholder(
        "<now+60>", f"now{OFFSET}", "the time in seconds since 1970; 60 seconds later, -60 earlier"
    ),
    Placeholder("<iso-now-60>", f"iso-now{OFFSET}", "the same as text: `2026-11-28T10:00:00.000Z`"),
    Placeholder("<date-1>", f"date{OFFSET}", "the UTC date, so many days from today"),
    Placeholder("<uuid>", "uuid", "a new UUID"),
    Placeholder(
        "<token:user=u,tenant=t>",
        rf"token:(?=[^<>]*user=)(?=[^<>]*tenant=){CLAIM}(?:,{CLAIM})*",
        "a JWT that the stage accepts; also `permissions=a+b`, `ttl=SECONDS`, `secret=TEXT`",
    ),
)
# These are replaced by names of the stage, in all three files.
NAMES = (
    Placeholder("<table:requests>", "table:(?:{})", "the full name of a table"),
    Placeholder("<bucket:files>", "bucket:(?:{})", "the full name of a bucket"),
    Placeholder("<queue:webhooks>", "queue:(?:{})", "the URL of a queue"),
    Placeholder("<service>", "service", "the name of the service, from serverless.yml"),
    Placeholder("<stage>", "stage", "the name of the stage"),
)
LITERAL = Placeholder("<lt>", "lt", "the character `<`: `<lt>b>` is the text `<b>`")
# These match values, in `expect` files; they must be the whole text.
MATCHERS = (
    Placeholder("<any>", "any", "any value"),
    Placeholder("<string>", "string", "any text"),
    Placeholder("<int>", "int", "any whole number"),
    Placeholder("<number>", "number", "any number"),
    Placeholder("<bool>", "bool", "true or false"),
    Placeholder("<uuid>", "uuid", "any UUID"),
    Placeholder("<iso-time>", "iso-time", "any time like `2026-11-28T10:00:00.000Z`"),
    Placeholder("<absent>", "absent", "the key must not be there"),
    Placeholder("<contains:part>", "contains:.+", "a text that contains `part`"),
    Placeholder("<regex:^a.*z$>", "regex:.+", "a text in which the regular expression is found"),
)


def _any_of(placeholders: Iterable[Placeholder]) -> re.Pattern[str]:
    return re.compile(f"<({'|'.join(p.pattern.format('[^<>]*') for p in placeholders)})>")


FILLED = _any_of((*VALUES, *NAMES, LITERAL))
NAMED = _any_of(NAMES)
OF_A_STAGE = re.compile("<(token|table|bucket|queue|service|stage)[:>]")


def unknown(placeholders: Iterable[Placeholder], names: Mapping[str, Iterable[str]]) -> str:
    """A pattern, for Python and JSON Schema, of unknown placeholders; not of e-mail addresses."""
    known = "|".join(
        # A hyphen is not escaped: JavaScript's regular expressions don't allow it.
        each.pattern.format("|".join(names.get(each.kind, ())).replace(".", r"\."))
        for each in placeholders
    )
    word = r"[A-Za-z_][^<>]*|\s+[A-Za-z_][\w:+-]*\s*"
    return rf"<(?!(?:{known})>)(?![^\s<>:]+@[^\s<>]+>)(?:{word})>"


def with_texts(document: Any, change: Callable[[str], Any]) -> Any:
    """A copy with each text changed, also those that are keys."""
    if isinstance(document, dict):
        return {change(key): with_texts(value, change) for key, value in document.items()}
    if isinstance(document, list):
        return [with_texts(value, change) for value in document]
    return change(document) if isinstance(document, str) else document


@dataclass(frozen=True)
class Values:
    """The values of a case's placeholders on a stage."""

    service: str
    stage: str
    jwt_secret: str
    tables: Mapping[str, str] = field(default_factory=dict)
    buckets: Mapping[str, str] = field(default_factory=dict)
    queues: Mapping[str, str] = field(default_factory=dict)

    def fill(self, document: Any) -> Any:
        """A copy with all placeholders replaced; `<now+60>` alone becomes a number."""
        return self._filled(document, FILLED)

    def fill_names(self, document: Any) -> Any:
        """A copy of an expectation with the stage's names; matching placeholders stay."""
        return self._filled(document, NAMED)

    def _filled(self, document: Any, pattern: re.Pattern[str]) -> Any:
        def filled(text: str) -> Any:
            whole = pattern.fullmatch(text)
            if whole is not None:
                return self._value(whole[1])
            return pattern.sub(lambda match: str(self._value(match[1])), text)

        return with_texts(document, filled)

    def _value(self, placeholder: str) -> Any:
        plain = {"service": self.service, "stage": self.stage, "uuid": str(uuid.uuid4()), "lt": "<"}
        if placeholder in plain:
            return plain[placeholder]
        kind, _, argument = placeholder.partition(":")
        if kind == "token":
            return self._token(argument)
        if argument:
            names = {"table": self.tables, "bucket": self.buckets, "queue": self.queues}[kind]
            if argument not in names:
                raise PlaceholderError(
                    f"stage {self.stage!r} has no {kind} {argument!r}; it has {', '.join(names)}"
                )
            return names[argument]
        kind = KIND.match(placeholder)[0]  # type: ignore[index]  # FILLED has matched it
        offset, now = int(placeholder.removeprefix(kind) or 0), datetime.now(UTC)
        if kind == "date":
            return (now.date() + timedelta(days=offset)).isoformat()
        then = now + timedelta(seconds=offset)
        iso = then.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return int(then.timestamp()) if kind == "now" else iso

    def _token(self, argument: str) -> str:
        claims = dict(part.partition("=")[::2] for part in argument.split(","))
        if not claims.get("ttl", "1").lstrip("-").isdecimal():
            raise PlaceholderError(f"ttl={claims['ttl']} in <token:…> is not a number of seconds")
        permissions = [name for name in claims.get("permissions", "").split("+") if name]
        return mint_token(
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
    """List the differences from an expectation, one line each; empty if it matches.

    An object may have more keys than expected, but `{}` matches only an empty one; lists match
    element by element; a string is parsed as JSON if an object or a list is expected; `<absent>`
    is a key that must not be there.
    """
    if isinstance(expected, dict | list) and isinstance(actual, str):
        actual = _parsed(actual)
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            return [f"{where}: expected an object, got {_shown(actual)}"]
        if actual and not expected:
            return [f"{where}: expected an empty object, got {_shown(actual)}"]
        return [
            line
            for key, value in expected.items()
            for line in _entry(value, actual, key, f"{where}.{key}")
        ]
    if isinstance(expected, list):
        actual = sorted(actual) if isinstance(actual, set) else actual
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
        return (
            [f"{where}: expected no such key, got {_shown(actual[key])}"] if key in actual else []
        )
    if key not in actual:
        return [f"{where}: is missing"]
    return mismatches(expected, actual[key], where)


def _matches(expected: Any, actual: Any) -> bool:
    if isinstance(expected, str):
        if expected in KINDS:
            return KINDS[expected](actual)
        kind, _, argument = expected.removesuffix(">").partition(":")
        expected, argument = expected.replace("<lt>", "<"), argument.replace("<lt>", "<")
        if kind in ("<contains", "<regex") and expected.endswith(">"):
            if not isinstance(actual, str):
                return False
            return argument in actual if kind == "<contains" else bool(re.search(argument, actual))
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
