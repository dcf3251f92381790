"""The reference of case files: tables of keys and placeholders."""

from pathlib import Path

from jobplane.reference.documents import table
from jobplane.trying.case_files import KEYS
from jobplane.trying.placeholders import LITERAL, MATCHERS, NAMES, VALUES

DOCUMENT = Path("docs", "adding-a-function.md")


def tables() -> dict[str, str]:
    keys = [
        (f"`{key}`", f"`CASE.{kind}.json`", meaning)
        for kind, meanings in KEYS.items()
        for key, meaning in meanings.items()
    ]
    placeholders = [
        (f"`{each.example}`", place, each.meaning)
        for place, group in (
            ("event, given", VALUES),
            ("event, given, expect", (*NAMES, LITERAL)),
            ("expect, as a whole text", MATCHERS),
        )
        for each in group
    ]
    return {
        "keys": table(("key", "file", "meaning"), keys),
        "placeholders": table(("placeholder", "may stand in", "meaning"), placeholders),
    }
