"""`jobplane check`: the tree is clean, and every rule finds its faults."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from jobplane.rules import Finding, Tree, check, rule_names
from jobplane.rules.artifacts import Contents
from jobplane.tree.repository import Repository
from tests.workspace.copies import Built, Copy, copy_here

REPOSITORY = Repository.here()

type Plant = Callable[[Path], object]


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that tests don't change, with the framework's files of scripts/."""
    return copy_here(tmp_path_factory.mktemp("pristine") / "tree").root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    target = tmp_path / "tree"
    shutil.copytree(pristine, target, symlinks=True)
    return target


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has changed: {old!r}"
    path.write_text(text.replace(old, new, 1))


def line_of(path: str, text: str) -> int:
    """The number of the first line of the repository's file that holds the text."""
    lines = (REPOSITORY.root / path).read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def edited(path: str, old: str, new: str) -> Plant:
    return lambda root: edit(root / path, old, new)


def appended(path: str, text: str) -> Plant:
    return lambda root: append(root / path, text)


def written(path: str, text: str = '"""A file."""\n') -> Plant:
    def plant(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)

    return plant


def folder_renamed(root: Path) -> None:
    (root / CLAIM).rename(root / "functions" / "claim_job")
    (root / "functions" / "claim_job" / "claim.py").rename(
        root / "functions" / "claim_job" / "claim_job.py"
    )


def function_deleted(root: Path) -> None:
    shutil.rmtree(root / CLAIM)


def lines(root: Path, rule: str, *functions: str) -> list[str]:
    tree = Tree(Repository(root), functions)
    return [finding.as_line(tree) for finding in check(tree, [rule])]


CLAIM, STATUS = "functions/claim", "functions/status"
SUBSCRIPTIONS = "libs/sockets/src/jobplane_sockets/_subscriptions.py"
DELIVERY = "functions/deliver-webhook"
STEP = "functions/send-interrupt/send_interrupt.py"

# The rule, the function (none: the whole tree), the fault, the finding.
FAULTS: list[tuple[str, str, str, Plant, str]] = [
    # references
    ("references", "", "a-function-that-is-gone", function_deleted,
     "JobFlow refers to the function claim, which is not in functions/: run `jobplane delete cl"),
    ("references", "", "a-resource-that-is-gone",
     lambda root: (root / "resources" / "queues.yml").unlink(),
     "function.yml:7: references: it refers to WebhooksQueue, which is not in resources/: "),
    ("references", "", "a-resource-of-a-resource-that-is-gone",
     edited("resources/job-flow.yml", "  JobFlowLogGroup:\n    Type", "  JobFlowLog:\n    Type"),
     "JobFlow refers to JobFlowLogGroup, which is not in resources/: restore it, remove the"),
    # names
    ("names", "", "a-folder-with-underscores",
     folder_renamed, "claim_job' is not kebab-case"),
    ("names", "claim", "a-member-with-another-name",
     edited(f"{CLAIM}/pyproject.toml", 'name = "jobplane-claim"', 'name = "claims"'),
     f"{CLAIM}/pyproject.toml:2: names: the member of this folder is jobplane-claim"),
    ("names", "", "a-module-that-says-nothing",
     written("libs/keys/src/jobplane_keys/_utils.py"),
     "libs/keys/src/jobplane_keys/_utils.py:1: names: _utils.py is too general"),
    ("names", "claim", "a-second-file",
     written(f"{CLAIM}/leases.py"), f"{CLAIM}/leases.py:1: names: a function is one file"),
    ("names", "claim", "a-helper-after-the-handler",
     appended(f"{CLAIM}/claim.py", "\n\ndef late() -> None:\n    return None\n"),
     "names: `handler` is not last"),
    ("names", "status", "a-docstring-without-result",
     edited(f"{STATUS}/status.py", "Result: an answer", "An answer"),
     "does not describe the result"),
    ("names", "send-interrupt", "a-step-without-errors",
     edited(STEP, "Errors: ValidationError;", "ValidationError;"), "does not describe the errors"),
    ("names", "claim", "a-handler-by-hand",
     appended(f"{CLAIM}/function.yml", "handler: claim.handler\n"), "handler follows from"),
    ("names", "claim", "no-memory-size",
     edited(f"{CLAIM}/function.yml", "memorySize: 256\n", ""), "memorySize is missing"),
    ("names", "", "no-configuration",
     lambda root: (root / CLAIM / "function.yml").unlink(), "the folder has no function.yml"),
    ("names", "", "a-verb-with-a-hyphen",
     written("scripts/jobplane/verbs/tear-down.py"), "tear-down.py is not snake_case"),
    # handlers
    ("handlers", "claim", "a-handler-that-is-gone",
     edited(f"{CLAIM}/claim.py", "def handler(", "def handle("),
     f"{CLAIM}/claim.py:1: handlers: the deployed handler claim.handler does"),
    ("handlers", "claim", "a-handler-of-one-parameter",
     edited(f"{CLAIM}/claim.py", "def handler(event: dict[str, Any], context: Any)",
            "def handler(event: dict[str, Any])"), "handler takes (event)"),
    ("handlers", "status", "another-handler-is-deployed",
     edited("scripts/serverless/functions.js", "}.handler`", "}.main`"),
     "the deployed handler status.main does not exist"),
    ("handlers", "claim", "another-artifact-is-deployed",
     edited("scripts/serverless/functions.js", "`dist/${name}.zip`", "`dist/all.zip`"),
     "deployed from dist/all.zip"),
    # environment
    ("environment", "claim", "required-and-undeclared",
     edited(f"{CLAIM}/claim.py", "\nMAX_TEXT", '\nOTHER = os.environ["OTHER_TABLE"]\nMAX_TEXT'),
     "environment: OTHER_TABLE is not declared, so the function can't start"),
    ("environment", "claim", "optional-and-undeclared",
     edited(f"{CLAIM}/claim.py", "\nMAX_TEXT", '\nMODE = os.environ.get("MODE", "x")\nMAX_TEXT'),
     "MODE is not declared, so always its default is used"),
    ("environment", "claim", "read-by-getenv",
     edited(f"{CLAIM}/claim.py", "\nMAX_TEXT", '\nMODE = os.getenv("MODE")\nMAX_TEXT'),
     "MODE is not declared"),
    ("environment", "claim", "required-by-a-lib",
     edited("libs/telemetry/src/jobplane_telemetry/_telemetry.py",
            'os.environ.get("STAGE", "local")', 'os.environ["STAGE_NAME"]'),
     "STAGE_NAME is not declared, so the function can't start: add it to function.yml of claim"),
    ("environment", "deliver-webhook", "required-of-a-lib-by-a-parameter",
     edited("libs/webhooks/src/jobplane_webhooks/_targets.py",
            'environment.get("WEBHOOK_HOSTS", "")', 'environment["HOOK_HOSTS"]'),
     "HOOK_HOSTS is not declared"),
    ("environment", "claim", "declared-and-unread",
     edited(f"{CLAIM}/function.yml", "environment:\n", "environment:\n  COLOUR: red\n"),
     f"{CLAIM}/function.yml:5: environment: COLOUR is declared, but neither claim nor its libs"),
    ("environment", "claim", "declared-twice",
     edited(f"{CLAIM}/function.yml", "environment:\n", "environment:\n  STAGE: x\n"),
     "STAGE is declared in serverless.yml"),
    ("environment", "claim", "declared-though-lambda-sets-it",
     edited(f"{CLAIM}/function.yml", "environment:\n", "environment:\n  AWS_REGION: x\n"),
     "AWS_REGION is set by Lambda"),
    ("environment", "", "declared-for-all-and-unread",
     edited("serverless.yml", "  environment:\n", "  environment:\n    COLOUR: red\n"),
     "environment: COLOUR is declared for all functions"),
    ("environment", "claim", "a-computed-name",
     edited(f"{CLAIM}/claim.py", "\ndef optional_text(",
            "\ndef setting(name: str) -> str:\n    return os.environ[name.upper()]\n\n\n"
            "def optional_text("), "setting reads a variable whose name is computed"),
    # imports
    ("imports", "claim", "undeclared",
     edited(f"{CLAIM}/claim.py", "import time\n", "import time\n\nimport httpx\n"),
     "httpx is imported, but httpx is not declared"),
    ("imports", "claim", "undeclared-though-it-is-there",
     edited(f"{CLAIM}/claim.py", "import time\n", "import time\n\nimport urllib3\n"),
     "urllib3 is installed only as a dependency of another one"),
    ("imports", "claim", "unknown",
     edited(f"{CLAIM}/claim.py", "import time\n", "import time\n\nimport no_such_module\n"),
     "no locked distribution contains it"),
    ("imports", "claim", "lazily-undeclared",
     edited(f"{CLAIM}/claim.py", "    operation =", "    import httpx\n    operation ="),
     "httpx is not declared"),
    ("imports", "claim", "unused",
     edited(f"{CLAIM}/pyproject.toml", '"jobplane-keys",', '"jobplane-keys",\n    "httpx>=0.28",'),
     f"{CLAIM}/pyproject.toml:9: imports: httpx is declared, but never imported"),
    ("imports", "claim", "an-extra-is-needed",
     edited(f"{CLAIM}/pyproject.toml", "telemetry[xray]", "telemetry"),
     "declare jobplane-telemetry[xray]"),
    ("imports", "processor", "an-extra-is-not-needed",
     edited("functions/processor/pyproject.toml", "jobplane-robots", "jobplane-robots[image]"),
     "jobplane-robots[image] is declared and jobplane-robots needs no such extra here"),
    ("imports", "claim", "an-extra-that-is-not-there",
     edited(f"{CLAIM}/pyproject.toml", "telemetry[xray]", "telemetry[xray,otel]"),
     "jobplane-telemetry has no such extra"),
    ("imports", "", "undeclared-in-a-lib",
     edited("libs/keys/src/jobplane_keys/_clock.py", '"""\n', '"""\n\nimport httpx\n'),
     "libs/keys/src/jobplane_keys/_clock.py"),
    ("imports", "", "an-unused-extra-of-a-lib",
     edited("libs/tokens/pyproject.toml", '["cryptography', '["httpx", "cryptography'),
     "httpx of the extra 'asymmetric' is never imported"),
    # permissions
    ("permissions", "claim", "used-and-not-granted",
     edited(f"{CLAIM}/function.yml", "dynamodb:UpdateItem", "dynamodb:GetItem"),
     "permissions: update_item needs dynamodb:UpdateItem: add it to iamRoleStatements of claim"),
    ("permissions", "claim", "granted-and-not-used",
     edited(f"{CLAIM}/function.yml", "dynamodb:UpdateItem",
            "[dynamodb:UpdateItem, dynamodb:Scan]"),
     f"{CLAIM}/function.yml:{line_of(f'{CLAIM}/function.yml', 'dynamodb:UpdateItem')}: "
     "permissions: dynamodb:Scan is granted, but never used"),
    ("permissions", "claim", "a-wildcard",
     edited(f"{CLAIM}/function.yml", "dynamodb:UpdateItem", "dynamodb:*"),
     "dynamodb:* is a wildcard"),
    ("permissions", "claim", "a-denied-list",
     edited(f"{CLAIM}/function.yml", "Action: dynamodb:UpdateItem", "NotAction: dynamodb:Scan"),
     "NotAction grants what is not listed"),
    ("permissions", "disconnect", "used-by-a-lib",
     edited(SUBSCRIPTIONS,
            "    while refused := transact(dynamodb, writes):",
            "    while refused := dynamodb.put_item(Item=writes):"),
     f"_subscriptions.py:{line_of(SUBSCRIPTIONS, 'while refused := transact(')}: "
     "permissions: put_item needs dynamodb:PutItem"),
    ("permissions", "deliver-webhook", "needed-by-an-event",
     edited(f"{DELIVERY}/function.yml", "sqs:ReceiveMessage, ", ""),
     "Lambda needs sqs:ReceiveMessage for this function's events"),
    ("permissions", "connect", "an-operation-that-is-none",
     edited("functions/connect/connect.py", "dynamodb.put_item(", "dynamodb.upsert_item("),
     "dynamodb has no method 'upsert_item'"),
    ("permissions", "claim", "a-client-that-is-handed-out",
     edited(f"{CLAIM}/claim.py", "\n\n@dataclass", "\n\nwatch(dynamodb)\n\n\n@dataclass"),
     "a client goes to watch, which can't be analysed"),
    ("permissions", "claim", "a-service-that-is-computed",
     edited(f"{CLAIM}/claim.py", '"dynamodb", config', 'os.environ["ACTIVE_JOBS_TABLE"], config'),
     "a client goes to a service that is computed"),
    ("permissions", "claim", "a-resource",
     edited(f"{CLAIM}/claim.py", "\n\n@dataclass",
            '\n\ntable = boto3.resource("dynamodb").Table("t")\n\n\n@dataclass'),
     "a client goes to boto3.resource"),
    ("permissions", "", "called-by-a-state",
     edited("resources/job-flow.yml", "[sqs:CreateQueue, sqs:GetQueueUrl, sqs:SendMessage]",
            "[sqs:CreateQueue, sqs:SendMessage]"),
     "OpenHolderQueue needs sqs:GetQueueUrl: add it to the role of job-flow.asl.yml"),
    ("permissions", "", "called-by-a-state-by-another-name",
     edited("resources/job-flow.yml", "Action: s3:GetObject", "Action: s3:HeadObject"),
     "HeadAttachment needs s3:GetObject"),
    ("permissions", "", "called-by-no-state",
     edited("resources/job-flow.yml", "Action: s3:PutObject",
            "Action: [s3:PutObject, s3:DeleteObject]"),
     "s3:DeleteObject is granted to job-flow.asl.yml, but no state needs it: remove it"),
    # errors
    ("errors", "send-interrupt", "an-error-that-is-never-raised",
     edited("resources/job-flow.asl.yml", "[InterruptQueueMissingError]", "[QueueGoneError]"),
     "SendInterrupt handles QueueGoneError, which send-interrupt never raises"),
    ("errors", "send-interrupt", "an-error-that-was-renamed",
     lambda root: (root / STEP).write_text(
         (root / STEP).read_text().replace("InterruptQueueMissingError", "QueueMissingError")),
     "SendInterrupt handles InterruptQueueMissingError"),
    ("errors", "", "an-error-that-no-worker-reports",
     edited("libs/client/src/jobplane_client/_runs.py", 'PREEMPTED = "PREEMPTED"',
            'PREEMPTED = "STOPPED"'), "handles PREEMPTED, which no code raises"),
    # excuses
    ("permissions", "processor", "an-excuse-without-a-reason",
     edited("functions/processor/pyproject.toml",
            '"With it, S3 says 404 of a missing upload instead of 403."', '" "'),
     "the entry 's3:ListBucket' needs a reason"),
    ("permissions", "claim", "an-excuse-that-is-not-needed",
     appended(f"{CLAIM}/pyproject.toml",
              '\n[tool.jobplane.check.permissions]\n"sns:Publish" = "Once."\n'),
     f"{CLAIM}/pyproject.toml:21: excuses: the entry 'sns:Publish' matches no finding of"),
    ("permissions", "claim", "an-excuse-from-no-rule",
     appended(f"{CLAIM}/pyproject.toml", '\n[tool.jobplane.check.permission]\nx = "Once."\n'),
     "unknown rule 'permission'"),
]  # fmt: skip


def test_the_tree_is_clean() -> None:
    tree = Tree(REPOSITORY)
    assert [finding.as_line(tree) for finding in check(tree, rule_names())] == []


@pytest.mark.parametrize(
    ("rule", "function", "plant", "expected"),
    [
        pytest.param(rule, function, plant, said, id=f"{rule}-{name}")
        for rule, function, name, plant, said in FAULTS
    ],
)
def test_a_planted_fault_is_found_with_its_place(
    root: Path, rule: str, function: str, plant: Plant, expected: str
) -> None:
    plant(root)
    found = lines(root, rule, *filter(None, [function]))
    assert any(expected in line for line in found), found


def test_a_finding_can_be_excused(root: Path) -> None:
    edit(root / CLAIM / "function.yml", "dynamodb:UpdateItem", "[dynamodb:UpdateItem, sns:Publish]")
    (line,) = lines(root, "permissions", "claim")
    assert "sns:Publish" in line
    reason = '\n[tool.jobplane.check.permissions]\n"sns:Publish" = "Told by hand."\n'
    append(root / CLAIM / "pyproject.toml", reason)
    assert lines(root, "permissions", "claim") == []


def test_only_the_named_functions_are_checked(root: Path) -> None:
    edit(root / CLAIM / "function.yml", "dynamodb:UpdateItem", "dynamodb:GetItem")
    assert lines(root, "permissions", "connect") == []
    assert len(lines(root, "permissions", "claim")) == 2


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (f"{CLAIM}/claim.py", "def handler(:\n"),
        (f"{CLAIM}/function.yml", "events: [\n"),
        (f"{CLAIM}/pyproject.toml", "[project\n"),
        ("libs/keys/src/jobplane_keys/_ids.py", "class\n"),
    ],
)
def test_an_unreadable_file_is_one_finding(root: Path, path: str, text: str) -> None:
    (root / path).write_text(text)
    (line,) = lines(root, "permissions", "claim")
    assert line.startswith(f"{path}:")
    assert "readable: it can't be parsed" in line


def test_every_rule_has_a_test_with_a_planted_fault() -> None:
    shown = {rule for rule, *_ in FAULTS} | {"artifacts", "budgets"}
    assert shown == set(rule_names())


def tampered(built: Built, tmp_path: Path, **changes: str | None) -> list[Finding]:
    """The findings in the artifact of connect with entries added, or removed by prefix."""
    repository, artifacts = built
    target = tmp_path / "dist" / "connect.zip"
    target.parent.mkdir()
    entries = {name.replace("__", "/"): text for name, text in changes.items()}
    with (
        zipfile.ZipFile(repository.root / artifacts["connect"].zip) as source,
        zipfile.ZipFile(target, "w") as copy,
    ):
        for name in source.namelist():
            is_removed = any(t is None and name.startswith(f"{e}/") for e, t in entries.items())
            if not is_removed and name.removesuffix(".py") not in entries:
                copy.writestr(name, source.read(name))
        for name, text in entries.items():
            if text is not None:
                copy.writestr(f"{name}.py", text)
    changed = repository_with(artifacts["connect"].zip, target, repository, tmp_path)
    tree = Tree(changed, ("connect",))
    tree.__dict__["artifacts"] = artifacts
    return check(tree, ["artifacts"])


def repository_with(name: str, archive: Path, repository: Repository, tmp_path: Path) -> Repository:
    root = tmp_path / "tree"
    shutil.copytree(
        repository.root, root, symlinks=True, ignore=shutil.ignore_patterns("dist", ".jobplane")
    )
    (root / name).parent.mkdir(exist_ok=True)
    shutil.copy2(archive, root / name)
    return Repository(root)


def test_an_artifact_as_built_has_no_fault(built: Built, tmp_path: Path) -> None:
    assert tampered(built, tmp_path) == []


def test_a_missing_lib_in_an_artifact_is_found_at_its_import(built: Built, tmp_path: Path) -> None:
    found = tampered(built, tmp_path, jobplane_tokens=None)
    assert any("no jobplane_tokens" in finding.message for finding in found)
    assert any(finding.path.name == "connect.py" for finding in found)


def test_a_missing_dependency_of_a_shipped_lib_is_found(built: Built, tmp_path: Path) -> None:
    found = tampered(built, tmp_path, jwt=None)
    assert any(finding.path.name == "_verify.py" for finding in found), found


def test_a_distribution_outside_of_the_lock_is_found(built: Built, tmp_path: Path) -> None:
    (found,) = tampered(built, tmp_path, yaml__inner="")
    assert (
        "the zip contains yaml, which belongs to no locked dependency of connect" in found.message
    )


def test_a_distribution_that_no_import_needs_is_found(built: Built, tmp_path: Path) -> None:
    found = tampered(built, tmp_path, connect="import jobplane_keys, jobplane_telemetry, botocore")
    held = {finding.subject for finding in found if "but no module imports it" in finding.message}
    assert held == {"jobplane-leases", "jobplane-parameters", "jobplane-tokens", "pyjwt"}


def test_compiled_code_imports_the_packages_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("main.py", "import fast")
        archive.writestr("fast/__init__.py", "from fast import _core")
        archive.writestr("fast/_core.abi3.so", b"\x00PyInit__core\x00helper\x00another_one\x00")
        for name in ("helper", "another", "one"):
            archive.writestr(f"{name}.py", "")
    with zipfile.ZipFile(path) as archive:
        reached = Contents(archive).reached("main")
    assert reached == {"main", "fast", "fast._core", "helper"}


def budgeted(copied: Copy, target: Path, budget: str) -> Repository:
    repository = copied(target)
    path = repository.root / "pyproject.toml"
    append(path, f"\n[tool.jobplane.budgets.claim]\n{budget}\n")
    return repository


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("megabytes = 0.1", "the zip has"),
        ("modules = 10", "claim loads"),
        ('never = ["botocore"]', "importing the handler loads botocore"),
        ("seconds = 1", "unknown key seconds: a budget may have megabytes, modules, never"),
    ],
)
def test_each_budget_is_checked(copied: Copy, tmp_path: Path, budget: str, expected: str) -> None:
    repository = budgeted(copied, tmp_path, budget)
    found = lines(repository.root, "budgets", "claim")
    assert any(expected in line for line in found), found


def test_a_handler_that_fails_at_import_gives_the_reason(copied: Copy, tmp_path: Path) -> None:
    repository = copied(tmp_path)
    source = repository.root / CLAIM / "claim.py"
    edit(source, "\nMAX_TEXT", '\nOTHER = os.environ["OTHER_TABLE"]\nMAX_TEXT')
    (line,) = lines(repository.root, "budgets", "claim")
    assert "can't be imported: KeyError: 'OTHER_TABLE'" in line


def jobplane(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "jobplane", *arguments],
        cwd=REPOSITORY.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_rules_are_listed() -> None:
    done = jobplane("check", "--rules")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == rule_names()


def test_check_json_prints_a_list() -> None:
    done = jobplane("check", "claim", "--rule", "permissions", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])


def test_check_prints_findings_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    from click.testing import CliRunner

    from jobplane.verbs.check import command

    edit(root / CLAIM / "function.yml", "dynamodb:UpdateItem", "dynamodb:*")
    monkeypatch.setattr(Repository, "here", lambda: Repository(root))
    done = CliRunner().invoke(command, ["claim", "--rule", "permissions"])
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 2
    done = CliRunner().invoke(command, ["claim", "--rule", "permissions", "--json"])
    (first, _) = json.loads(done.stdout)
    assert set(first) == {"path", "line", "rule", "subject", "message"}


@pytest.mark.parametrize("arguments", [("check", "unknown"), ("check", "--rule", "unknown")])
def test_an_unknown_function_or_rule_is_exit_code_2_with_the_known_ones(
    arguments: tuple[str, ...],
) -> None:
    done = jobplane(*arguments)
    assert done.returncode == 2
    assert "known are: " in done.stderr
