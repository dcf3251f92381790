"""A part of this tree as a separate project."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from jobplane.demo.program import PROGRAM, steps_with
from jobplane.parts import Needs, ProjectError, _project, chosen, make, parts, update
from jobplane.parts._documents import exemplified, filtered, saying
from jobplane.parts._project import reduce
from jobplane.parts._resources import unneeded, without
from jobplane.reference import metrics
from jobplane.rules import Tree, check
from jobplane.tree.configuration import Configuration
from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Repository
from lambdapack.environments import plain_environment, uv_command
from lambdapack.tools import run_quietly
from tests.workspace.copies import commit, edit, git, jobplane, printed, touch, under_git

HERE = Repository.here()
PARTS = parts(HERE)
ALL = frozenset(function.name for function in HERE.functions())
TAKEN = {
    # A client's request may be a job of the flow.
    "job-flow": ALL - {"count-files", "state-manager"},
    # Its processor queues webhooks, and clients look up its assemblies.
    "realtime": {
        "connect", "deliver-webhook", "disconnect", "dispatch", "jobs", "processor", "router",
        "status", "upload-parts",
    },  # fmt: skip
    "status": {"deliver-webhook", "status"},
    "files": {"count-files", "state-manager"},
}  # fmt: skip
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repository]:
    """A copy for each part with nothing else, before generated files are written."""
    found = {}
    for name, functions in TAKEN.items():
        repository = copy_repository(HERE, tmp_path_factory.mktemp(name) / "tree")
        reduce(repository, frozenset(functions))
        found[name] = repository
    return found


@pytest.mark.parametrize("part", PARTS)
def test_a_part_has_its_functions_and_those_that_it_needs(part: str) -> None:
    """Also readers of queues that they write."""
    assert chosen(HERE, (part,)) == TAKEN[part]


def test_every_function_belongs_to_one_part() -> None:
    listed = [name for part in PARTS.values() for name in part.functions]
    assert sorted(listed) == sorted(ALL)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_has_all_resources_and_libs_that_it_refers_to(
    part: str, reduced: dict[str, Repository]
) -> None:
    repository = reduced[part]
    assert {function.name for function in repository.functions()} == TAKEN[part]
    before = set(Configuration(HERE).resources)
    assert set(Configuration(repository).resources) == before - unneeded(HERE, ALL - TAKEN[part])
    tree = Tree(repository, ())
    found = check(tree, ["references", "names", "environment"])
    assert [finding.as_line(tree) for finding in found] == []
    for path in [*repository.root.glob("functions/*/pyproject.toml")]:
        for lib in re.findall(r'"jobplane-(\w+)', path.read_text()):
            if lib in {each.name for each in (HERE.root / "libs").iterdir()}:
                assert (repository.root / "libs" / lib).is_dir(), path


@pytest.mark.parametrize("part", PARTS)
def test_a_part_has_the_test_modules_of_its_functions_and_libs(
    part: str, reduced: dict[str, Repository]
) -> None:
    root = reduced[part].root
    libs = {path.name for path in (root / "libs").iterdir()} - {"client"}  # of all services
    own = tuple(f"test_{name.replace('-', '_')}" for name in TAKEN[part] | libs)
    modules = [path.name for path in (HERE.root / "tests" / "unit").glob("test_*.py")]
    expected = {name for name in modules if name.removesuffix(".py").startswith(own)}
    left = {path.name for path in (root / "tests" / "unit").glob("test_*.py")}
    assert expected - left == set()


@pytest.mark.parametrize("part", PARTS)
def test_a_parts_dashboard_has_exactly_the_metrics_of_its_functions(
    part: str, reduced: dict[str, Repository]
) -> None:

    def drawn(repository: Repository) -> set[str]:
        done = subprocess.run(
            ["node", "-e", DASHBOARD, str(repository.root)],
            env=plain_environment() | {"NODE_PATH": str(HERE.root / "node_modules")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return set(re.findall(r'metricsNamespace\}[^"]*MetricName="(\w+)"', done.stdout)) | set(
            re.findall(r'metricsNamespace\}","(\w+)"', done.stdout)
        )

    emitted = {metric.name for metric in metrics.emitted(reduced[part])}
    assert drawn(reduced[part]) == drawn(HERE) & emitted


DASHBOARD = """
const [root] = process.argv.slice(1);
const stack = { queues: {}, tables: {}, stateMachines: {}, alarms: [] };
stack.functions = require(`${root}/scripts/serverless/members.js`).members();
const { Dashboard } = require(`${root}/scripts/serverless/dashboard.js`)(stack);
const { widgets } = JSON.parse(Dashboard.Properties.DashboardBody['Fn::Sub']);
for (const { properties } of widgets)
  for (const line of properties.metrics || [])
    console.log(line[0].expression || JSON.stringify(line));
"""


@pytest.mark.parametrize(
    ("part", "first", "last"),
    [
        ("job-flow", "connect", "overview"),
        ("realtime", "connect", "memory"),
        ("files", "orphans", "orphans"),
    ],
)
def test_the_demo_of_a_part_has_the_steps_of_its_functions(
    part: str, first: str, last: str
) -> None:
    names = [step.name for step in PROGRAM]
    whole = names[names.index(first) : names.index(last) + 1]
    assert [step.name for step in steps_with(TAKEN[part])] == whole


@pytest.mark.parametrize(
    ("part", "command", "said"),
    [
        ("status", ["demo"], "or state-manager; this project has only deliver-webhook, status"),
        ("status", ["seed-files"], "`jobplane seed-files` needs the functions state-manager"),
        ("status", ["bench", "growth"], "this project does not have state-manager"),
        ("status", ["bench", "load"], "does not have connect, disconnect, dispatch, processor"),
        ("realtime", ["bench", "growth"], "bench growth` needs the functions state-manager"),
    ],
)
def test_a_verb_without_its_functions_is_refused_with_their_names(
    part: str, command: list[str], said: str, reduced: dict[str, Repository]
) -> None:
    done = jobplane(reduced[part], *command)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not reduced[part].scratch.exists()


@pytest.mark.parametrize("part", TAKEN)
def test_fuzz_runs_exactly_the_functions_of_a_part(
    part: str, reduced: dict[str, Repository]
) -> None:
    arguments = ["--inputs", "5", "--way", "hypothesis", "--json"]
    done = jobplane(reduced[part], "fuzz", *arguments)
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert {run["function"] for run in runs} == TAKEN[part]


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A git repository to take parts of; the new project is not locked or generated."""
    monkeypatch.setattr(_project, "_run", lambda *_: "")
    monkeypatch.setattr(_project, "install_framework", lambda _: None)
    return under_git(copy_repository(HERE, tmp_path / "source"))


def test_all_parts_together_keep_all_settings_and_resources(tmp_path: Path) -> None:
    repository = copy_repository(HERE, tmp_path / "all")
    reduce(repository, ALL)
    for path in ("pyproject.toml", "resources/job-flow.yml", "resources/tables.yml"):
        assert (repository.root / path).read_text() == (HERE.root / path).read_text(), path


def test_update_merges_changes_of_the_taken_files_only(sources: Repository, tmp_path: Path) -> None:
    """The project's own changes and its name stay."""
    target = tmp_path / "acme-jobs"
    make(sources, target, ["job-flow"])
    project = Repository(target)
    edit(project, "functions/claim/function.yml", "memorySize:", "# Ours.\nmemorySize:")
    commit(project)
    touch(sources, "functions/claim/claim.py")
    touch(sources, "functions/state-manager/state_manager.py")
    commit(sources)

    assert update(sources, target)
    changed = git(project, "diff", "--name-only", "main...upstream").split()
    assert changed == ["functions/claim/claim.py"]
    assert git(project, "status", "--porcelain") == "", "the work tree is the project's"

    git(project, "merge", "--quiet", "upstream")
    claim = "functions/claim/claim.py"
    assert (target / claim).read_text() == (sources.root / claim).read_text()
    assert "# Ours." in (target / "functions/claim/function.yml").read_text()
    assert not (target / "functions/state-manager").exists()
    assert project.service == "acme-jobs"
    assert not update(sources, target), "nothing has changed since"


def test_update_refuses_a_project_with_upstream_checked_out(
    sources: Repository, tmp_path: Path
) -> None:
    target = tmp_path / "acme-jobs"
    make(sources, target, ["job-flow"])
    git(Repository(target), "checkout", "--quiet", "upstream")
    touch(sources, "functions/claim/claim.py")
    with pytest.raises(ProjectError, match="check out your own"):
        update(sources, target)


@pytest.mark.parametrize("part", PARTS)
def test_a_parts_pages_have_no_links_or_names_of_missing_functions(
    part: str, reduced: dict[str, Repository]
) -> None:
    root = reduced[part].root
    gone = ALL - TAKEN[part]
    # A role may have rights to call a function that only some stages have.
    granted = {
        name
        for name in gone
        for each in reduced[part].functions()
        if f"{{param:tablePrefix}}{name}" in (each.directory / "function.yml").read_text()
    }
    for page in [root / "CONTRIBUTING.md", *root.glob("docs/*.md")]:
        text = page.read_text(encoding="utf-8")
        targets = [target for target in LINK.findall(text) if "://" not in target]
        for target in targets:
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"
        said = re.sub("<!--.*-->", "", text)
        for module in re.findall(r"\btests/[a-z_0-9/]+\.py", said):
            assert (root / module).is_file(), f"{page.name}: {module}"
        for name in gone:
            assert f"functions/{name}" not in text, page.name
            is_granted = page.name == "security.md" and name in granted
            assert "-" not in name or name not in text or is_granted, page.name


def test_a_parts_lock_checks_and_tests_work(tmp_path: Path) -> None:
    target = tmp_path / "acme-files"
    taken = jobplane(HERE, "new-project", str(target), "--only", "files", "--json")
    assert printed(taken) == {"path": str(target), "functions": ["count-files", "state-manager"]}
    project = Repository(target)
    (target / "node_modules").symlink_to(HERE.root / "node_modules")
    for command in (
        ["lock", "--check", "--offline"],
        ["run", "--quiet", "jobplane", "check"],
        ["run", "--quiet", "pytest", "--quiet", "--collect-only", "-n", "0"],
    ):
        run_quietly(
            [uv_command(), *command], cwd=target, what=" ".join(command), env=plain_environment()
        )
    assert git(project, "ls-files", "--deleted", "--modified") == ""
    assert git(project, "rev-parse", "upstream") == git(project, "rev-parse", "main")


NEEDS = Needs(HERE)


@pytest.mark.parametrize("name", sorted(ALL))
def test_the_tests_of_other_functions_are_collected_without_a_deleted_one(name: str) -> None:
    unmet = {path.name for path in NEEDS.unmet({name})}
    for other in ALL - {name}:
        own = f"test_{other.replace('-', '_')}.py"
        if own in {path.name for path in NEEDS.modules.values()} and own in unmet:
            assert (name, other) in TOGETHER, f"{own} needs {name}"


# Tests of two functions together, which need both.
TOGETHER = {
    ("handle-timeout", "record-interruption"),
    ("record-interruption", "handle-timeout"),
    ("handle-timeout", "sweep-claims"),
    ("router", "processor"),
    ("deliver-webhook", "status"),
    ("state-manager", "count-files"),
}


def test_entries_of_a_template_are_removed_with_their_comments() -> None:
    """The rest of the text stays as it is."""
    text = "Resources:\n  # One.\n  A:\n    Type: X\n\n  # Two.\n  B:\n    Type: Y\n"
    assert without(text, frozenset({"A"})) == "Resources:\n\n  # Two.\n  B:\n    Type: Y\n"
    assert without(text, frozenset({"B"})) == "Resources:\n  # One.\n  A:\n    Type: X\n"
    assert without(text, frozenset()) == text


SAYS = saying(frozenset({"router", "status"}), frozenset({"robots"}), frozenset({"[Ss]ocket"}))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("# T\n\nThe router.\n\nAll else.\n\nMore.\n", "# T\n\nAll else.\n\nMore.\n"),
        ("# T\n\n- a\n- `status`\n- b\n", "# T\n\n- a\n- b\n"),
        ("# T\n\nIts status.\n", "# T\n\nIts status.\n"),
        ("# T\n\n|a|\n|---|\n|`status`|\n|x|\n|y|\n", "# T\n\n|a|\n|---|\n|x|\n|y|\n"),
        ("# T\n\nA.\n\n## Sockets\n\nB.\n\n## C\n\nD.\n", "# T\n\nA.\n\n## C\n\nD.\n"),
        ("# T\n\nOne.\n\n## A\n\nrouter\n\n## B\n\nC.\n", "# T\n\nOne.\n\n## B\n\nC.\n"),
        ("# T\n\nA socket. B.\n\nC.\n\nD.\n", "# T\n\nC.\n\nD.\n"),
        ("# T\n\nA. A socket. It b. C.\n\nD.\n", "# T\n\nA. C.\n\nD.\n"),
        ("# T\n\nA. So:\n\n```sh\nrouter\n```\n\nB.\nC.\nD.\n", "# T\n\nA.\n\nB.\nC.\nD.\n"),
        ("# T\n\nSo:\n\n- router\n- a\n", "# T\n\nSo:\n\n- a\n"),
        ("# T\n\n- a\n- b\n  c. Its socket.\n\nC.\n", "# T\n\n- a\n- b c.\n\nC.\n"),
        ("# Socket\n\nA.\n", None),
        ("# T\n\nlibs/robots\n\nA socket.\n", None),
        ("# T\n\nA.\n\nThese:\n\n- router\n\nB.\n", "# T\n\nA.\n\nB.\n"),
        ("# T\n\nA.\n\nThese:\n\n- router\n- b\n", "# T\n\nA.\n\nThese:\n\n- b\n"),
        ("# T\n\nA.\n\nB\nb\nb.\n\nDo:\n\n```sh\nrouter\n```\n", "# T\n\nA.\n\nB\nb\nb.\n"),
        ("# T\n\n| a |\n|---|\n| status |\n| b |\n", "# T\n\n| a |\n|---|\n| b |\n"),
    ],
)  # fmt: skip
def test_paragraphs_about_missing_functions_are_removed(text: str, left: str | None) -> None:
    """With headings whose text is removed, and pages that are almost empty."""
    assert filtered(text, SAYS) == left


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("uv run jobplane deploy status --stage a", "uv run jobplane deploy claim --stage a"),
        ("  jobplane invoke router -   # no id", "  jobplane invoke claim -    # no id"),
        ("jobplane invoke status done --watch", "jobplane invoke claim acquired --watch"),
        ("jobplane deploy router status    # two", "jobplane deploy claim            # two"),
        ("jobplane deploy claim status # two", "jobplane deploy claim        # two"),
        ("jobplane event status done > a.json  # x", "jobplane event claim acquired > a.json  # x"),
        ("name=router", "name=claim"),
        ("jobplane invoke claim done", "jobplane invoke claim done"),
        ("echo | jobplane invoke router -", "echo | jobplane invoke router -"),
        ("jobplane logs router --stage $stage", "jobplane logs router --stage $stage"),
    ],
)
def test_examples_of_missing_functions_are_replaced(command: str, shown: str) -> None:
    """Also the name of the case."""
    assert exemplified(command, frozenset({"router", "status"}), "claim", "acquired") == shown


@pytest.mark.parametrize("page", [*(HERE.root / "docs").glob("*.md")], ids=lambda page: page.name)
def test_a_page_without_missing_functions_is_unchanged(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert filtered(text, saying(frozenset(), frozenset(), frozenset())) == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "job-flow"], "missing PATH"),
        (["PATH"], "missing --only PART"),
        (["PATH", "--only", "jobs"], "unknown part 'jobs'; choose from job-flow, status"),
        (["PATH/Acme", "--only", "files"], "invalid project name 'Acme': use 2 to 20 of a-z"),
        (["HERE/acme", "--only", "files"], "is inside this project: choose a folder outside"),
        (["PATH", "--update"], "is not a project of `jobplane new-project`"),
        (["PATH", "--update", "--only", "files"], "--update uses the parts that the project has"),
    ],
)
def test_a_wrong_call_gets_the_fault_and_the_remedy(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    places = {"PATH": str(tmp_path / "acme"), "HERE": str(HERE.root)}
    given = [re.sub("^(PATH|HERE)", lambda place: places[place[0]], each) for each in arguments]
    done = jobplane(HERE, "new-project", *given)
    assert done.returncode != 0
    assert said in done.stderr.replace("\n", " "), done.stderr


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "file").touch()
    done = jobplane(HERE, "new-project", str(tmp_path / "acme"), "--only", "files")
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert (tmp_path / "acme" / "file").is_file()
