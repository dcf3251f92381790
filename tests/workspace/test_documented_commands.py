"""The commands in docs/ exist with all their options, also those of PyPI's `aws`."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from jobplane.cli import jobplane
from jobplane.tree.repository import Repository
from tests.aws_cli import faults

ROOT = Repository.here().root
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Where a command begins: a line, a pipe, a substitution, the branch of a condition.
BEGINS = re.compile(r"(?:^|\||\$\(|&&|;|\bdo\b)\s*(?P<command>(?:uv run jobplane|aws) .*)")
# What a variable holds that `aws` reads as it comes.
VALUES = {"$tags": "[]"}
FAULTY = [
    "aws sqs receive-message --queue-url $queue --visible 0",
    "aws lambda invoke --function-name $name --cli-binary-format raw-in-base64-out out.json",
    "aws sqs receive-message --queue-url $queue --query 'Messages[.Body'",
    "aws sqs recieve-message --queue-url $queue",
    "queue=$(aws sqss get-queue-url --queue-name x)",
    "echo x | uv run jobplane invoke status - --stag prod",
    "uv run jobplane lgos",
]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
)


def lines(page: Path) -> Iterator[str]:
    """Every line of every block of commands, continued ones joined."""
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        yield from re.sub(r"\\\n|(?<=\|)\n", " ", block).splitlines()


def commands(line: str) -> Iterator[list[str]]:
    """The words of the line's commands of ours and of AWS, as far as they are theirs."""
    for found in BEGINS.finditer(line):
        yield words(found["command"])
    if (inner := line.partition("$(")[2]) and BEGINS.match(inner):
        yield words(inner)


def words(text: str) -> list[str]:
    """The words of a command, to the pipe, substitution or remark that ends it."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    found = []
    for word in lexer:
        if re.fullmatch(r"[|&;()<>]+", word):
            break
        found.append(word)
    return found


@cache
def faults_of_aws() -> dict[str, str | None]:
    """The faults that `aws` finds in each of its commands; it is started once."""
    pages = [line for page in PAGES for line in lines(ROOT / page)]
    found = [command for line in (*pages, *FAULTY) for command in commands(line)]
    asked = [command[1:] for command in found if command[0] == "aws"]
    given = [[VALUES.get(word, word) for word in arguments] for arguments in asked]
    return dict(zip(map(" ".join, asked), faults(given), strict=True))


def fault(command: list[str]) -> str | None:
    """The fault of a command; None if it can be parsed."""
    if command[0] == "aws":
        return faults_of_aws()[" ".join(command[1:])]
    arguments = command[3:]
    if not arguments or arguments[0].startswith("-"):
        return None
    verb = jobplane.get_command(click.Context(jobplane), arguments[0])
    if verb is None:
        return f"no verb {arguments[0]}"
    given = {word.partition("=")[0] for word in arguments[1:] if re.match(r"--?[a-z]", word)}
    unknown = given - options(verb)
    return f"{arguments[0]}: {sorted(unknown)}" if unknown else None


def options(verb: click.Command) -> set[str]:
    """The options of a command, and of those below it."""
    known = {"--help"} | {
        name for each in verb.params for name in (*each.opts, *each.secondary_opts)
    }
    if isinstance(verb, click.Group):
        context = click.Context(verb)
        for name in verb.list_commands(context):
            below = verb.get_command(context, name)
            known |= options(below) if below else set()
    return known


@pytest.mark.parametrize("page", PAGES)
def test_every_documented_command_exists(page: str) -> None:
    found = [command for line in lines(ROOT / page) for command in commands(line)]
    assert [(command, text) for command in found if (text := fault(command))] == []


@pytest.mark.parametrize("line", FAULTY)
def test_a_misspelt_command_or_option_is_found(line: str) -> None:
    assert any(map(fault, commands(line)))
