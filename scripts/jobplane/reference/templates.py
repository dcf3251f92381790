"""The table of the assemblies' templates."""

from pathlib import Path

from jobplane.deploy.templates import templates
from jobplane.reference.documents import table
from jobplane.tree.repository import Repository

DOCUMENT = Path("docs", "templates.md")
SECTION = "templates"


def tables(repository: Repository) -> dict[str, str]:
    rows = [
        (f"`{each.id}`", each.flow, ", ".join(f"`{s}`" for s in each.settings.values()) or "none")
        for each in templates(repository)
    ]
    return {SECTION: table(("template", "steps and their robots", "webhook: URL, secret"), rows)}
