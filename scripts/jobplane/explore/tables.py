"""DynamoDB's tables in memory: the operations that the functions use, on items in the typed form.

moto does the same completely, in some milliseconds a call; a schedule has dozens of calls, and an
exploration thousands of schedules. `tests/unit/test_explore.py` compares both.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobplane.explore.expressions import (
    Condition,
    ExpressionError,
    Item,
    condition,
    get,
    number,
    paths,
    put,
    update,
    without,
)

type Row = dict[str, Any]
type Key = tuple[Any, ...]
type IsDropped = Callable[[str, str, bool, Callable[[int], bool]], bool]
type Observer = Callable[["Table", Item | None, Item | None], None]

CHECK_FAILED = "ConditionalCheckFailedException"
MAX_ITEM_BYTES = 400 * 1024


class RefusedCallError(Exception):
    """An error answer of a service."""

    def __init__(
        self, code: str, message: str = "", status: int = 400, answer: Row | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.answer = answer or {}


@dataclass
class Table:
    """One table, with its keys and those of its indexes."""

    name: str
    key: tuple[str, ...]
    indexes: Mapping[str, tuple[str, ...]]
    ttl: str = ""
    """The attribute with the moment from which DynamoDB may remove an item."""
    items: dict[Key, Item] = field(default_factory=dict)

    @classmethod
    def declared(cls, properties: Mapping[str, Any]) -> "Table":
        """The table that CloudFormation's properties declare."""
        return cls(
            properties["TableName"],
            _key_names(properties["KeySchema"]),
            {
                index["IndexName"]: _key_names(index["KeySchema"])
                for kind in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")
                for index in properties.get(kind, ())
            },
            properties.get("TimeToLiveSpecification", {}).get("AttributeName", ""),
        )

    def end_of(self, item: Item) -> float:
        """When an item expires."""
        return float(item.get(self.ttl, {}).get("N", "inf"))

    def key_of(self, item: Item) -> Key:
        return _values(item, self.key)

    def sorted_items(self, index: str | None = None) -> list[Item]:
        """The items in the order of a key; an index has only those with all of its attributes."""
        names = self.indexes[index] if index else self.key
        found = [item for item in self.items.values() if all(name in item for name in names)]
        return sorted(found, key=lambda item: (_values(item, names[1:]), self.key_of(item)))


def _key_names(schema: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    return tuple(part["AttributeName"] for part in schema)


def _values(item: Item, names: Iterable[str]) -> Key:
    return tuple(
        number(item[name]) if "N" in item[name] else next(iter(item[name].values()))
        for name in names
    )


class Tables:
    """The tables of a stage. An observer hears of each change with the item before and after."""

    def __init__(self, tables: Iterable[Table]) -> None:
        self.by_name = {table.name: table for table in tables}
        self.observers: list[Observer] = []
        self.clock: Callable[[], float] = lambda: 0.0
        self._log: list[tuple[float, Table, Key, Item | None]] = []
        """Each change: when, of which item, and what was there before."""
        self._first_end = float("inf")
        self.is_dropped: IsDropped = lambda *_: False
        """Whether a condition counts as met, for mutants: by its table, its text, if it is met, and
        if it were without a part."""
        self.is_forgotten: Callable[[str, str], bool] = lambda _table, _condition: False
        """Whether the refusal of a write's repetition leaves out its own id; for mutants."""

    def empty(self) -> None:
        for table in self.by_name.values():
            table.items.clear()

    def perform(self, operation: str, parameters: Row) -> Row:
        """The answer to an operation. Raises RefusedCallError."""
        try:
            answer: Row = getattr(self, f"_{operation}")(parameters)
        except ExpressionError as error:
            raise RefusedCallError("ValidationException", str(error)) from error
        return answer

    def perform_late(self, operation: str, parameters: Row, moment: float) -> Row:
        """The answer to a read that does not show what was written after a moment."""
        kept = {name: dict(table.items) for name, table in self.by_name.items()}
        for when, table, key, old in reversed(self._log):
            if when <= moment:
                break
            if old is None:
                table.items.pop(key, None)
            else:
                table.items[key] = old
        try:
            return self.perform(operation, parameters)
        finally:
            for name, items in kept.items():
                self.by_name[name].items = items

    def expired(self) -> list[tuple[Table, Key]]:
        """The items that may be removed at any time."""
        now = self.clock()
        if now < self._first_end:
            return []
        tables = self.by_name.values()
        return [(t, key) for t in tables for key, item in t.items.items() if t.end_of(item) <= now]

    def expire(self) -> None:
        """Remove what has expired."""
        for table, key in self.expired():
            self._store(table, key, None)

    def _met(self, parameters: Row, item: Item | None) -> bool:
        text = parameters.get("ConditionExpression")
        if text is None:
            return True
        names = parameters.get("ExpressionAttributeNames", {})
        given = (item or {}, parameters.get("ExpressionAttributeValues", {}))
        is_met = condition(text, names)(*given)

        def would_be(number: int) -> bool:
            return without(text, names, number)(*given)

        return self.is_dropped(parameters["TableName"], _named(text, names), is_met, would_be) or (
            is_met
        )

    def _check(self, parameters: Row, item: Item | None) -> None:
        if not self._met(parameters, item):
            wanted = parameters.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
            answer = {"Item": dict(item)} if wanted and item is not None else {}
            text = _named(
                parameters["ConditionExpression"], parameters.get("ExpressionAttributeNames", {})
            )
            mark = _own_mark(parameters, answer.get("Item", {}))
            if mark and self.is_forgotten(parameters["TableName"], text):
                answer["Item"] = {n: v for n, v in answer["Item"].items() if n != mark}
            raise RefusedCallError(CHECK_FAILED, "The conditional request failed", answer=answer)

    def _store(self, table: Table, key: Key, new: Item | None) -> None:
        old = table.items.get(key)
        if new is None:
            table.items.pop(key, None)
        else:
            table.items[key] = new
        if old != new:
            self._log.append((self.clock(), table, key, old))
            self._first_end = min(self._first_end, table.end_of(new or {}))
            for observe in self.observers:
                observe(table, old, new)

    # Single items

    def _GetItem(self, parameters: Row) -> Row:
        table = self.by_name[parameters["TableName"]]
        item = table.items.get(table.key_of(parameters["Key"]))
        return {} if item is None else {"Item": _projected(item, parameters)}

    def _PutItem(self, parameters: Row) -> Row:
        table = self.by_name[parameters["TableName"]]
        key = table.key_of(parameters["Item"])
        old = table.items.get(key)
        self._check(parameters, old)
        self._store(table, key, dict(parameters["Item"]))
        return _attributes(parameters, old, None)

    def _DeleteItem(self, parameters: Row) -> Row:
        table = self.by_name[parameters["TableName"]]
        key = table.key_of(parameters["Key"])
        old = table.items.get(key)
        self._check(parameters, old)
        self._store(table, key, None)
        return _attributes(parameters, old, None)

    def _UpdateItem(self, parameters: Row) -> Row:
        table = self.by_name[parameters["TableName"]]
        key = table.key_of(parameters["Key"])
        old = table.items.get(key)
        self._check(parameters, old)
        new = _updated(parameters, old)
        self._store(table, key, new)
        return _attributes(parameters, old, new)

    # Several items

    def _TransactWriteItems(self, parameters: Row) -> Row:
        planned: list[tuple[Table, Key, Item | None]] = []
        reasons: list[Row] = []
        for entry in parameters["TransactItems"]:
            kind, part = next(iter(entry.items()))
            table = self.by_name[part["TableName"]]
            key = table.key_of(part["Item"] if kind == "Put" else part["Key"])
            old = table.items.get(key)
            met = self._met(part, old)
            reasons.append({"Code": "None" if met else "ConditionalCheckFailed"})
            if met and kind != "ConditionCheck":
                new = {"Put": lambda p, _: dict(p["Item"]), "Update": _updated}.get(kind)
                planned.append((table, key, new(part, old) if new else None))
        if any(reason["Code"] != "None" for reason in reasons):
            raise RefusedCallError(
                "TransactionCanceledException", "cancelled", answer={"CancellationReasons": reasons}
            )
        for table, key, item in planned:
            self._store(table, key, item)
        return {}

    def _BatchGetItem(self, parameters: Row) -> Row:
        found: dict[str, list[Item]] = {}
        for name, wanted in parameters["RequestItems"].items():
            table = self.by_name[name]
            items = [table.items.get(table.key_of(key)) for key in wanted["Keys"]]
            found[name] = [_projected(item, wanted) for item in items if item is not None]
        return {"Responses": found, "UnprocessedKeys": {}}

    def _Query(self, parameters: Row) -> Row:
        table = self.by_name[parameters["TableName"]]
        names = parameters.get("ExpressionAttributeNames", {})
        wanted = condition(parameters["KeyConditionExpression"], names)
        return self._page(table, parameters, wanted)

    def _Scan(self, parameters: Row) -> Row:
        return self._page(self.by_name[parameters["TableName"]], parameters, lambda *_: True)

    def _page(self, table: Table, parameters: Row, wanted: Condition) -> Row:
        values = parameters.get("ExpressionAttributeValues", {})
        names = parameters.get("ExpressionAttributeNames", {})
        index = parameters.get("IndexName")
        found = [item for item in table.sorted_items(index) if wanted(item, values)]
        if not parameters.get("ScanIndexForward", True):
            found.reverse()
        if (start := parameters.get("ExclusiveStartKey")) is not None:
            keys = [table.key_of(item) for item in found]
            key = table.key_of(start)
            found = found[keys.index(key) + 1 :] if key in keys else found
        limit = parameters.get("Limit", len(found))
        page = found[:limit]
        answer: Row = {}
        if len(found) > limit:
            shown = {*table.key, *(table.indexes[index] if index else ())}
            answer["LastEvaluatedKey"] = {name: page[-1][name] for name in shown}
        if text := parameters.get("FilterExpression"):
            fits = condition(text, names)
            page = [item for item in page if fits(item, values)]
        answer["Count"] = len(page)
        if parameters.get("Select") != "COUNT":
            answer["Items"] = [_projected(item, parameters) for item in page]
        return answer


def _named(text: str, names: Mapping[str, str]) -> str:
    """A condition in which each name stands for itself."""
    return re.sub(r"#\w+", lambda found: f"#{names[found[0]]}", text)


def _own_mark(parameters: Row, item: Item) -> str:
    """The attribute by which a write finds that an item is its own result; empty if it is not."""
    values = parameters.get("ExpressionAttributeValues", {})
    sent = {name: values.get(f":{name}") for name in item} | parameters.get("Item", {})
    return next((n for n in item if n.endswith("write_id") and item[n] == sent[n]), "")


def _updated(parameters: Row, old: Item | None) -> Item:
    change = update(parameters["UpdateExpression"], parameters.get("ExpressionAttributeNames", {}))
    return change(old or dict(parameters["Key"]), parameters.get("ExpressionAttributeValues", {}))


def _projected(item: Item, parameters: Row) -> Item:
    text = parameters.get("ProjectionExpression")
    if text is None:
        return dict(item)
    shown: Item = {}
    for path in paths(text, parameters.get("ExpressionAttributeNames", {})):
        value = get(item, path)
        if value is not None:
            for depth in range(1, len(path)):
                if get(shown, path[:depth]) is None:
                    put(shown, path[:depth], {"M": {}})
            put(shown, path, value)
    return shown


def _attributes(parameters: Row, old: Item | None, new: Item | None) -> Row:
    wanted = parameters.get("ReturnValues", "NONE")
    item = {"ALL_OLD": old, "ALL_NEW": new, "UPDATED_NEW": new, "UPDATED_OLD": old}.get(wanted)
    return {} if item is None else {"Attributes": dict(item)}
