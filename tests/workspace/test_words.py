"""The project's texts are plain technical English: habits that hide what happened are refused.

Checked are string literals, docstrings and comments. A comment `# words: REASON` allows a line.
"""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobplane.tree.repository import Repository

ROOT = Repository.here().root
# Folders whose texts are plain; add one when its last finding is gone.
FOLDERS = ("scripts/jobplane", "scripts/serverless", "libs", "functions", "tests")
ENDINGS = (".py", ".tmpl", ".js", ".mjs")
# A pattern, why a reader stumbles over it, and what to write instead.
HABITS = (
    (r"(?<!there )\bis no (?!longer|more)\w", "unclear", "'is not a …', or 'invalid …: use …'"),
    (r"(?<!there )\b(?:is|are) none\b", "unclear", "what is missing, or 'empty'"),
    (r"(?<!-)\bnobody\b(?!-)", "vague", "the role: 'no client', 'no process'"),
    (r"\bwhoever\b", "vague", "the role: 'the caller', 'the client'"),
    (
        r"\btells? (?:of|whether|what)\b",
        "code does not talk",
        "'describes', 'returns', 'whether …'",
    ),
    (
        r"\b(?:is|was|be|been|are|were) told\b",
        "code is not told",
        "'is notified', 'has the option'",
    ),
    (r"\bwhat is there\b", "unclear", "the thing: 'existing files'"),
    (r"\bby its own\b", "unclear", "'alone', 'itself'"),
    (r"\bnot to be had\b", "outdated", "'not available', 'not granted'"),
    (r"\bas \w+ has it\b", "unclear", "'as in …', 'as … defines it'"),
    (r"\bknows? nothing\b", "a personification", "'does not support', 'is independent of'"),
    (r"\bcame of it\b|\bwhat came of\b", "an idiom", "'the result'"),
    (r"\bhow far (?:a|an|the|each|one)\b", "an idiom", "'the progress of', 'the state of'"),
    (r"\bsays nothing\b", "a personification", "'is not informative', 'does not state'"),
    (r"\bmend(?:s|ed|ing)?\b", "a second word for one idea", "'reset' or 'correct'"),
    (r"\bsomebody else\b", "vague", "'another user', 'another process'"),
)
ALLOWED = "# words: "


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and text of each literal, docstring and comment; other files as a whole."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(source.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT, tokenize.FSTRING_MIDDLE):
            yield from enumerate(token.string.splitlines(), token.start[0])


def findings(path: Path) -> Iterator[str]:
    """`file:line: word: reason; write …` for each habit in a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, text in texts(path):
        for pattern, reason, instead in HABITS:
            found = re.search(pattern, re.sub(r"\bNone\b", "", text), re.IGNORECASE)
            if found and ALLOWED not in lines[number - 1]:
                yield f"{path}:{number}: '{found[0]}' is {reason}; write {instead}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_texts_are_plain(folder: str) -> None:
    """No text of the folder has one of the habits."""
    paths = (path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in ENDINGS)
    files = [path for path in paths if "node_modules" not in path.parts]
    assert files
    assert [finding for path in files for finding in findings(path)] == []


def test_a_habit_is_found_with_its_remedy(tmp_path: Path) -> None:
    """In a docstring, a comment and an f-string; not in code, nor where a line allows it."""
    path = tmp_path / "module.py"
    path.write_text(
        '"""Nobody reads it."""\n\n'  # words: an example
        "# told by whoever asks\n"  # words: an example
        'text = f"{nobody} is no number"\n'  # words: an example
        'kept = "nobody"  # words: a name of a user\n'
    )
    found = list(findings(path))
    assert [line.split(": '")[0] for line in found] == [f"{path}:{n}" for n in (1, 3, 4)]
    assert found[0].endswith("is vague; write the role: 'no client', 'no process'")
