"""Hostile events: a function's own events with a few places changed.

JSON texts within an event (a socket message, a queue's body, a cause) are parsed and changed
inside, and a changed token is signed again, so that inputs reach the code behind the first check.
"""

import json
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from typing import Any

import jwt
from hypothesis import strategies as st
from jwt import api_jws

from jobplane.tree.resolved import JWT_SECRET

type Json = Any
type Edit = Callable[[Json], Json]

EDITS_AT_A_TIME = (1, 1, 1, 2, 2, 4, 0)
PLACE = st.integers(0, 2**16 - 1)
MOST_PLACES = 2000
DEEP = 2000
MANY = 17_500
MAX_OPENED = 70_000
# Look like ASCII letters, or become ones when normalised or lower-cased.
TWINS = {"a": "а", "e": "е", "i": "ı", "k": "K", "o": "ο", "s": "ſ", "#": "﹟", "-": "‐", "1": "１"}
NUMBERS = (
    0, -1, 1, 2**31, 2**53, 2**53 + 1, 2**63, -(2**63) - 1, 10**40, 10**130, 10**400, 10**4000,
    0.0, -0.0, 0.5, 1e-200, 1e100, 1e126, 1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "\n", "\r\n", "a\u2028b", "\ud800", "\udfff", "a\udc00", "\u202e", "\ufeff",
    "null", "true", "NaN", "{}", "[]", "__proto__", "__class__", "constructor", "../../etc/passwd",
    "%s%n{0}", "${jndi:ldap://x}", "'; DROP TABLE x--", "=1+1", "<script>", "#", "##", "a#b#c",
    "9999-12-31T23:59:59Z", "0000-00-00", "1e999", "-0", "٣", "²", "1_000", "0x10", "１２",
)  # fmt: skip
KEYS = (
    "", "a", "__proto__", "id", "action", "body", "headers", "kind", "operation", "payload",
    "requestContext", "Records", "S", "N", "M", "NULL", "\ud800", "detail-type", "sweep",
)  # fmt: skip


def nested(depth: int) -> Json:
    """Lists nested so deeply that unbounded recursion fails."""
    value: Json = 0
    for _ in range(depth):
        value = [value]
    return value


@cache
def leaves() -> st.SearchStrategy[Json]:
    """Values of every type, mostly edge cases."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(NUMBERS),
        st.sampled_from(TEXTS),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.text(string.printable, max_size=20),
        st.sampled_from(TEXTS).map(lambda text: text * MANY),
    )


@cache
def values() -> st.SearchStrategy[Json]:
    """Any JSON value, and values outside of JSON: NaN, single surrogates."""
    return st.one_of(
        leaves(),
        st.recursive(
            leaves(),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner, max_size=4)
            ),
            max_leaves=8,
        ),
        st.sampled_from((40, 200, DEEP)).map(nested),
    )


def hostile(draw: st.DrawFn, event: Json) -> Json:
    count = draw(st.sampled_from(EDITS_AT_A_TIME))
    if count == 0:
        return draw(values())
    for _ in range(count):
        places = [*islice(paths(event), 1, MOST_PLACES)] or [()]
        place = places[draw(PLACE) % len(places)]
        event = changed(event, place, draw(edits()))
        if isinstance(event, _Dropped | Renamed | Twice):
            return None
    return event


type Path = tuple[str | int | None, ...]


def paths(value: Json, depth: int = 12) -> Iterator[Path]:
    """The path of every place in a value; `None` enters a JSON text or a token."""
    yield ()
    if depth == 0:
        return
    inside = opened(value)
    if inside is not None:
        yield from ((None, *path) for path in paths(inside[0], depth - 1))
    for key in (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield from ((key, *path) for path in paths(value[key], depth - 1))


def changed(value: Json, path: Path, edit: Edit) -> Json:
    """A copy with one place changed; DROPPED removes an element or a member."""
    if not path:
        return edit(value)
    step, *rest = path
    if step is None:
        inside, closed = opened(value) or (None, str)
        return closed(changed(inside, tuple(rest), edit))
    part = changed(value[step], tuple(rest), edit)
    copy: Json = dict(value) if isinstance(value, dict) else list(value)
    if part is DROPPED:
        del copy[step]
    elif isinstance(part, Renamed) and isinstance(copy, dict):
        copy[part.name(str(step))] = copy.pop(step)
    elif isinstance(part, Twice):
        if isinstance(copy, list):
            copy.extend([value[step]] * part.times)
    else:
        copy[step] = part.value if isinstance(part, Renamed) else part
    return copy


class _Dropped:
    """Stands for a removed element or member."""


DROPPED = _Dropped()


@dataclass(frozen=True)
class Renamed:
    value: Json
    name: Callable[[str], str]


@dataclass(frozen=True)
class Twice:
    times: int


def opened(value: Json) -> tuple[Json, Callable[[Json], str]] | None:
    """The content of a JSON text or of a signed token, and a function that encodes it again."""
    if not isinstance(value, str) or len(value) > MAX_OPENED:
        return None
    if value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value), _json
        except (ValueError, RecursionError):
            return None
    scheme, _, token = value.rpartition(" ")
    if token.count(".") == 2 and token.startswith("ey"):
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError):
            return None
        return claims, partial(_token, scheme)
    return None


def _json(value: Json) -> str:
    try:
        return json.dumps(value, default=str)
    except (ValueError, RecursionError):
        return "[" * DEEP


def _token(scheme: str, claims: Json) -> str:
    signed = api_jws.encode(_json(claims).encode(), JWT_SECRET, algorithm="HS256")
    return f"{scheme} {signed}".strip()


@cache
def edits() -> st.SearchStrategy[Edit]:
    return st.one_of(
        st.just(lambda value: DROPPED),
        values().map(lambda new: lambda value: new),
        values().map(lambda new: lambda value: new),
        st.sampled_from((str.upper, str.title, "{} ".format, _twin)).map(
            lambda name: lambda value: Renamed(value, name)
        ),
        st.sampled_from((1, 7, 120)).map(lambda times: lambda value: Twice(times)),
        st.just(_retyped),
        st.just(lambda value: {"value": value}),
        st.just(_twin),
        st.tuples(st.sampled_from(TEXTS) | st.text(max_size=4), st.floats(0, 1)).map(
            partial(partial, _inserted)
        ),
        st.tuples(st.sampled_from(KEYS) | st.text(max_size=4), values()).map(
            partial(partial, _with_member)
        ),
    )


def _retyped(value: Json) -> Json:
    match value:
        case bool():
            return int(value)
        case str():
            return [value]
        case int() | float():
            return str(value)[:100] if abs(value) < 10**100 else value
        case list():
            return {str(index): part for index, part in enumerate(value)}
        case dict():
            return [[name, part] for name, part in value.items()]
    return ""


def _twin(value: Json) -> Json:
    if not isinstance(value, str):
        return value
    at = next((index for index, letter in enumerate(value) if letter in TWINS), None)
    return value + "\u0307" if at is None else value[:at] + TWINS[value[at]] + value[at + 1 :]


def _inserted(where: tuple[str, float], value: Json) -> Json:
    text, part = where
    if not isinstance(value, str):
        return value
    at = int(part * len(value))
    return value[:at] + text + value[at:]


def _with_member(member: tuple[str, Json], value: Json) -> Json:
    name, part = member
    return {**value, name: part} if isinstance(value, dict) else [value, part]
