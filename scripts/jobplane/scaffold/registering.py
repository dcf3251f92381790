"""Where a new package is named: the root project, the functions that load it, a template."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from jobplane.tree.repository import Repository

# The functions that load a package, by what it is.
LOADED_BY = {"action": ("processor", "router"), "robot": ("processor",)}
TEMPLATES_INDEX = Path("templates", "index.json")


class ListMissingError(ValueError):
    """A list that a package is added to is not in the file."""

    def __init__(self, path: Path, opening: str) -> None:
        super().__init__(f"{path} has no {opening!r}, one entry a line: restore it")


def registrations(repository: Repository, name: str, kind: str) -> Mapping[Path, str]:
    """The files to change for a new package, and their new texts; none for a function."""
    if kind not in LOADED_BY:
        return {}
    root = repository.root
    distribution, module = f"jobplane-{name}", f"jobplane_{name.replace('-', '_')}"
    project = root / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    for opening, entry in (
        ("[tool.uv.sources]", f"{distribution} = {{ workspace = true }}"),
        ("run = [", f'    "{distribution}",'),
        ("known-first-party = [", f'    "{module}",'),
    ):
        text = _added(project, text, opening, entry)
    changes = {project: text}
    for function in LOADED_BY[kind]:
        path = root / "functions" / function / "pyproject.toml"
        text = path.read_text(encoding="utf-8")
        changes[path] = _added(path, text, "dependencies = [", f'    "{distribution}",')
    if kind == "robot":
        path = root / TEMPLATES_INDEX
        changes[path] = _with_template(path.read_text(encoding="utf-8"), name)
    return changes


def _added(path: Path, text: str, opening: str, entry: str) -> str:
    """The text with one more line below `opening`, in the order of the alphabet."""
    found = re.search(rf"^{re.escape(opening)}\n((?:.+\n)*?)(?=\]|\n|\Z)", text, re.MULTILINE)
    if found is None:
        raise ListMissingError(path, opening)
    lines = found[1].splitlines(keepends=True)
    place = next((n for n, line in enumerate(lines) if line.strip() > entry.strip()), len(lines))
    lines.insert(place, f"{entry}\n")
    return text[: found.start(1)] + "".join(lines) + text[found.end(1) :]


def _with_template(text: str, name: str) -> str:
    """The index with one more template, of one step."""
    step = json.dumps({"robot": f"/own/{name}", "use": ":original"})
    identifier = f"tpl_{name.replace('-', '_')}"
    entry = f'    {{\n      "id": "{identifier}",\n      "steps": {{"numbered": {step}}}\n    }}'
    return re.sub(r"\n    \}\n  \]\n\}\s*\Z", f"\n    }},\n{entry}\n  ]\n}}\n", text)
