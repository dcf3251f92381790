"""The table of the templates that ship."""

from pathlib import Path

from jobplane.deploy.templates import templates
from jobplane.reference.documents import table
from jobplane.tree.workspace import Workspace

DOCUMENT = Path("docs", "templates.md")
SECTION = "templates"


def tables(workspace: Workspace) -> dict[str, str]:
    """What the documentation tells of the templates."""
    rows = [
        (f"`{each.id}`", each.flow, ", ".join(f"`{s}`" for s in each.settings.values()) or "none")
        for each in templates(workspace)
    ]
    return {SECTION: table(("template", "steps and their robots", "webhook: URL, secret"), rows)}
