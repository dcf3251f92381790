"""Generated tables of the documentation: between `<!-- section: … -->` and `<!-- end -->`."""

import re
from collections.abc import Iterable, Mapping

type Row = tuple[str, ...]


class NoSuchSectionError(ValueError):
    """A section of a document is missing, or appears twice."""

    def __init__(self, section: str, count: int) -> None:
        super().__init__(f"the document must have one section {section!r}; it has {count}")
        self.section = section
        self.count = count


def table(headings: Row, rows: Iterable[Row]) -> str:
    lines = [f"| {' | '.join(line)} |" for line in (headings, *rows)]
    lines.insert(1, "|" + "---|" * len(headings))
    return "".join(f"{line}\n" for line in lines)


def rows_of(document: str, section: str) -> list[Row]:
    lines = _found(document, section)[2].splitlines()[2:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def with_tables(document: str, tables: Mapping[str, str]) -> str:
    """The document with these tables in their sections."""
    for section, text in tables.items():
        found = _found(document, section)
        document = document[: found.start(2)] + text + document[found.end(2) :]
    return document


def _found(document: str, section: str) -> re.Match[str]:
    pattern = rf"(<!-- {re.escape(section)}: [^\n]*-->\n)(.*?)<!-- end -->"
    matches = list(re.finditer(pattern, document, re.DOTALL))
    if len(matches) != 1:
        raise NoSuchSectionError(section, len(matches))
    return matches[0]
