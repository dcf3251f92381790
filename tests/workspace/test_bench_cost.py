"""The billing rules of `bench cost`, by AWS's own examples, and the tables in the documentation."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from jobplane.bench import _billing as billing
from jobplane.bench import cost
from jobplane.bench._billing import Prices
from jobplane.bench._report import markdown
from jobplane.tree.repository import Repository

EAST = Prices.read("us-east-1")
KB = 1024


def entry(size: int, key: str = "a", content: str = "x") -> dict[str, Any]:
    return {"bytes": size, "key": key, "content": content}


@pytest.mark.parametrize(
    ("before", "after", "in_transaction", "units"),
    [
        (0, KB, False, 1),  # a standard write of 1 KB
        (0, 3 * KB, False, 3),  # of 3 KB
        (0, 3 * KB, True, 6),  # a transactional write of 3 KB
        (0, KB + 1, False, 2),
        (5 * KB, KB, False, 5),  # an update is billed by the larger item
        (0, 0, False, 1),  # a delete of what does not exist
    ],
)
def test_a_write_is_billed_by_the_kilobytes_it_begins(
    before: int, after: int, in_transaction: bool, units: int
) -> None:
    assert billing.write_units(before, after, in_transaction=in_transaction) == units


@pytest.mark.parametrize(
    ("size", "options", "units"),
    [
        (8 * KB, {"consistent": True}, "2"),
        (8 * KB, {}, "1"),
        (8 * KB, {"in_transaction": True}, "4"),
        (0, {}, "0.5"),
    ],
)
def test_a_read_is_billed_by_four_kilobytes(
    size: int, options: Mapping[str, bool], units: str
) -> None:
    assert billing.read_units(size, **options) == Decimal(units)


@pytest.mark.parametrize(
    ("before", "after", "units"),
    [
        (None, None, 0),  # the item has no entry before and after
        (None, entry(KB), 1),  # put into the index
        (entry(KB), entry(KB, key="b"), 2),  # its key changes: a delete and a put
        (entry(KB), None, 1),  # deleted from the index
        (entry(KB), entry(KB), 0),  # nothing that is projected changes
        (entry(KB), entry(KB, content="y"), 1),  # a projected attribute changes
    ],
)
def test_an_index_is_billed_for_what_changes_in_it(
    before: dict[str, Any] | None, after: dict[str, Any] | None, units: int
) -> None:
    assert billing.index_units(before, after) == units
    assert billing.index_units(before, after, in_transaction=True) == 2 * units


def test_a_write_has_the_units_of_its_table_and_of_all_indexes() -> None:
    write = {
        "before": {"bytes": KB, "entries": {"moved": entry(10), "left": entry(10)}},
        "after": {"bytes": 2 * KB, "entries": {"moved": entry(10, "b"), "new": entry(10)}},
    }
    assert billing.units_of_write(write, in_transaction=False) == 2 + 2 + 1 + 1


def test_sizes_begin_units() -> None:
    """A message of 33 KB is metered as two, an answer of 513 KB of an HTTP API as well."""
    assert [billing.socket_messages(size * KB) for size in (0, 32, 33)] == [1, 1, 2]
    assert [billing.http_requests(size * KB) for size in (512, 513)] == [1, 2]
    assert [billing.queue_requests(size * KB) for size in (64, 65, 256)] == [1, 2, 4]


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        # Step Functions: 4 transitions, 100,000 executions, before the free tier.
        ({"transitions": 400_000}, "10.00"),
        # WebSocket: 1,000 users with a socket for 12 hours a day, 30 days.
        ({"connection_minutes": 1_000 * 12 * 60 * 30}, "5.40"),
        # Half a gigabyte-second a million times on arm64, and their requests.
        ({"invocations": 1_000_000, "gb_seconds": 500_000}, "6.8667"),
        ({"write_units": 3_550_000, "read_units": 3_550_000}, "2.6625"),
        ({"log_bytes": 2 * 1024**3}, "1.00"),
    ],
)
def test_prices_are_of_a_million_and_of_a_gigabyte(usage: Any, dollars: str) -> None:
    assert sum(EAST.cost(usage).values()) == Decimal(dollars)


def test_a_smaller_function_computes_longer_for_the_same_price() -> None:
    """Until it has a whole processor; waiting takes the same time at every size."""
    assert billing.billed_ms(Decimal("17.69"), 1769) == 18
    assert billing.billed_ms(Decimal("17.69"), 10240) == 18
    small, large = (billing.billed_ms(Decimal("17.69"), size) for size in (128, 512))
    assert (small, large) == (245, 62)
    assert billing.billed_ms(10, 128, 100) - billing.billed_ms(10, 128) == 100
    assert billing.gb_seconds(1000, 512) == Decimal("0.5")


def test_the_quoted_price_of_a_look_up() -> None:
    """Requests and 30 ms at 512 MB on x86, 0.0000166667 dollars a GB-second: 0.45 a million."""
    assert billing.gb_seconds(30, 512) * Decimal("16.6667") + Decimal("0.20") == pytest.approx(
        Decimal("0.45"), abs=Decimal("0.001")
    )


@pytest.mark.parametrize("region", billing.regions())
def test_every_unit_has_a_price_in_every_region(region: str) -> None:
    prices = Prices.read(region)
    assert prices.of.keys() == EAST.of.keys()
    assert all(price > 0 for price in prices.of.values())


def test_the_tables_in_the_documentation_are_of_the_recording_prices_and_sizes() -> None:
    """Otherwise: uv run jobplane bench cost --recorded --write docs/performance.md"""
    repository = Repository.here()
    used = json.loads(cost.RECORDED.read_text())
    memory = {one.name: int(one.config["memorySize"]) for one in repository.functions()}
    report = cost.report(used, Prices.read(cost.REGION), memory)
    text = "\n\n".join(markdown(table) for table in report.tables)
    documented = re.search(
        r"<!-- bench cost -->\n\n(.*?)\n\n<!-- /bench cost -->",
        (repository.root / "docs/performance.md").read_text(),
        re.DOTALL,
    )
    assert documented is not None
    assert documented[1] == text
