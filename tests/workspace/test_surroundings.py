"""Verbs work with any shell, locale, disk and terminal."""

import ast
import errno
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jobplane import SOURCES, cli
from jobplane.fuzzing.runs import explore_guided
from jobplane.stage.framework import FRAMEWORK, install_framework
from jobplane.stage.stages import Stage, State
from jobplane.tree.repository import Repository
from lambdapack.environments import plain_environment
from lambdapack.tools import ToolError

HERE = Repository.here()
COMMAND = Path(sys.executable).with_name("jobplane")
CASE = ("invoke", "claim", "acquired", "--in-process")
STARTS = frozenset({"run", "Popen", "check_output", "check_call", "call"})

type Done = "subprocess.CompletedProcess[str]"


def run(*arguments: str, **environment: str) -> Done:
    """Run the installed command as a shell does."""
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=HERE.root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_no_subprocess_inherits_the_users_environment() -> None:
    for path in (path for folder in SOURCES for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "subprocess"
                and node.func.attr in STARTS
            ):
                named = {keyword.arg for keyword in node.keywords}
                assert "env" in named, f"{path.relative_to(HERE.root)}:{node.lineno}"


def test_every_call_of_uv_ignores_the_users_settings() -> None:
    started = 0
    for path in (HERE.root / "scripts" / "jobplane").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.unparse(node.body) if isinstance(node, ast.FunctionDef) else ""
            calls = text.count("uv_command()")
            started += calls
            environments = re.findall(r"env=uv_\w*environment\(\)", text)
            assert len(environments) >= calls, f"{path.relative_to(HERE.root)}:{node.lineno}"
    assert started > 5


def test_fuzz_calls_uv_without_the_users_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen.json"
    uv = tmp_path / "uv"
    uv.write_text(
        f"#!{sys.executable}\nimport json, os, pathlib\n"
        f"pathlib.Path({str(seen)!r}).write_text(json.dumps(dict(os.environ)))\n"
    )
    uv.chmod(0o755)
    monkeypatch.setenv("UV", str(uv))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://foreign.example")
    monkeypatch.setenv("UV_PROJECT_ENVIRONMENT", "elsewhere")
    with pytest.raises(ToolError, match="fuzzing claim ended without a report"):
        explore_guided(HERE, "claim", 1, 1)
    found = json.loads(seen.read_text())
    assert "UV_DEFAULT_INDEX" not in found
    assert found["UV_PROJECT_ENVIRONMENT"] == "elsewhere"


def test_version_prints_the_projects_version() -> None:
    project = tomllib.loads((HERE.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"jobplane {project['version']}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("deploy", "--stage", "dev", "--yes"),
        ("down", "--stage", "dev", "--yes"),
        ("info", "--stage", "dev"),
        ("policy", "--stage", "dev"),
        ("seed-files", "--stage", "dev", "--yes"),
        ("invoke", "claim", "no-fence", "--stage", "dev"),
    ],
    ids=" ".join,
)
def test_an_unknown_aws_profile_is_named_with_the_remedy(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, AWS_PROFILE="gone")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "Error: The config profile (gone) could not be found: set AWS_PROFILE to one of those that "
        "`aws configure list-profiles` prints, or unset it"
    )


def test_the_framework_is_installed_despite_omit_dev(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, tree, framework = (tmp_path / name for name in ("home", "tree", "tree/framework"))
    for folder in (home, framework):
        folder.mkdir(parents=True)
    (home / ".npmrc").write_text("omit=dev\noffline=true\n")
    (framework / "osls.js").write_text("")
    package = {"name": "framework", "version": "1.0.0", "bin": {"osls": "osls.js"}}
    (framework / "package.json").write_text(json.dumps(package))
    wanted = {"devDependencies": {"framework": "file:framework"}}
    packages = {
        "": wanted,
        "framework": {"version": "1.0.0", "dev": True, "bin": {"osls": "osls.js"}},
        "node_modules/framework": {"resolved": "framework", "link": True},
    }
    lock = {"name": "tree", "lockfileVersion": 3, "packages": packages}
    (tree / "package.json").write_text(json.dumps(wanted))
    (tree / "package-lock.json").write_text(json.dumps(lock))
    monkeypatch.setenv("HOME", str(home))
    install_framework(Repository(tree))
    assert (tree / FRAMEWORK).exists()


@pytest.mark.parametrize(
    "name",
    [
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "PYTHONPATH", "PYTHONHOME"),
        *("NODE_ENV", "npm_config_omit", "NPM_CONFIG_PRODUCTION", "AWS_PROFILE", "VIRTUAL_ENV"),
        *("AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_USE_FIPS_ENDPOINT"),
    ],
)
def test_a_program_does_not_get_a_variable_of_the_user(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of git, Python, npm, or the AWS account."""
    monkeypatch.setenv(name, "foreign")
    assert plain_environment().get(name) is None


def test_osls_on_aws_gets_profile_proxy_and_ca_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"AWS_PROFILE": "work", "HTTPS_PROXY": "http://proxy", "NODE_EXTRA_CA_CERTS": "/ca"}
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    assert kept.items() <= plain_environment(aws=True).items()


@pytest.mark.parametrize("module", ["yaml", "click", "boto3", "rich", "typing"])
def test_modules_of_PYTHONPATH_are_not_imported(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("raise SystemExit('imported')\n")
    done = run("list", "--json", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "claim" in done.stdout


@pytest.mark.parametrize(
    ("config", "environment"),
    [
        ("[profile work]\n", {"AWS_PROFILE": "gone"}),
        ("[profile work]\n", {"AWS_DEFAULT_PROFILE": "gone"}),
        ("not a configuration\n[", {}),
        ("[profile work]\n", {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_PROFILE": "gone"}),
    ],
)
@pytest.mark.parametrize("arguments", [CASE, ("check", "claim", "--rule", "permissions")])
def test_local_verbs_work_with_a_broken_aws_configuration(
    tmp_path: Path, config: str, environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    path = tmp_path / "config"
    path.write_text(config)
    done = run(*arguments, AWS_CONFIG_FILE=str(path), **environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=str,
)
def test_a_character_that_the_terminal_lacks_is_escaped(environment: dict[str, str]) -> None:
    done = run("event", "websocket-connect", "--set", 'headers.Host="a\\u2026"', **environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["headers"]["Host"] == "a\u2026"


def test_a_verb_works_without_HOME() -> None:
    without = {name: value for name, value in os.environ.items() if name != "HOME"}
    command = [COMMAND, *CASE]
    done = subprocess.run(command, cwd=HERE.root, env=without, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "</dev/null"])
def test_a_verb_works_with_a_closed_stream(redirection: str) -> None:
    for arguments in ("event --list", "event sqs"):
        line = f"{COMMAND} {arguments} {redirection}"
        done = subprocess.run(["sh", "-c", line], capture_output=True, cwd=HERE.root)
        assert (done.returncode, done.stderr) == (0, b""), arguments


def test_a_closed_pipe_ends_the_command_without_a_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [COMMAND, "event", "--list"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_is_an_error_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, "event", "--list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: No space left on device. Free space on that disk, then repeat the command\n"
    )


def test_an_unwritable_path_is_an_error_line_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / ".jobplane"))

    monkeypatch.setattr(cli, "jobplane", refuse)
    monkeypatch.setattr(cli, "_close_stdout", lambda: None)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(
        f"Error: {tmp_path}/.jobplane: Read-only file system. The command writes below .jobplane/"
    )


def test_a_stage_creates_clients_of_every_service_repeatedly(tmp_path: Path) -> None:
    state = State(pid=1, started="", port=1, region="eu-west-1", log="", jwt_secret="x")
    stage = Stage(Repository(tmp_path), "local")
    stage.write_state(state)
    for service in ("lambda", "s3", "dynamodb", "s3"):
        assert stage.client(service).meta.endpoint_url == "http://127.0.0.1:1"
