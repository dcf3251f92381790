"""AWS's billing rules, without any measurement: units of what was used, and their prices.

Sizes are bytes, money is US dollars as Decimal. The rules are those of AWS's documentation: the
developer guide of DynamoDB ("Read and write capacity modes", "Using Global Secondary Indexes"), and
the pricing pages that prices.toml names.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

PRICES = Path(__file__).with_name("prices.toml")
MILLION = Decimal(1_000_000)
GIGABYTE = Decimal(1024**3)
WRITE_BYTES, READ_BYTES = 1024, 4096
SOCKET_BYTES, HTTP_BYTES, QUEUE_BYTES = 32 * 1024, 512 * 1024, 64 * 1024
# Lambda gives a function one whole processor at this size, and a part of it below.
WHOLE_PROCESSOR_MB = Decimal(1769)
# X-Ray records one request a second and this part of all others, unless a rule says otherwise.
TRACED = Decimal("0.05")

type Number = Decimal | int | float


@dataclass(frozen=True)
class Prices:
    region: str
    as_of: str
    of: Mapping[str, Decimal]

    @classmethod
    def read(cls, region: str) -> "Prices":
        """Raises KeyError if the list does not have the region."""
        found = tomllib.loads(PRICES.read_text(encoding="utf-8"))
        table = {name: Decimal(value) for name, value in found[region].items()}
        return cls(region, found["as_of"], table)

    def cost(self, usage: Mapping[str, Number]) -> dict[str, Decimal]:
        """US dollars by unit. `log_bytes` are priced by the gigabyte, all others by the million."""
        found = {}
        for name, number in usage.items():
            if name == "log_bytes":
                found[name] = _exact(number) / GIGABYTE * self.of["log_gigabyte"]
            else:
                found[name] = _exact(number) / MILLION * self.of[name]
        return found


def regions() -> list[str]:
    found = tomllib.loads(PRICES.read_text(encoding="utf-8"))
    return sorted(found.keys() - {"as_of", "sources"})


def write_units(before: int, after: int, *, in_transaction: bool = False) -> int:
    """Of one write: by the larger of the item before and after it; a refused one is billed too."""
    return _begun(max(before, after), WRITE_BYTES) * (2 if in_transaction else 1)


def read_units(size: int, *, consistent: bool = False, in_transaction: bool = False) -> Decimal:
    units = Decimal(_begun(size, READ_BYTES))
    if in_transaction:
        return units * 2
    return units if consistent else units / 2


def index_units(
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    *,
    in_transaction: bool = False,
) -> int:
    """Of one index: an entry that moves is deleted and put; one that stays as it is costs nothing.

    An entry has `bytes`, `key` and `content`; None: the item has no entry.
    """
    if before == after:
        return 0
    if before is None or after is None or before["key"] == after["key"]:
        sizes = [max(entry["bytes"] for entry in (before, after) if entry is not None)]
    else:
        sizes = [before["bytes"], after["bytes"]]
    return sum(write_units(0, size, in_transaction=in_transaction) for size in sizes)


def units_of_write(write: Mapping[str, Any], *, in_transaction: bool) -> int:
    """Of the table and all of its indexes."""
    before, after = write["before"], write["after"]
    entries = before["entries"], after["entries"]
    of_indexes = sum(
        index_units(*(of.get(name) for of in entries), in_transaction=in_transaction)
        for name in entries[0].keys() | entries[1].keys()
    )
    of_table = write_units(before["bytes"], after["bytes"], in_transaction=in_transaction)
    return of_table + of_indexes


def socket_messages(size: int) -> int:
    return _begun(size, SOCKET_BYTES)


def http_requests(size: int) -> int:
    return _begun(size, HTTP_BYTES)


def queue_requests(size: int) -> int:
    """Of a call with one or several messages, by the bytes of all of them."""
    return _begun(size, QUEUE_BYTES)


def billed_ms(processor_ms: Number, memory_mb: int, waiting_ms: Number = 0) -> Decimal:
    """The duration of an invocation that computes so long on a whole processor, and waits.

    A Python function uses one processor at most. Billed durations are whole milliseconds.
    """
    share = min(Decimal(1), Decimal(memory_mb) / WHOLE_PROCESSOR_MB)
    whole = _exact(processor_ms) / share + _exact(waiting_ms)
    return whole.to_integral_value(ROUND_CEILING)


def gb_seconds(milliseconds: Number, memory_mb: int) -> Decimal:
    return _exact(milliseconds) / 1000 * memory_mb / 1024


def _begun(size: int, unit: int) -> int:
    """How many units a size begins; an empty one begins the first."""
    return max(1, -(-size // unit))


def _exact(number: Number) -> Decimal:
    return number if isinstance(number, Decimal) else Decimal(str(number))
