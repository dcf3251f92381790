"""The built page of the console: where it is, and how it is built."""

import shutil
from pathlib import Path

import click

from jobplane.terminal.console import note
from jobplane.tree.repository import Repository
from lambdapack.tools import run_quietly

WEB = Path("web")
BUILT = WEB / "console" / "dist"


def built_page(repository: Repository, page: Path | None) -> Path:
    """The folder of the built page, which is built if that is necessary. Raises ClickException."""
    if page is not None:
        if not (page / "index.html").is_file():
            raise click.UsageError(
                f"--page: {page}/index.html does not exist; build the page first"
            )
        return page
    folder = repository.root / BUILT
    if not (repository.root / WEB / "console" / "package.json").is_file():
        raise click.ClickException(
            f"this project has no {WEB}/console, which is the source of the page; copy the folder"
            f" {WEB}/ from Jobplane's repository, or pass --page with a built page."
            " `jobplane jobs` shows the same list without a page"
        )
    if _is_stale(folder):
        _build(repository)
    return folder


def _is_stale(folder: Path) -> bool:
    """Whether the page is not built, or a source is newer."""
    index = folder / "index.html"
    if not index.is_file():
        return True
    sources = [
        path
        for member in ("console", "react", "client")
        for path in (folder.parent.parent / member).rglob("src/**/*")
        if "node_modules" not in path.parts and path.is_file()
    ]
    return any(path.stat().st_mtime > index.stat().st_mtime for path in sources)


def _build(repository: Repository) -> None:
    web = repository.root / WEB
    if shutil.which("npm") is None:
        raise click.ClickException(
            "the console's page is built with npm, which was not found; install Node.js"
            " (https://nodejs.org), then repeat the command"
        )
    if not (web / "node_modules").is_dir():
        note("installing the packages of web/; the first time this downloads them")
        run_quietly(["npm", "ci", "--no-audit", "--no-fund"], cwd=web, what="npm ci in web/")
    note("building the console's page")
    run_quietly(["npm", "run", "build"], cwd=web, what="npm run build in web/")
