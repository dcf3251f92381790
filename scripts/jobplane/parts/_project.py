"""Create a project from some parts of this repository, and update it."""

import json
import re
import shutil
import subprocess
import tempfile
import textwrap
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from jobplane.parts._documents import EVERYDAY, WHOLE, Says, exemplified, filtered, saying, unlinked
from jobplane.parts._functions import LIST, Part, chosen, parts
from jobplane.parts._needs import Needs
from jobplane.parts._resources import remove_resources
from jobplane.stage.framework import install_framework
from jobplane.terminal.console import note
from jobplane.tree.copies import TOOLS, copy_repository
from jobplane.tree.repository import Repository, read_yaml
from jobplane.trying.cases import case_paths
from lambdapack.environments import plain_environment, uv_command, uv_locking_environment
from lambdapack.tools import run_quietly

NAME = re.compile(r"^[a-z][a-z0-9-]{1,19}$")
BRANCH = "upstream"
WHAT = (
    "Microlambdas in one [uv](https://docs.astral.sh/uv/) workspace, deployed by the Serverless "
    "Framework; taken from Jobplane."
)
FUNCTION = re.compile(r"\| \[`([a-z-]+)`\]\(functions/")
PAGES = re.compile(r"\|[^|\]]+\| .*\]\(docs/")
"""A row of the table that says what one reads where."""
README = Path(__file__).with_name("README.md.tmpl")
# Files about this repository as a whole, or about its history.
LEFT_OUT = ("CHANGELOG.md", "web", "docs/decisions", "docs/performance.md", "docs/faults.md")
AUTHOR = (
    "-c", "user.name=jobplane", "-c", "user.email=jobplane@localhost", "-c", "commit.gpgsign=false",
)  # fmt: skip
RECORD = re.compile(r"^\[tool\.jobplane\.project\]\n(?:.+\n)*", re.MULTILINE)


class ProjectError(click.ClickException):
    """A project can't be made or updated; the message has reason and remedy."""


@dataclass(frozen=True)
class Made:
    folder: Path
    parts: tuple[str, ...]
    functions: tuple[str, ...]


def make(source: Repository, target: Path, taken: Iterable[str]) -> Made:
    """Create a project in a new folder, with a git repository; the folder's name names it.

    Its branch `upstream` holds the unchanged copy; `update` adds later changes to it.
    """
    name, names = target.name, tuple(taken)
    if not NAME.match(name):
        raise ProjectError(
            f"invalid project name {name!r}: use 2 to 20 of a-z, 0-9 and -, beginning with a letter"
        )
    if target.is_relative_to(source.root):
        raise ProjectError(
            f"{target} is inside this project: choose a folder outside of {source.root}"
        )
    if target.exists() and any(target.iterdir()):
        raise ProjectError(f"{target} is not empty: choose another name or empty the folder")
    keep = chosen(source, names)
    try:
        _write(source, target, name, names, keep)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    _git(target, "init", "--quiet", "--initial-branch=main")
    _git(target, "add", "--all")
    _git(target, *AUTHOR, "commit", "--quiet", "--no-verify", "--message", _message(source, names))
    _git(target, "branch", BRANCH)
    return Made(target, names, tuple(sorted(keep)))


def update(source: Repository, target: Path) -> bool:
    """Commit the parts' current state to the branch `upstream`; False if nothing has changed."""
    name, names = _recorded(target)
    if _git(target, "rev-parse", "--symbolic-full-name", "HEAD") == f"refs/heads/{BRANCH}":
        raise ProjectError(
            f"the branch {BRANCH!r} is checked out in {target}: check out your own, "
            "for example `git checkout main`, and run this again"
        )
    with tempfile.TemporaryDirectory(prefix="jobplane-") as folder:
        tree = Path(folder) / "tree"
        _write(source, tree, name, names, chosen(source, names))
        index = Path(folder) / "index"
        _git(target, "--work-tree", str(tree), "add", "--all", cwd=tree, index=index)
        written = _git(target, "write-tree", index=index)
    if written == _git(target, "rev-parse", f"{BRANCH}^{{tree}}"):
        return False
    message = _message(source, names)
    commit = _git(target, *AUTHOR, "commit-tree", written, "-p", BRANCH, "-m", message)
    _git(target, "update-ref", f"refs/heads/{BRANCH}", commit)
    return True


def _write(
    source: Repository, target: Path, name: str, names: tuple[str, ...], keep: frozenset[str]
) -> None:
    note(f"copying {', '.join(sorted(keep))}")
    install_framework(source)
    repository = copy_repository(source, target)
    known = parts(source)
    reduce(repository, keep)
    _name(repository, name, names, [known[part] for part in names])
    readme = (source.root / "README.md").read_text(encoding="utf-8")
    _write_readme(repository, readme, ". ".join(known[part].summary for part in names))
    make_again(repository)
    (target / TOOLS).unlink(missing_ok=True)
    for made in ("dist", ".jobplane", ".serverless"):
        shutil.rmtree(target / made, ignore_errors=True)


def make_again(repository: Repository) -> None:
    """Update uv.lock, contracts/ and generated parts of docs/."""
    note("updating uv.lock, contracts/ and docs/")
    _run(repository, "lock", "--quiet")
    _run(repository, "run", "--quiet", "jobplane", "schema")
    _run(repository, "run", "--quiet", "jobplane", "docs")


def reduce(repository: Repository, keep: frozenset[str]) -> None:
    root = repository.root
    functions = {function.name: function for function in repository.functions()}
    going = frozenset(functions.keys() - keep)
    libs = _unneeded_libs(repository, keep)
    data = {path for name in going for path in functions[name].data}
    data -= {path for name in keep for path in functions[name].data}
    known = list(parts(repository).values())
    lost = [part for part in known if not part.functions & keep]
    gone = frozenset(re.escape(f"tests/{name}") for name in _remove_tests(repository, going, libs))
    remove_resources(repository, going)
    for name in going:
        shutil.rmtree(functions[name].directory)
    for lib in libs:
        shutil.rmtree(root / "libs" / lib)
    for folder in data:
        shutil.rmtree(folder)
    for path in LEFT_OUT:
        _remove(root / path)
    forget(repository, going, libs)
    _exemplify(repository, going)
    _write_parts(repository, keep)
    _reduce_documents(
        repository,
        saying(going, libs, gone | {part.words for part in lost}),
        # In pages about these parts, only names of removed functions count, not words.
        saying(going - EVERYDAY, libs, gone),
        {f"{name}.md" for name in (*keep, *(part.name for part in known if part not in lost))},
    )


def _unneeded_libs(repository: Repository, keep: frozenset[str]) -> frozenset[str]:
    """The libs that neither these functions nor the command use."""
    there = {path.name for path in (repository.root / "libs").iterdir() if path.is_dir()}
    needed: set[str] = set()
    waiting = [
        repository.root / "scripts",
        *(repository.root / "functions" / name for name in keep),
    ]
    while waiting:
        project = (waiting.pop() / "pyproject.toml").read_text(encoding="utf-8")
        listed = " ".join(tomllib.loads(project)["project"].get("dependencies", ()))
        more = {
            lib for lib in there - needed if re.search(rf"(?:^| )(?:jobplane-)?{lib}\b", listed)
        }
        needed |= more
        waiting += [repository.root / "libs" / lib for lib in more]
    return frozenset(there - needed)


def _remove_tests(repository: Repository, going: frozenset[str], libs: frozenset[str]) -> set[str]:
    """Remove tests that need removed functions or libs, and what only those used; their modules."""
    needs = Needs(repository)
    unmet = needs.unmet(going | {f"libs/{lib}" for lib in libs})
    for path in {*unmet, *needs.of_the_whole()}:
        path.unlink()
    for path in Needs(repository).unused():
        path.unlink()
    for folder in sorted((repository.root / "tests").rglob("*/"), reverse=True):
        if folder.name in going or not any(folder.iterdir()):
            shutil.rmtree(folder)
    for lib in libs:
        for path in (repository.root / "tests").rglob(f"jobplane_{lib}*.txt"):
            path.unlink()
    durations = needs.folder / "durations.json"
    known = json.loads(durations.read_text(encoding="utf-8"))
    left = {name: each for name, each in known.items() if (repository.root / name).is_file()}
    durations.write_text(json.dumps(left, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return needs.modules.keys() - Needs(repository).modules.keys()


def forget(
    repository: Repository, going: frozenset[str], libs: frozenset[str] = frozenset()
) -> None:
    """Remove lines of pyproject.toml and serverless.yml that only removed functions needed."""
    _forget_settings(repository, going, libs)
    _forget_variables(repository)
    _forget_parameters(repository)


def _forget_settings(repository: Repository, going: frozenset[str], libs: frozenset[str]) -> None:
    path = repository.root / "pyproject.toml"
    names = [*(f"jobplane[-_]{lib}" for lib in libs), *(f"{name}(?= =)" for name in going)]
    if not names:
        return
    line = re.compile(rf'^(?:#[^\n]*\n)*\s*"?(?:{"|".join(names)})\b[^\n]*\n', re.MULTILINE)
    path.write_text(line.sub("", path.read_text(encoding="utf-8")), encoding="utf-8")


def _forget_variables(repository: Repository) -> None:
    """Remove variables of all functions, in serverless.yml, that no function reads any more."""
    path = repository.root / "serverless.yml"
    code = "".join(
        source.read_text(encoding="utf-8")
        for folder in ("functions", "libs")
        for source in (repository.root / folder).rglob("*.py")
    )
    text = path.read_text(encoding="utf-8")
    for name in read_yaml(path)["provider"]["environment"]:
        # The SDK reads its own.
        if not name.startswith("AWS_") and f'"{name}"' not in code:
            text = re.sub(rf"^    {name}: .*\n", "", text, count=1, flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8")


def _forget_parameters(repository: Repository) -> None:
    """Remove parameters of stages, in serverless.yml, that nothing refers to any more."""
    root, path = repository.root, repository.root / "serverless.yml"
    text = path.read_text(encoding="utf-8")
    used = text + "".join(
        source.read_text(encoding="utf-8")
        for folder in ("functions", "resources", "scripts/jobplane", "scripts/serverless")
        for source in (root / folder).rglob("*")
        if source.suffix in {".yml", ".js", ".py", ".tmpl"}
    )
    for name in read_yaml(path)["custom"]["stages"]["default"]:
        if not re.search(rf"\b{name}\b(?!:)", used):
            entry = rf"^(?: {{6}}#.*\n)*(?<! ) {{6}}{name}:.*\n(?: {{8}}.*\n)*"
            text = re.sub(entry, "", text, flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8")


def _exemplify(repository: Repository, going: frozenset[str]) -> None:
    """Replace removed functions in examples of pages and help texts."""
    function, *_ = repository.functions()
    case = next(iter(case_paths(function)), "-")
    pages = [repository.root / "CONTRIBUTING.md", *repository.root.glob("docs/*.md")]
    helps = (repository.root / "scripts" / "jobplane").rglob("*.py")
    for path in (*pages, *helps):
        text = path.read_text(encoding="utf-8")
        changed = exemplified(text, going, function.name, case)
        if changed != text:
            path.write_text(changed, encoding="utf-8")


def _write_parts(repository: Repository, keep: frozenset[str]) -> None:
    path = repository.root / LIST
    heading = "".join(
        line for line in path.read_text(encoding="utf-8").splitlines(True) if line.startswith("#")
    )
    texts = []
    for part in parts(repository).values():
        if left := sorted(part.functions & keep):
            texts.append(
                f"\n[{part.name}]\nsummary = {json.dumps(part.summary)}\n"
                f"words = {json.dumps(part.words)}\nfunctions = {json.dumps(left)}\n"
            )
    path.write_text(heading + "".join(texts), encoding="utf-8")


def _reduce_documents(repository: Repository, says: Says, names: Says, own: set[str]) -> None:
    root = repository.root
    pages = [root / "CONTRIBUTING.md", *sorted(root.glob("docs/*.md"))]
    for page in pages:
        text = WHOLE.sub("", page.read_text(encoding="utf-8"))
        left = filtered(text, names if page.name in own else says)
        if left is None:
            page.unlink()
        else:
            page.write_text(left, encoding="utf-8")
    for example in root.glob("contracts/typescript/example*.ts"):
        if says(example.read_text(encoding="utf-8")):
            example.unlink()
    kept = [page for page in pages if page.is_file()]
    for page in kept:
        page.write_text(unlinked(page.read_text(encoding="utf-8"), page, root), encoding="utf-8")
    shown = "".join(page.read_text(encoding="utf-8") for page in kept)
    for image in root.glob("docs/*.svg"):
        if image.name not in shown:
            image.unlink()


def _name(repository: Repository, name: str, names: tuple[str, ...], taken: list[Part]) -> None:
    """Write the project's name, its README and the list of its parts."""
    root = repository.root
    before, was = root / "serverless.yml", repository.service
    text = before.read_text(encoding="utf-8")
    before.write_text(text.replace(f"service: {was}\n", f"service: {name}\n", 1), encoding="utf-8")
    summary = ". ".join(part.summary for part in taken) + "."
    for page in root.glob("docs/*.md"):
        shown = page.read_text(encoding="utf-8").replace(f"service={was} ", f"service={name} ")
        page.write_text(shown, encoding="utf-8")
    project = root / "pyproject.toml"
    text = RECORD.sub("", project.read_text(encoding="utf-8"))
    text = re.sub(r'^name = ".*"', f'name = "{name}-workspace"', text, count=1, flags=re.M)
    text = re.sub(
        r"^description = .*", f"description = {json.dumps(summary)}", text, count=1, flags=re.M
    )
    record = f"[tool.jobplane.project]\nparts = {json.dumps(list(names))}\n"
    project.write_text(f"{text.rstrip()}\n\n{record}", encoding="utf-8")


def _write_readme(repository: Repository, upstream: str, summary: str) -> None:
    """Write the project's README from the template and from parts of this README."""
    root = repository.root
    lines = upstream.splitlines()
    functions = [function.name for function in repository.functions()]
    first = min(functions, key=len)
    invoke = f"uv run jobplane invoke {first} --all"
    rows = [line for line in lines if line.startswith("|")]
    libs = (re.match(r"libs/(\w+) ", line) for line in lines)
    values = {
        "name": repository.service,
        "summary": textwrap.fill(f"{summary}. {WHAT}", 100),
        "first": first,
        "invoke": f"{invoke:<41}",
        "functions": "\n".join(
            row for row in rows if (cell := FUNCTION.match(row)) and cell[1] in functions
        ),
        "libs": "\n".join(
            found.string for found in libs if found and (root / "libs" / found[1]).is_dir()
        ),
        "pages": "\n".join(
            filter(None, (_with_pages(row, root) for row in rows if PAGES.match(row)))
        ),
    }
    text = README.read_text(encoding="utf-8")
    filled = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)
    (root / "README.md").write_text(filled, encoding="utf-8")


def _with_pages(row: str, root: Path) -> str | None:
    """A row of links without those to removed pages; None if no link is left."""
    _, subject, links, _ = row.split("|")
    there = [
        link
        for link in links.strip().split(", ")
        if (root / link[link.index("(") + 1 : -1]).exists()
    ]
    return f"|{subject}| {', '.join(there)} |" if there else None


def _recorded(target: Path) -> tuple[str, tuple[str, ...]]:
    repository = Repository(target)
    project = target / "pyproject.toml"
    record = RECORD.search(project.read_text(encoding="utf-8")) if project.is_file() else None
    has_branch = record and _has_branch(target)
    if record is None or not has_branch:
        raise ProjectError(
            f"{target} is not a project of `jobplane new-project`: its pyproject.toml has no "
            f"[tool.jobplane.project], or its git repository no branch {BRANCH!r}"
        )
    names = json.loads(record[0].partition("parts = ")[2].splitlines()[0])
    return repository.service, tuple(names)


def _has_branch(target: Path) -> bool:
    done = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"refs/heads/{BRANCH}"],
        cwd=target, env=plain_environment(), capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0


def _message(source: Repository, names: tuple[str, ...]) -> str:
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=source.root, env=plain_environment(), capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return f"Take {', '.join(names)} of jobplane {revision}".rstrip()


def _git(target: Path, *arguments: str, cwd: Path | None = None, index: Path | None = None) -> str:
    environment = {"GIT_INDEX_FILE": str(index)} if index else {}
    return run_quietly(
        [
            "git",
            f"--git-dir={target / '.git'}",
            *(() if cwd else (f"--work-tree={target}",)),
            *arguments,
        ],
        cwd=cwd or target,
        what=f"git {next(each for each in arguments if not each.startswith('-'))}",
        env=plain_environment() | environment,
    ).strip()


def _run(repository: Repository, *arguments: str) -> str:
    return run_quietly(
        [uv_command(), *arguments],
        cwd=repository.root,
        what=f"uv {' '.join(arguments)}",
        env=uv_locking_environment(),
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
