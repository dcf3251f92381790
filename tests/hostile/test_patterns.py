"""Every regular expression matches hostile text in linear time."""

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USES = frozenset({"compile", "findall", "finditer", "fullmatch", "match", "search", "split", "sub"})
PUMPS = tuple('aA0 -._#:/,\n\t=%"\\ä')
PAIRS = ("a.", "0.", "a-", "a ", " ,", "0x", "a#", "--", "a:", "{}", "::", "%20", "0.0.", "a=b;")
ENDS = ("", "!", "\0")
SHORT, LONG = 2_000, 8_000
# Four times the text takes four times as long if linear, sixteen times if quadratic.
MOST = 10
# Below that, in seconds, the clock is too coarse to compare.
SURELY_FAST = 0.004


def patterns() -> dict[str, str]:
    """The patterns of the functions and the libraries, each once, by where it is written.

    One that is only ever matched as a whole is anchored here, as it is there.
    """
    sources = [*ROOT.glob("functions/*/*.py"), *ROOT.glob("libs/*/src/jobplane_*/**/*.py")]
    places = {
        text: f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(sources)
        for line, text in _patterns_of(ast.parse(path.read_text(encoding="utf-8")))
    }
    return {place: text for text, place in places.items()}


def _patterns_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="re"), attr=attr), args=[first, *_]
            ) if attr in USES:
                value = first.value if isinstance(first, ast.Constant) else None
                name = first.id if isinstance(first, ast.Name) else None
                text = value if value is not None else constants.get(name or "")
                if isinstance(text, str):
                    # Compiled patterns are matched as a whole everywhere.
                    whole = attr in {"compile", "fullmatch"}
                    yield node.lineno, rf"\A(?:{text})\Z" if whole else text
                else:  # an operator's glob, each letter escaped
                    assert "re.escape" in ast.unparse(first), f"line {node.lineno}: no constant"


def seconds(pattern: re.Pattern[str], text: str, times: int = 1) -> float:
    """CPU time of a search in a text, the best of several."""
    best = float("inf")
    for _ in range(times):
        before = time.thread_time()
        pattern.search(text)
        best = min(best, time.thread_time() - before)
    return best


def growth(pattern: re.Pattern[str]) -> tuple[float, str]:
    """The largest factor by which four times the text takes longer, and that text."""
    worst = (0.0, "")
    for pump in PUMPS + PAIRS:
        for start in ("", "a"):
            for end in ENDS:
                texts = [start + pump * (size // len(pump)) + end for size in (SHORT, LONG)]
                if seconds(pattern, texts[1]) > SURELY_FAST:
                    short, long = (seconds(pattern, text, 3) for text in texts)
                    worst = max(worst, (long / short, f"{start!r} + {pump!r} * n + {end!r}"))
    return worst


def test_the_patterns_are_found() -> None:
    """At least those of ids, which every caller can reach."""
    found = set(patterns().values())
    assert {r"\A(?:[A-Za-z0-9_-]{1,128})\Z", r"\A(?:[!-~]{1,128})\Z"} <= found
    assert len(found) > 15


def test_a_quadratic_pattern_is_found() -> None:
    assert growth(re.compile(r"a+b"))[0] > MOST


@pytest.mark.parametrize("place", patterns())
def test_every_pattern_is_linear_for_hostile_texts(place: str) -> None:
    ratio, text = growth(re.compile(patterns()[place]))
    assert ratio <= MOST, text
