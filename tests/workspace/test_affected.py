"""`jobplane affected`, compared with full rebuilds and compiled stacks."""

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from jobplane.deploy.affected import THE_BUILDER, Change, Tree, compare
from jobplane.deploy.compiled import StackTemplate, package
from jobplane.stage.stages import Stage
from jobplane.tree.configuration import logical_id, references, role_id
from jobplane.tree.repository import Repository
from lambdapack.artifacts import Builder, Settings
from tests.workspace.copies import (
    Built,
    add_function,
    commit,
    copy_here,
    copy_of,
    edit,
    git,
    jobplane,
    printed,
    share_artifacts,
    share_wheels,
    touch,
    under_git,
)
from tests.workspace.lib_environments import LIBS

FUNCTIONS = [function.name for function in Repository.here().functions()]
FUNCTION = "AWS::Lambda::Function"

type Edit = Callable[[Repository], None]


def difference(before: Repository, after: Repository) -> Change:
    return compare(Tree(before), Tree(after), "before", "0" * 40)


def rebuilt(before: Built, after: Repository) -> set[str]:
    """The functions whose artifacts change in a full build."""
    share_wheels(before[0], after)
    artifacts = Builder(after, Settings.local()).build(after.functions())
    return {it.name for it in artifacts if it.digest != before[1][it.name].digest}


def artifacts_of(change: Change) -> set[str]:
    return {each.name for each in change.functions if each.artifact}


def configurations_of(change: Change) -> set[str]:
    return {each.name for each in change.functions if each.configuration}


def reasons_of(change: Change, name: str) -> list[str]:
    (found,) = [each for each in change.functions if each.name == name]
    return found.reasons


def a_template(repository: Repository) -> None:
    with (repository.root / "templates" / "index.json").open("a") as index:
        index.write("\n")


def shippers_of_templates(repository: Repository) -> set[str]:
    folder = repository.root / "templates"
    return {function.name for function in repository.functions() if folder in function.data}


def a_right(repository: Repository) -> None:
    edit(
        repository,
        "functions/claim/function.yml",
        "Action: dynamodb:UpdateItem",
        "Action: [dynamodb:UpdateItem, dynamodb:GetItem]",
    )


@pytest.mark.parametrize("lib", LIBS)
def test_a_lib_affects_the_functions_that_ship_it(built: Built, tmp_path: Path, lib: str) -> None:
    repository, artifacts = built
    after = copy_of(repository, tmp_path / "after")
    touch(after, f"libs/{lib}/src/jobplane_{lib}/__init__.py")
    change = difference(repository, after)
    assert artifacts_of(change) == {
        name
        for name, artifact in artifacts.items()
        if f"jobplane_{lib}/__init__.py"
        in zipfile.ZipFile(repository.root / artifact.zip).namelist()
    }
    assert not configurations_of(change)
    for each in change.functions:
        (reason,) = each.reasons
        assert reason.startswith(f"libs/{lib}: __init__.py")


def test_affected_functions_are_those_that_a_rebuild_changes(built: Built, tmp_path: Path) -> None:
    after = copy_of(built[0], tmp_path / "after")
    edited = FUNCTIONS[::2]
    for function in after.select(tuple(edited)):
        touch(after, f"functions/{function.name}/{function.module}.py")
    touch(after, "libs/tokens/src/jobplane_tokens/__init__.py")
    a_template(after)
    a_right(after)
    change = difference(built[0], after)
    assert artifacts_of(change) == rebuilt(built, after) >= {*edited, "claim"}
    assert artifacts_of(change) < set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_affected_by_its_file(built: Built, tmp_path: Path, name: str) -> None:
    after = copy_of(built[0], tmp_path / "after")
    path = f"functions/{name}/{name.replace('-', '_')}.py"
    touch(after, path)
    change = difference(built[0], after)
    assert [(each.name, each.reasons) for each in change.functions] == [(name, [path])]
    assert not change.needs_the_stack


def test_files_outside_of_artifacts_affect_no_function(built: Built, tmp_path: Path) -> None:
    after = copy_of(built[0], tmp_path / "after")
    (after.root / "functions/claim/events/acquired.json").write_text("{}")
    touch(after, "libs/client/src/jobplane_client/__init__.py")
    touch(after, "libs/keys/README.md")
    change = difference(built[0], after)
    assert not change.functions
    assert not change.stack


def another_version(repository: Repository, distribution: str) -> None:
    """Lock another version, and rename the files that have it in their name."""
    path = repository.root / "uv.lock"
    text = path.read_text()
    block = re.search(rf'\[\[package\]\]\nname = "{re.escape(distribution)}"\n.*?\n\n', text, re.S)
    assert block is not None
    (version,) = re.findall(r'^version = "(.+)"', block[0], re.M)
    path.write_text(text.replace(block[0], block[0].replace(version, "999.1")))


def test_another_locked_version_affects_functions_that_ship_it(
    built: Built, tmp_path: Path
) -> None:
    before = Tree(built[0])
    users: dict[str, set[str]] = {}
    for name, closure in before.closures.items():
        for distribution in closure.locked:
            users.setdefault(distribution, set()).add(name)
    # One distribution of each set of users.
    chosen = {frozenset(names): distribution for distribution, names in users.items()}
    assert len(chosen) > 2
    for names, distribution in chosen.items():
        after = copy_of(built[0], tmp_path / distribution)
        another_version(after, distribution)
        change = compare(before, Tree(after), "before", "0" * 40)
        assert artifacts_of(change) == names
        for name in names:
            (reason,) = reasons_of(change, name)
            assert re.match(rf"uv\.lock: {re.escape(distribution)} \S+ → 999\.1", reason)


def test_an_indirect_dependency_comes_with_its_direct_one(built: Built, tmp_path: Path) -> None:
    after = copy_of(built[0], tmp_path / "after")
    another_version(after, "urllib3")
    (reason,) = reasons_of(difference(built[0], after), "claim")
    assert reason.endswith("→ 999.1 ← botocore")


def test_a_data_file_affects_the_functions_that_ship_its_folder(
    built: Built, tmp_path: Path
) -> None:
    after = copy_of(built[0], tmp_path / "after")
    a_template(after)
    change = difference(built[0], after)
    assert artifacts_of(change) == shippers_of_templates(after) != set()
    assert {tuple(each.reasons) for each in change.functions} == {("templates/index.json",)}


def test_an_iam_action_affects_artifact_and_configuration(built: Built, tmp_path: Path) -> None:
    after = copy_of(built[0], tmp_path / "after")
    a_right(after)
    change = difference(built[0], after)
    assert artifacts_of(change) == configurations_of(change) == {"claim"}
    assert change.needs_the_stack


def test_a_change_of_the_builder_affects_every_artifact(tmp_path: Path) -> None:
    before = copy_here(tmp_path / "before")
    after = copy_of(before, tmp_path / "after")
    touch(after, "scripts/jobplane/verbs/logs.py")
    assert not difference(before, after).functions
    touch(after, "scripts/jobplane/stage/log_lines.py")
    assert not difference(before, after).functions
    touch(after, "libs/lambdapack/src/lambdapack/thinning/sdk.py")
    change = difference(before, after)
    assert artifacts_of(change) == set(FUNCTIONS)
    assert {tuple(each.reasons) for each in change.functions} == {(THE_BUILDER,)}


def test_new_and_removed_functions_are_reported_as_such(built: Built, tmp_path: Path) -> None:
    after = copy_of(built[0], tmp_path / "after")
    add_function(after, "renew", like="claim")
    shutil.rmtree(after.root / "functions" / "status")
    change = difference(built[0], after)
    states = {each.name: each.state for each in change.functions}
    assert states.items() >= {("renew", "new"), ("status", "removed")}
    assert change.needs_the_stack


# Edits that change the template, which is compiled before and after.


def one_each(repository: Repository) -> None:
    """A setting of one function, a parameter of another, a rule of a third."""
    edit(repository, "functions/claim/function.yml", "memorySize: 256", "memorySize: 384")
    edit(repository, "serverless.yml", "leaseSeconds: 120", "leaseSeconds: 130")
    edit(repository, "resources/job-flow.yml", "that ended badly\n", "that went wrong\n")


def a_table(repository: Repository) -> None:
    path = repository.root / "resources" / "tables.yml"
    text = path.read_text()
    begin = text.index("  ConnectionsTable:")
    at = text.index("BillingMode: PAY_PER_REQUEST", begin)
    changed = text[:at] + "TableClass: STANDARD_INFREQUENT_ACCESS\n      " + text[at:]
    path.write_text(changed)


def behind_a_queue(repository: Repository) -> None:
    path = repository.root / "resources" / "queues.yml"
    text = path.read_text()
    begin = text.index("  WebhooksDeadLetterQueue:")
    path.write_text(
        text[:begin] + re.sub(r"(MessageRetentionPeriod: )\d+", r"\g<1>3600", text[begin:], count=1)
    )


def for_one_stage(repository: Repository) -> None:
    edit(repository, "serverless.yml", "logRetentionInDays: 365", "logRetentionInDays: 400")


def the_job_flow(repository: Repository) -> None:
    path = repository.root / "resources" / "job-flow.asl.yml"
    path.write_text(path.read_text().replace("Comment: ", "Comment: 'Another.' # ", 1))


def compiled_at(repository: Repository) -> StackTemplate:
    with package(Stage(repository, "prod")) as made:
        return made.template


def seen_by(template: StackTemplate, repository: Repository, name: str) -> dict[str, object]:
    """The template's part for a function: its resources and what they refer to."""
    (function,) = repository.select((name,))
    found = template.own(function)
    waiting = {logical_id(function), role_id(function)}
    # Another function's configuration does not count, even if this one invokes it.
    others = {name for name, it in template.resources.items() if it["Type"] == FUNCTION} - found
    while waiting:
        used = references(template.resources[waiting.pop()]) & template.resources.keys() - others
        waiting |= used - found
        found |= used
    return {logical: template.resources[logical] for logical in found}


@pytest.fixture(scope="module")
def prod(
    built: Built, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Repository, StackTemplate]:
    """A copy with artifacts, and its stack as compiled for AWS."""
    repository = copy_here(tmp_path_factory.mktemp("prod") / "copy")
    share_artifacts(built[0], repository)
    return repository, compiled_at(repository)


@pytest.mark.parametrize(
    "change_it", [one_each, a_table, behind_a_queue, for_one_stage], ids=lambda it: it.__name__
)
def test_the_affected_configurations_are_those_whose_template_changes(
    prod: tuple[Repository, StackTemplate], tmp_path: Path, change_it: Edit
) -> None:
    before, template = prod
    after = copy_of(before, tmp_path / "after")
    share_artifacts(before, after)
    change_it(after)
    again = compiled_at(after)
    differing = {
        name for name in FUNCTIONS if seen_by(template, before, name) != seen_by(again, after, name)
    }
    change = difference(before, after)
    assert configurations_of(change) == differing != set()
    assert not artifacts_of(change)


def test_a_changed_state_machine_affects_the_stack_and_no_function(
    prod: tuple[Repository, StackTemplate], tmp_path: Path
) -> None:
    after = copy_of(prod[0], tmp_path / "after")
    the_job_flow(after)
    change = difference(prod[0], after)
    assert not change.functions
    assert change.stack == ["resources/job-flow.asl.yml"]
    assert change.needs_the_stack


def test_a_resource_is_reported_with_what_refers_to_it(built: Built, tmp_path: Path) -> None:
    after = copy_of(built[0], tmp_path / "after")
    a_table(after)
    behind_a_queue(after)
    change = difference(built[0], after)
    assert (
        "resources/tables.yml: ConnectionsTable, referenced by functions/connect/function.yml"
        in reasons_of(change, "connect")
    )
    assert reasons_of(change, "deliver-webhook") == [
        "resources/queues.yml: WebhooksDeadLetterQueue, referenced by WebhooksQueue"
    ]


def test_a_changed_framework_script_affects_every_configuration(tmp_path: Path) -> None:
    before = copy_here(tmp_path / "before")
    after = copy_of(before, tmp_path / "after")
    with (after.root / "scripts/serverless/functions.js").open("a") as script:
        script.write("// touched\n")
    change = difference(before, after)
    assert configurations_of(change) == set(FUNCTIONS)
    assert not artifacts_of(change)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return under_git(copy_here(tmp_path / "repository"))


def test_the_working_tree_is_compared_with_a_revision(repository: Repository) -> None:
    """HEAD by default, with uncommitted and untracked files; git's state stays as it is."""
    assert printed(jobplane(repository, "affected", "--json"))["functions"] == []
    touch(repository, "functions/claim/claim.py")
    commit(repository)
    (repository.root / "functions/connect/added.py").write_text("ADDED = True\n")
    before = git(repository, "status", "--porcelain", "--branch")
    now = printed(jobplane(repository, "affected", "--json"))
    assert [each["name"] for each in now["functions"]] == ["connect"]
    since = jobplane(repository, "affected", "--since", "HEAD~1", "--names")
    assert since.stdout.split() == ["claim", "connect"]
    assert git(repository, "status", "--porcelain", "--branch") == before


def test_three_dots_compare_with_the_merge_base(repository: Repository) -> None:
    git(repository, "switch", "--quiet", "--create", "feature")
    touch(repository, "functions/claim/claim.py")
    commit(repository)
    git(repository, "switch", "--quiet", "main")
    touch(repository, "functions/connect/connect.py")
    commit(repository)
    git(repository, "switch", "--quiet", "feature")
    left = jobplane(repository, "affected", "--since", "main...", "--names")
    assert left.stdout.split() == ["claim"]
    whole = jobplane(repository, "affected", "--since", "main", "--names")
    assert whole.stdout.split() == ["claim", "connect"]


def test_an_unknown_revision_is_exit_code_2_with_its_name(repository: Repository) -> None:
    for revision in ("nonsense", "nonsense..."):
        done = jobplane(repository, "affected", "--since", revision)
        assert done.returncode == 2
        assert f"git does not know the commit '{revision}'" in done.stderr


def test_it_prints_functions_and_reasons(repository: Repository) -> None:
    assert jobplane(repository, "affected").stdout.startswith("nothing differs from HEAD (")
    touch(repository, "functions/claim/claim.py")
    the_job_flow(repository)
    lines = jobplane(repository, "affected").stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["claim", "artifact"],
        ["functions/claim/claim.py"],
    ]
    assert lines[2].startswith("the stack")
    assert lines[3].strip() == "resources/job-flow.asl.yml"


def test_GIT_DIR_of_another_repository_is_ignored(tmp_path: Path) -> None:
    """A git hook of that repository sets it."""
    repository = under_git(copy_of(Repository.here(), tmp_path / "copy"))
    other = tmp_path / "other"
    other.mkdir()
    git(Repository(other), "init", "--quiet")
    done = jobplane(
        repository,
        *("affected", "--names"),
        GIT_DIR=str(other / ".git"),
        GIT_WORK_TREE=str(other),
        GIT_INDEX_FILE=str(other / "index"),
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_without_a_git_repository_the_error_has_the_remedy(tmp_path: Path) -> None:
    copy = copy_of(Repository.here(), tmp_path / "copy")
    done = jobplane(copy, "affected", GIT_CEILING_DIRECTORIES=str(tmp_path))
    assert done.returncode == 1
    assert f"{copy.root} is not in a git repository" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_machine_without_git_gets_an_error_that_names_it(tmp_path: Path) -> None:
    copy = copy_of(Repository.here(), tmp_path / "copy")
    done = jobplane(copy, "affected", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "Error: git is missing: install it from https://git-scm.com/\n"


def test_all_functions_are_new_compared_with_a_commit_before_the_project(tmp_path: Path) -> None:
    whole = Repository(tmp_path / "repository")
    whole.root.mkdir()
    git(whole, "init", "--quiet")
    git(whole, "commit", "--quiet", "--allow-empty", "--message", "empty")
    (whole.root / "readme").touch()
    commit(whole)
    copy = copy_of(Repository.here(), whole.root / "below" / "project")
    commit(whole)
    for since in ("HEAD~1", "HEAD~2"):
        done = jobplane(copy, "affected", "--names", "--since", since)
        assert done.stdout.split() == FUNCTIONS, done.stderr
    assert "serverless.yml (new)" in jobplane(copy, "affected", "--since", "HEAD~1").stdout
