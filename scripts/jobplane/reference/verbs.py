"""The reference of the command: a table of its verbs for docs/commands.md."""

from pathlib import Path

import click

from jobplane.reference.documents import table
from jobplane.terminal.groups import ModuleGroup

DOCUMENT = Path("docs", "commands.md")
SECTION = "verbs"


def tables(group: ModuleGroup) -> dict[str, str]:
    context = click.Context(group)
    rows = []
    for title, verbs in group.sections(context):
        for verb in verbs:
            if found := group.get_command(context, verb):
                rows.append((f"`{verb}`", found.get_short_help_str(200), title))
    return {SECTION: table(("verb", "what it does", "part of the tour"), rows)}
