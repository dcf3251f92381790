"""DynamoDB's expressions, compiled to functions over items in the typed form.

A condition becomes a function of the item and the values, an update a function that returns the
new item. What is compiled is kept by its text and names.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any

type Value = dict[str, Any]
type Item = dict[str, Value]
type Values = Mapping[str, Value]
type Path = tuple[str | int, ...]
type Operand = Callable[[Item, Values], Value | None]
type Condition = Callable[[Item, Values], bool]
type Action = Callable[[Item, Item, Values], None]
"""Changes the new item, by the item before the update and the values."""

_TOKEN = re.compile(r"\s*(<=|>=|<>|[-+=<>(),.\[\]]|[:#]?\w+)")
_SETS = frozenset({"SS", "NS", "BS"})


class ExpressionError(Exception):
    """An expression that DynamoDB would refuse, or that is not simulated."""


def condition(text: str, names: Mapping[str, str]) -> Condition:
    """The function of a ConditionExpression, a filter or a key condition."""
    return _condition(text, tuple(names.items()))


def without(text: str, names: Mapping[str, str], number: int) -> Condition:
    """The function of a condition one part of which does not restrict it."""
    return _condition(text, tuple(names.items()), number)


@cache
def parts(text: str) -> list[str]:
    """The parts of a condition: tests and comparisons, in their order."""
    parser = _Parser(text, _SameNames())
    parser.whole_condition()
    return parser.parts


@cache
def twins(text: str) -> list[list[int]]:
    """The numbers of a condition's parts, those together that make the same difference.

    Without one of the alternatives of an OR, the others restrict nothing, either.
    """
    parser = _Parser(text, _SameNames())
    parser.whole_condition()
    together = {number: numbers for numbers in parser.twins for number in numbers}
    return [
        found
        for number in range(len(parser.parts))
        if (found := together.get(number, [number]))[0] == number
    ]


def update(text: str, names: Mapping[str, str]) -> Callable[[Item, Values], Item]:
    """The function of an UpdateExpression: the item after it."""
    return _update(text, tuple(names.items()))


def paths(text: str, names: Mapping[str, str]) -> list[Path]:
    """The paths of a ProjectionExpression."""
    return _Parser(text, dict(names)).all_paths()


@cache
def _condition(
    text: str, names: tuple[tuple[str, str], ...], dropped: int | None = None
) -> Condition:
    return _Parser(text, dict(names), dropped).whole_condition()


@cache
def _update(text: str, names: tuple[tuple[str, str], ...]) -> Callable[[Item, Values], Item]:
    actions = _Parser(text, dict(names)).whole_update()

    def run(item: Item, values: Values) -> Item:
        new = dict(item)
        for action in actions:
            action(new, item, values)
        return new

    return run


def number(value: Value) -> Decimal:
    return Decimal(value["N"])


def get(item: Item, path: Path) -> Value | None:
    """The value at a path; None if the item has no such path."""
    found: Value | None = item.get(str(path[0]))
    for part in path[1:]:
        if found is None:
            return None
        if isinstance(part, int):
            parts = found.get("L", ())
            found = parts[part] if part < len(parts) else None
        else:
            found = found.get("M", {}).get(part)
    return found


def put(item: Item, path: Path, value: Value | None) -> None:
    """Set or remove the value at a path; containers on the way are copied."""
    container: Any = item
    for part in path[:-1]:
        inner = container.get(part) if isinstance(container, dict) else container[part]
        if inner is None or not inner.keys() & {"M", "L"}:
            raise ExpressionError("The document path is invalid for update")
        kind = "M" if "M" in inner else "L"
        copied = inner[kind].copy()
        container[part] = {kind: copied}
        container = copied
    last: Any = path[-1]
    if value is not None:
        if isinstance(container, list) and last >= len(container):
            container.append(value)
        else:
            container[last] = value
    elif isinstance(container, dict):
        container.pop(last, None)
    elif last < len(container):
        del container[last]


def equal(one: Value | None, other: Value | None) -> bool:
    if one is None or other is None or one.keys() != other.keys():
        return False
    kind = next(iter(one))
    if kind == "N":
        return number(one) == number(other)
    if kind in _SETS:
        return set(one[kind]) == set(other[kind])
    return bool(one == other)


def less(one: Value | None, other: Value | None) -> bool:
    """Whether both are of one type, and the first is the smaller."""
    if one is None or other is None or one.keys() != other.keys():
        return False
    kind = next(iter(one))
    if kind == "N":
        return number(one) < number(other)
    return kind in {"S", "B"} and one[kind] < other[kind]


def _size(value: Value) -> int:
    kind, content = next(iter(value.items()))
    return len(content.encode()) if kind == "S" else len(content)


def _contains(value: Value | None, part: Value | None) -> bool:
    if value is None or part is None:
        return False
    kind, content = next(iter(value.items()))
    sought = next(iter(part.values()))
    return part in content if kind == "L" else sought in content


class _SameNames(dict[str, str]):
    """Names of which each stands for itself."""

    def __missing__(self, name: str) -> str:
        return name


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str, names: Mapping[str, str], dropped: int | None = None) -> None:
        self._tokens: list[str] = _TOKEN.findall(text)
        if "".join(self._tokens) != re.sub(r"\s+", "", text):
            raise ExpressionError(f"not understood: {text}")
        self._names = names
        self._at = 0
        self.parts: list[str] = []
        """The parts of a condition that were read."""
        self.twins: list[list[int]] = []
        """The numbers of those parts that are alternatives to each other."""
        self._dropped = dropped
        self._is_negated = False

    # Tokens

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _word(self) -> str:
        return self._next().upper()

    def _take(self, *wanted: str) -> str:
        token = self._next()
        if wanted and token.upper() not in wanted:
            raise ExpressionError(f"expected {wanted}, found {token!r} in {self._tokens}")
        self._at += 1
        return token

    def _accept(self, *wanted: str) -> str:
        return self._take() if self._word() in wanted else ""

    # Paths and operands

    def all_paths(self) -> list[Path]:
        found = [self._path()]
        while self._accept(","):
            found.append(self._path())
        return found

    def _path(self) -> Path:
        parts: list[str | int] = [self._name()]
        while self._word() in {".", "["}:
            if self._accept("."):
                parts.append(self._name())
            else:
                self._take("[")
                parts.append(int(self._take()))
                self._take("]")
        return tuple(parts)

    def _name(self) -> str:
        token = self._take()
        if token.startswith("#"):
            return self._names[token]
        if not token.isidentifier():
            raise ExpressionError(f"not a name: {token!r}")
        return token

    def _operand(self) -> Operand:
        token = self._next()
        if token.startswith(":"):
            self._take()
            return lambda _item, values: values[token]
        if self._word() == "SIZE":
            return self._size_of()
        if self._word() in {"IF_NOT_EXISTS", "LIST_APPEND"}:
            return self._function_value()
        if self._accept("("):
            inner = self._sum()
            self._take(")")
            return inner
        path = self._path()
        return lambda item, _values: get(item, path)

    def _size_of(self) -> Operand:
        self._take("SIZE")
        self._take("(")
        inner = self._operand()
        self._take(")")

        def run(item: Item, values: Values) -> Value | None:
            found = inner(item, values)
            return None if found is None else {"N": str(_size(found))}

        return run

    def _function_value(self) -> Operand:
        name = self._take().lower()
        self._take("(")
        first = self._operand()
        self._take(",")
        second = self._sum()
        self._take(")")
        if name == "if_not_exists":

            def known(item: Item, values: Values) -> Value | None:
                found = first(item, values)
                return second(item, values) if found is None else found

            return known

        def appended(item: Item, values: Values) -> Value | None:
            lists = [operand(item, values) for operand in (first, second)]
            if None in lists:
                raise ExpressionError("An operand in the update expression has no value")
            return {"L": [part for found in lists if found for part in found["L"]]}

        return appended

    def _sum(self) -> Operand:
        total = self._operand()
        while sign := self._accept("+", "-"):
            total = _plus(total, self._operand(), 1 if sign == "+" else -1)
        return total

    # Conditions

    def whole_condition(self) -> Condition:
        found = self._or()
        self._end()
        return found

    def _end(self) -> None:
        if self._next():
            raise ExpressionError(f"not understood: {self._next()!r} in {self._tokens}")

    def _or(self) -> Condition:
        parts = self._listed("OR", self._and, is_free=not self._is_negated)
        return parts[0] if len(parts) == 1 else lambda i, v: any(part(i, v) for part in parts)

    def _and(self) -> Condition:
        parts = self._listed("AND", self._not, is_free=self._is_negated)
        return parts[0] if len(parts) == 1 else lambda i, v: all(part(i, v) for part in parts)

    def _listed(
        self, word: str, operand: Callable[[], Condition], *, is_free: bool
    ) -> list[Condition]:
        """Operands of OR or AND; `is_free`: without one of them, all is met."""
        found, single = list[Condition](), list[int]()
        while not found or self._accept(word):
            begin = len(self.parts)
            found.append(operand())
            single += [begin] * (len(self.parts) == begin + 1)
        if is_free and len(found) > 1 and single:
            self.twins.append(single)
        return found

    def _not(self) -> Condition:
        if self._accept("NOT"):
            self._is_negated = not self._is_negated
            inner = self._not()
            self._is_negated = not self._is_negated
            return lambda item, values: not inner(item, values)
        if self._next() == "(":
            self._take()
            inside = self._or()
            self._take(")")
            return inside
        begin = self._at
        found = self._test() if self._word().lower() in _TESTS else self._comparison()
        words = " ".join(self._tokens[begin : self._at])
        self.parts.append(re.sub(r" ?([(.]) | ([),])", r"\1\2", words))
        if self._dropped != len(self.parts) - 1:
            return found
        is_met = not self._is_negated
        return lambda _item, _values: is_met

    def _test(self) -> Condition:
        name = self._take().lower()
        self._take("(")
        arguments = [self._operand()]
        while self._accept(","):
            arguments.append(self._operand())
        self._take(")")
        test = _TESTS[name]
        return lambda item, values: test(*(argument(item, values) for argument in arguments))

    def _comparison(self) -> Condition:
        left = self._operand()
        operator = self._take().upper()
        if operator == "BETWEEN":
            low = self._operand()
            self._take("AND")
            high = self._operand()
            return lambda i, v: (
                not less(left(i, v), low(i, v))
                and not less(high(i, v), left(i, v))
                and left(i, v) is not None
            )
        if operator == "IN":
            self._take("(")
            options = [self._operand()]
            while self._accept(","):
                options.append(self._operand())
            self._take(")")
            return lambda i, v: any(equal(left(i, v), option(i, v)) for option in options)
        compare = _COMPARISONS[operator]
        right = self._operand()
        return lambda item, values: compare(left(item, values), right(item, values))

    # Updates

    def whole_update(self) -> list[Action]:
        actions: list[Action] = []
        while self._next():
            clause = self._take("SET", "REMOVE", "ADD", "DELETE").upper()
            actions.append(self._action(clause))
            while self._accept(","):
                actions.append(self._action(clause))
        return actions

    def _action(self, clause: str) -> Action:
        path = self._path()
        if clause == "SET":
            self._take("=")
            value = self._sum()

            def assign(new: Item, item: Item, values: Values) -> None:
                found = value(item, values)
                if found is None:
                    raise ExpressionError("An operand in the update expression has no value")
                put(new, path, found)

            return assign
        if clause == "REMOVE":
            return lambda new, _item, _values: put(new, path, None)
        operand = self._operand()
        if clause == "ADD":
            return lambda new, item, values: put(
                new, path, _added(get(item, path), operand(item, values))
            )
        return lambda new, item, values: put(
            new, path, _without(get(item, path), operand(item, values))
        )


def _plus(one: Operand, other: Operand, sign: int) -> Operand:
    def run(item: Item, values: Values) -> Value | None:
        left, right = one(item, values), other(item, values)
        if left is None or right is None:
            raise ExpressionError("An operand in the update expression has no value")
        return {"N": str(number(left) + sign * number(right))}

    return run


def _added(old: Value | None, more: Value | None) -> Value | None:
    if old is None or more is None:
        return more
    kind = next(iter(more))
    if kind == "N":
        return {"N": str(number(old) + number(more))}
    return {kind: [*old[kind], *(part for part in more[kind] if part not in old[kind])]}


def _without(old: Value | None, less_: Value | None) -> Value | None:
    if old is None or less_ is None:
        return old
    kind = next(iter(less_))
    rest = [part for part in old[kind] if part not in less_[kind]]
    return {kind: rest} if rest else None


_TESTS: dict[str, Callable[..., bool]] = {
    "attribute_exists": lambda value: value is not None,
    "attribute_not_exists": lambda value: value is None,
    "attribute_type": lambda value, kind: value is not None and kind["S"] in value,
    "begins_with": lambda value, start: (
        value is not None and "S" in value and value["S"].startswith(start["S"])
    ),
    "contains": _contains,
}
_COMPARISONS: dict[str, Callable[[Value | None, Value | None], bool]] = {
    "=": equal,
    # An attribute that is missing differs from every value.
    "<>": lambda one, other: not equal(one, other),
    "<": less,
    ">": lambda one, other: less(other, one),
    "<=": lambda one, other: less(one, other) or (equal(one, other)),
    ">=": lambda one, other: less(other, one) or (equal(one, other)),
}
