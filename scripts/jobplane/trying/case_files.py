"""The files of a case, and their JSON Schemas.

`<case>.json` is the event, `<case>.given.json` what must exist before, `<case>.expect.json` what is
expected. The schemas are published in contracts/json-schema/cases/, where editors find them; the
command checks the files with the same schemas.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import click
import jsonschema_rs

from jobplane.tree.repository import Function, Repository
from jobplane.tree.resolved import ResolvedStack
from jobplane.trying.placeholders import LITERAL, MATCHERS, NAMES, VALUES, Placeholder, unknown

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MATCHED_WHOLE = "^<(?:{})>$"
MATCHED_PART = r"^<(?:contains|regex):[\s\S]+>$"
# What the keys of these objects stand for; in other objects they are called keys.
NAMED_KEYS = {
    "tables": "table",
    "absent": "table",
    "items": "table",
    "objects": "bucket",
    "environment": "variable",
}
KEYS = {
    "given": {
        "tables": "Rows that must exist, by table. A row with the same key comes back afterwards.",
        "absent": "Keys of rows that must not exist, by table.",
        "objects": "Texts that must exist, by bucket and key.",
        "ssm": "Parameters that must exist, as SecureString, by name.",
        "environment": "Variables of the function. Such a case runs in process only.",
        "only_in_process": "The reason why the case can't run on a stage.",
    },
    "expect": {
        "answer": "What the function returns: a part of each object, each element of a list.",
        "error": "The class of the exception that the function raises.",
        "log": "Lines that the function logs: a part of each, or the whole text.",
        "items": "Rows that exist afterwards, a part of each, by table.",
    },
}


# A part of a row, or of a line, that each of them has.
ANYTHING = {"type": "object", "additionalProperties": {"const": "<absent>"}}
WORD = re.compile(r"[A-Za-z_][\w-]*")


class UnreadableEventError(click.UsageError):
    """A file of a case is invalid."""


@dataclass(frozen=True)
class Stack:
    keys: Mapping[str, tuple[str, ...]]
    """The names of a table's key attributes, by table."""
    buckets: tuple[str, ...]
    queues: tuple[str, ...]
    variables: tuple[str, ...]

    @classmethod
    def of(cls, repository: Repository, *functions: Function) -> "Stack":
        """The names of the repository's stack, and of the functions' environment variables."""
        sources = [repository.root / "serverless.yml", *repository.resources]
        sources += [function.config_path for function in functions]
        signatures = tuple((str(path), path.stat().st_mtime_ns) for path in sources)
        return _stack(repository, functions, signatures)

    @cached_property
    def names(self) -> dict[str, tuple[str, ...]]:
        return {"table": tuple(self.keys), "bucket": self.buckets, "queue": self.queues}


@lru_cache(maxsize=64)
def _stack(
    repository: Repository, functions: tuple[Function, ...], _sources: tuple[tuple[str, int], ...]
) -> Stack:
    template = ResolvedStack(repository)

    def named(kind: str, key: str) -> dict[str, dict[str, Any]]:
        found = template.of_type(kind).values()
        return dict(sorted((template.short_name(each[key]), each) for each in found))

    tables = named("AWS::DynamoDB::Table", "TableName")
    return Stack(
        keys={
            name: tuple(part["AttributeName"] for part in each["KeySchema"])
            for name, each in tables.items()
        },
        buckets=tuple(named("AWS::S3::Bucket", "BucketName")),
        queues=tuple(named("AWS::SQS::Queue", "QueueName")),
        variables=tuple(sorted({v for each in functions for v in template.environment(each)})),
    )


def schemas(stack: Stack) -> dict[str, dict[str, Any]]:
    return {
        "event": _document("event", _value("event", stack), {"$ref": "#/$defs/value"}),
        "given": _document("given", _value("given", stack), _given(stack)),
        "expect": _document("expect", _value("expect", stack), _expect(stack)),
    }


def _document(kind: str, value: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    about = {
        "event": "The event of a case, as the service sends it.",
        "given": "What must exist before a case, and is as it was before afterwards.",
        "expect": "What is expected of a case.",
    }
    return {
        "$schema": DIALECT,
        "$id": f"urn:jobplane:cases:{kind}",
        "title": f"Case{kind.capitalize()}",
        "description": about[kind],
        **body,
        "$defs": {"value": value, "text": {"type": "string", "allOf": [{"$ref": "#/$defs/value"}]}},
    }


def allowed(kind: str) -> tuple[Placeholder, ...]:
    """The placeholders that a kind of file may contain within a text."""
    return (*NAMES, LITERAL) if kind == "expect" else (*VALUES, *NAMES, LITERAL)


def _value(kind: str, stack: Stack) -> dict[str, Any]:
    """The schema of any JSON with known placeholders only."""
    text: dict[str, Any] = {"not": {"pattern": unknown(allowed(kind), stack.names)}}
    examples = [each.example for each in allowed(kind)]
    if kind == "expect":
        whole = MATCHED_WHOLE.format("|".join(p.pattern for p in MATCHERS if "+" not in p.pattern))
        text = {"anyOf": [{"pattern": whole}, {"pattern": MATCHED_PART}, text]}
        examples = [each.example for each in (*MATCHERS, *NAMES, LITERAL)]
    return {
        "examples": examples,
        "if": {"type": "string"},
        "then": text,
        "propertyNames": {"not": {"pattern": unknown(allowed(kind), stack.names)}},
        "additionalProperties": {"$ref": "#/$defs/value"},
        "items": {"$ref": "#/$defs/value"},
    }


def _object(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False} | more


def _texts() -> dict[str, Any]:
    return {
        "type": "object",
        "propertyNames": {"$ref": "#/$defs/value"},
        "additionalProperties": {"$ref": "#/$defs/text"},
    }


def _rows(keys: Iterable[str], *, exact: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "object", "$ref": "#/$defs/value", "required": list(keys)}
    if exact:
        row |= {"propertyNames": {"enum": list(keys)}}
    return {"type": "array", "items": row}


def _described(kind: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object with the keys of a kind, and `$schema` for editors."""
    about = {key: {"description": KEYS[kind][key], **each} for key, each in properties.items()}
    return _object(
        {"$schema": {"description": "The path of this schema.", "type": "string"}, **about}
    )


def _given(stack: Stack) -> dict[str, Any]:
    rows = {table: _rows(keys) for table, keys in stack.keys.items()}
    absent = {table: _rows(keys, exact=True) for table, keys in stack.keys.items()}
    return _described(
        "given",
        {
            "tables": _object(rows),
            "absent": _object(absent),
            "objects": _object({bucket: _texts() for bucket in stack.buckets}),
            "ssm": _texts(),
            "environment": _object({name: {"$ref": "#/$defs/text"} for name in stack.variables}),
            "only_in_process": {"type": "string"},
        },
    )


def _expect(stack: Stack) -> dict[str, Any]:
    row = {"type": "object", "$ref": "#/$defs/value", "not": ANYTHING}
    rows = {table: {"type": "array", "items": row, "minItems": 1} for table in stack.keys}
    line = {"$ref": "#/$defs/value", "not": {"anyOf": [ANYTHING, {"const": "<any>"}]}}
    return _described(
        "expect",
        {
            "answer": {"$ref": "#/$defs/value"},
            "error": {"type": "string"},
            "log": {"type": "array", "items": line, "minItems": 1},
            "items": _object(rows, minProperties=1),
        },
    ) | {"not": {"required": ["answer", "error"]}}


def parsed(text: bytes, source: str) -> Any:
    """The document of a file; `source` is the file's name in messages."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise UnreadableEventError(f"{source} is not JSON: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)!r} appears twice")
    return found


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def require_valid(kind: str, document: Any, source: str, stack: Stack) -> None:
    faults = list(dict.fromkeys(_faults(kind, document, stack)))
    if faults:
        raise UnreadableEventError("\n".join(f"{source}: {fault}" for fault in faults))


def _faults(kind: str, document: Any, stack: Stack) -> Iterator[str]:
    schema = schemas(stack)[kind]
    for error in _validator(json.dumps(schema)).iter_errors(document):
        path, rule, instance = list(error.instance_path), error.kind.name, error.instance
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        where = f"{where.removeprefix('.')}: " if where else ""
        if rule == "additionalProperties":
            known = list(_at(schema, path)["properties"])
            what = NAMED_KEYS.get(str(path[0]) if len(path) == 1 else "", "key")
            for key in error.kind.unexpected:
                yield f"{where}unknown {what} {key!r}; {nearest(key, known)}"
        elif rule == "required":
            yield f"{where}the table's key needs {error.kind.property!r}"
        elif rule == "propertyNames":
            name = str(error.kind.error.instance)
            faults = _unknown(kind, name, stack) or [f"{name!r} is not part of the table's key"]
            yield from (f"{where}{fault}" for fault in faults)
        elif isinstance(instance, str) and rule != "type" and instance != "<any>":
            yield from (f"{where}{fault}" for fault in _unknown(kind, instance, stack))
        else:
            yield f"{where}{_said('both' if rule == 'not' and not path else rule, error.message)}"
    if kind == "expect":
        yield from _broken_expressions(document)


def _said(rule: str, message: str) -> str:
    empty = "is empty, so it expects nothing: fill it, or remove the key"
    return {
        "minItems": empty,
        "minProperties": empty,
        "not": "matches everything: add a key that must be there, with its value or <any>",
        "both": "has both 'answer' and 'error': a function either returns or raises",
    }.get(rule, message)


def require_possible(expected: Any, source: str, texts: Sequence[str]) -> None:
    """Refuse `<absent>` for a key that no text of the code or the case has: it always matches."""
    faults = []
    for where, key, value in _leaves(expected):
        if value != "<absent>" or not isinstance(key, str):
            continue
        snake = re.sub(r"(?<=[a-z0-9])[A-Z]", lambda found: f"_{found[0].lower()}", key)
        named = rf"(?<![\w-])(?:{re.escape(key)}|{re.escape(snake)})(?![\w-])"
        if not any(re.search(named, text) for text in texts):
            words = sorted({word for text in texts for word in WORD.findall(text)})
            (meant,) = difflib.get_close_matches(key, words, n=1, cutoff=0)
            faults.append(
                f"{source}: {where}: {key!r} does not occur in the function or the libs, "
                f"so it is always absent; the nearest known word is {meant!r}"
            )
    if faults:
        raise UnreadableEventError("\n".join(faults))


def _leaves(document: Any, where: str = "", key: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """The place, the key or index, and the value of each leaf."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield from _leaves(value, f"{where}.{name}", name)
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from _leaves(value, f"{where}[{index}]", index)
    else:
        yield where.removeprefix("."), key, document


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    return jsonschema_rs.Draft202012Validator(json.loads(schema))


def _at(schema: Mapping[str, Any], path: Iterable[str | int]) -> Mapping[str, Any]:
    """The part of a schema for the value at a path."""
    for part in path:
        schema = schema["items"] if isinstance(part, int) else schema["properties"][part]
    return schema


def nearest(word: str, known: Sequence[str]) -> str:
    """The nearest known word, or all known words."""
    found = difflib.get_close_matches(word, known, n=1)
    return f"the nearest known one is {found[0]!r}" if found else f"known are {', '.join(known)}"


def _unknown(kind: str, text: str, stack: Stack) -> list[str]:
    """A message for each placeholder of a text that is unknown in this kind of file."""
    literal = f"a literal `<` is written {LITERAL.example}"
    faults = []
    for found in re.findall(unknown(allowed(kind), stack.names), text):
        if any(re.fullmatch(f"<(?:{each.pattern})>", found) for each in MATCHERS):
            place = "must be the whole text" if kind == "expect" else "is for expect files only"
            faults.append(f"{found!r} {place}")
        elif any(re.fullmatch(f"<(?:{each.pattern})>", found) for each in VALUES):
            faults.append(f"{found!r} is for events and given files only")
        else:
            faults.append(f"unknown placeholder {found!r}; {_meant(kind, found, stack)}; {literal}")
    return faults


def _meant(kind: str, found: str, stack: Stack) -> str:
    known = [each.example for each in (*MATCHERS, *allowed(kind)) if each.kind not in stack.names]
    if kind != "expect":
        known = [each.example for each in allowed(kind) if each.kind not in stack.names]
    known += [f"<{each}:{name}>" for each, names in stack.names.items() for name in names]
    bare = [re.sub(r"[+-]\d+>", ">", each) for each in known]
    (best, *_) = difflib.get_close_matches(found, known + bare, n=1, cutoff=0) or known
    return f"the nearest known one is {best!r}"


def _broken_expressions(document: Any) -> Iterator[str]:
    for where, _, text in _leaves(document):
        if isinstance(text, str) and text.startswith("<regex:"):
            try:
                re.compile(text.removeprefix("<regex:").removesuffix(">"))
            except re.error as error:
                yield f"{where}: {text!r} is not a regular expression: {error}"
