"""Remove text from Markdown about functions, libs and parts that a project does not have."""

import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

FENCE = re.compile(r"^\s*```")
HEADING = re.compile(r"^(#+) ")
ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) ")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
# A link in parentheses: `(decision 31)`.
REMARK = re.compile(r"\s\(\[[^\]]+\]\(([^)\s]+)\)\)")
SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z`*\[])")
# Sentences that begin so continue the sentence before.
GOES_ON = re.compile(
    r"(?:It|Its|They|Their|This|That|These|Those|Both|Each|So|Then|Otherwise|There|Such|Neither)\b"
)
# Text about the whole repository: from here to `<!-- end -->`.
WHOLE = re.compile(r"^<!-- whole tree -->\n.*?^<!-- end -->\n+", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(
    r"^(?P<before> *(?:uv run )?jobplane (?P<verb>[a-z-]+) )(?P<given>[^\s|$#>]+(?: [^\s|$#>]+)*)"
    r"(?P<space> *)(?P<comment>[#>].*)?$",
    re.MULTILINE,
)
VARIABLE = re.compile(r"^name=([a-z-]+)$", re.MULTILINE)
# Verbs whose second argument is a case of the function.
CASED = frozenset({"event", "invoke"})
# Names of functions that are everyday words: only in code spans and paths they mean functions.
EVERYDAY = frozenset({"claim", "connect", "disconnect", "status"})
# If less than this is left of a page, the page is removed.
LEAST_LEFT = 0.4


@dataclass(frozen=True)
class Block:
    """Lines that belong together, with their place in the page."""

    place: int
    lines: tuple[str, ...]
    is_before_blank: bool

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def heading(self) -> int:
        """The level of a heading; 0 for other blocks."""
        found = HEADING.match(self.lines[0])
        return len(found[1]) if found else 0

    @property
    def is_marker(self) -> bool:
        return self.lines[0].startswith("<!--")

    @property
    def is_table(self) -> bool:
        return self.lines[0].startswith("|")

    @property
    def is_fence(self) -> bool:
        return FENCE.match(self.lines[0]) is not None

    @property
    def kind(self) -> str:
        """What it is, as far as a paragraph before it may lead to it."""
        is_item = ITEM.match(self.lines[0]) is not None
        return "fence" if self.is_fence else "table" if self.is_table else f"item: {is_item}"

    def without_sentences(self, says: "Says") -> "Block | None":
        """Prose without matching sentences and their continuations.

        If the first sentence matches, nothing is left, because the others refer to it.
        """
        found = ITEM.match(self.text)
        mark = found[0] if found else ""
        first, *others = SENTENCE.split(" ".join(self.text.removeprefix(mark).split()))
        if says(first):
            return None
        kept, dropped = [first], False
        for sentence in others:
            dropped = says(sentence) or (dropped and GOES_ON.match(sentence) is not None)
            kept += [] if dropped else [sentence]
        text = textwrap.fill(
            " ".join(kept), 110, initial_indent=mark, subsequent_indent=" " * len(mark),
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        return replace(self, lines=tuple(f"{line}\n" for line in text.splitlines()))

    def without_rows(self, says: "Says") -> "Block":
        rows = (row for row in self.lines[2:] if not says(row))
        return replace(self, lines=(*self.lines[:2], *rows))


type Says = Callable[[str], bool]


def saying(functions: frozenset[str], libs: frozenset[str], words: frozenset[str]) -> Says:
    """Whether a text names these functions or libs, or matches these patterns."""
    patterns = []
    for name in functions:
        anywhere = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
        spelled = name if "-" not in name else f"{name}|{name.replace('-', '_')}"
        patterns.append(rf"`(?:{spelled})`|functions/{name}|{name}\.md|^\| {name} \|")
        if name not in EVERYDAY:
            patterns.append(anywhere)
    patterns += [rf"jobplane[-_]{lib}|libs/{lib}\b" for lib in libs]
    patterns += words
    if not patterns:
        return lambda text: False
    found = re.compile("|".join(patterns))
    return lambda text: found.search(text) is not None


def filtered(text: str, says: Says) -> str | None:
    """The page without matching text; None if too little of it is left.

    Removes rows of tables, and sentences of prose and list items. A heading is removed if nothing
    is left below it; a matching heading is removed with its section.
    """
    before = list(_blocks(text))
    kept = _with_content(list(_led(before, list(_unsaid(before, says)))))
    is_short = _length(kept) < LEAST_LEFT * _length(before)
    if not kept or (is_short and not any(each.is_marker for each in before)):
        return None
    text = ""
    for block, following in zip(kept, [*kept[1:], None], strict=True):
        text += block.text
        between = before[block.place : following.place] if following else ()
        text += "\n" if any(each.is_before_blank for each in between) else ""
    return text


def _unsaid(blocks: list[Block], says: Says) -> Iterator[Block]:
    section = 0  # the level of a matching heading: everything below it is removed
    is_gone = False
    for block in blocks:
        if block.heading and (not section or block.heading <= section):
            section = block.heading if says(block.text) else 0
        if section:
            continue
        was_gone, is_gone = is_gone, False
        if block.heading or block.is_marker:
            yield block
        elif block.is_table:
            yield block.without_rows(says)
        elif block.is_fence and (was_gone or says(block.text)):
            # A block of commands belongs to the paragraph above it.
            is_gone = True
        elif not says(block.text):
            yield block
        elif (left := block.without_sentences(says)) and not block.is_fence:
            yield left
        else:
            is_gone = True


def _led(before: list[Block], kept: list[Block]) -> Iterator[Block]:
    """The blocks, without a last sentence that introduces a removed block."""
    for block, following in zip(kept, [*kept[1:], None], strict=False):
        ends_open = block.text.rstrip().endswith(":") and block.place + 1 < len(before)
        if ends_open and not block.is_fence:
            led_to = before[block.place + 1].kind
            if following is None or following.kind != led_to or following.heading:
                last = SENTENCE.split(" ".join(block.text.split()))[-1]
                if left := block.without_sentences(last.endswith):
                    yield left
                continue
        yield block


def exemplified(text: str, going: frozenset[str], function: str, case: str) -> str:
    """Replace removed functions in example commands by this function and one of its cases.

    Changes single commands only: no pipes, and no runbooks with variables.
    """

    def shown(found: re.Match[str]) -> str:
        given = found["given"].split(" ")
        words = [function if word in going else word for word in given]
        if words == given:
            return found[0]
        if found["verb"] in CASED and (at := words.index(function) + 1) < len(words):
            words[at] = words[at] if words[at].startswith("-") else case
        instead = " ".join(dict.fromkeys(words))
        if not found["comment"]:
            return f"{found['before']}{instead}"
        width = len(found["given"]) + len(found["space"]) - 1
        return f"{found['before']}{instead.ljust(width)} {found['comment']}"

    text = EXAMPLE.sub(shown, text)
    return VARIABLE.sub(lambda f: f"name={function}" if f[1] in going else f[0], text)


def unlinked(text: str, page: Path, root: Path) -> str:
    def there(target: str) -> bool:
        if "://" in target or target.startswith("#"):
            return True
        return (page.parent / target.partition("#")[0]).exists()

    text = REMARK.sub(lambda link: link[0] if there(link[1]) else "", text)
    text = LINK.sub(lambda link: link[0] if there(link[2]) else link[1], text)
    return IMAGE.sub(lambda image: image[0] if there(image[1]) else "", text)


def _blocks(text: str) -> Iterator[Block]:
    lines = text.splitlines(keepends=True)
    place = start = 0
    while start < len(lines):
        end = _end(lines, start)
        after = end
        while after < len(lines) and not lines[after].strip():
            after += 1
        yield Block(place, tuple(lines[start:end]), is_before_blank=after > end)
        place, start = place + 1, after


def _end(lines: list[str], start: int) -> int:
    first = lines[start]
    if HEADING.match(first) or first.startswith("<!--"):
        return start + 1
    is_fence, is_table = FENCE.match(first), first.startswith("|")
    for end in range(start + 1, len(lines)):
        line = lines[end]
        if is_fence:
            if FENCE.match(line):
                return end + 1
        elif is_table:
            if not line.startswith("|"):
                return end
        elif not line.strip() or HEADING.match(line) or line.startswith(("|", "<!--")):
            return end
        elif ITEM.match(line) or FENCE.match(line):
            return end
    return len(lines)


def _with_content(blocks: list[Block]) -> list[Block]:
    """The blocks without empty sections, and without tables that have no rows."""
    kept: list[Block] = []
    lowest = 0
    for block in reversed(blocks):
        if not block.heading:
            # A generated table may have no rows until it is generated again.
            is_made = bool(kept) and kept[-1].is_marker
            if block.is_table and len(block.lines) <= 2 and not is_made:
                continue
            lowest = 9
        elif block.heading > 1 and block.heading >= lowest:
            continue
        else:
            lowest = block.heading
        kept.append(block)
    return kept[::-1]


def _length(blocks: list[Block]) -> int:
    return sum(len(block.lines) for block in blocks if not block.heading)
