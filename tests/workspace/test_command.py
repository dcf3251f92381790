"""The command: help, exit codes, start-up, and foreign processes."""

import errno
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import click
import pytest
from botocore.exceptions import NoRegionError
from click.testing import CliRunner

from jobplane import cli
from jobplane.cli import TOUR
from jobplane.cli import jobplane as command
from jobplane.deploy import description, local_stage
from jobplane.reference import verbs
from jobplane.reference.documents import with_tables
from jobplane.stage import emulator, framework, log_lines
from jobplane.stage.stages import Stage, State
from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Repository
from lambdapack.artifacts import Builder
from lambdapack.locks import exclusive
from lambdapack.tools import ToolError
from tests.workspace.copies import (
    UNREAD,
    Done,
    edit,
    jobplane,
    printed,
    program,
    refusal,
    succeeded,
)

ROOT = Repository.here().root
CONTEXT = click.Context(command)
VERBS = command.list_commands(CONTEXT)


def command_of(verb: str) -> click.Command:
    found = command.get_command(CONTEXT, verb)
    assert found is not None
    return found


def test_help_lists_each_verb_once_on_a_line_of_80_columns() -> None:
    assert sorted(VERBS) == sorted(name for names in TOUR.values() for name in names)
    done = CliRunner().invoke(command, ["--help"], terminal_width=80)
    assert done.exit_code == 0
    for name in VERBS:
        says = command_of(name).get_short_help_str(200)
        assert done.output.count(f"\n  {name:{max(map(len, VERBS))}}  {says}\n") == 1, name


@pytest.mark.parametrize("name", VERBS)
def test_every_verbs_help_has_a_sentence_and_a_valid_example(name: str) -> None:
    verb = command_of(name)
    assert (verb.help or "").partition("\n")[0].endswith(".")
    examples = [line for line in (verb.epilog or "").splitlines() if f"jobplane {name}" in line]
    assert examples
    known = {option for each in verb.params for option in (*each.opts, *each.secondary_opts)}
    for line in examples:
        called = re.split(r" [|#&] | && |\)", line.partition(f"jobplane {name}")[2])[0]
        used = set(re.findall(r"(?<= )--?[a-z][a-z-]*", called))
        assert used <= known | {"--help"}, line


def test_the_documentation_lists_every_verb() -> None:
    text = (ROOT / verbs.DOCUMENT).read_text(encoding="utf-8")
    made = with_tables(text, verbs.tables(command))
    assert text == made, "run `jobplane docs commands`"


@pytest.mark.parametrize(
    "arguments",
    [
        "unknown", "build unknown", "build --arch vax", "invoke connect unknown --in-process",
        "invoke connect --all --in-process --stage x", "invoke connect uv.lock --in-process",
        "info --json --export", "deploy --param logLevel", "logs --since yesterday",
        "up --stage 'Not A Name'", "token --user u", "token --user '' --tenant t",
        "seed-files --fault unknown=1", "seed-files --fault stale_locks=some",
        "seed-files --fault stale_locks=1 --faults 1",
    ],
)  # fmt: skip
def test_a_wrong_call_exits_with_2_without_a_traceback(arguments: str) -> None:
    assert "Error:" in refusal(jobplane(Repository.here(), *shlex.split(arguments)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("deploy --param logLevel=", "'logLevel=' does not have the form NAME=VALUE"),
        ("deploy --param logLevel=INFO --param nosuch=1", "unknown parameter 'nosuch'"),
        ("deploy --param nosuch=1", "known are: alarmMail, alarms, "),
        ("token --user u --tenant t --ttl 0", "'--ttl': 0 is not"),
        ("token --user u --tenant t --ttl -60", "'--ttl': -60 is not"),
    ],
)
def test_a_wrong_value_is_refused_with_its_reason(arguments: str, said: str) -> None:
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert said in done.stderr


def test_an_undeclared_parameter_is_refused(tmp_path: Path) -> None:
    repository = copy_repository(Repository.here(), tmp_path / "copy", without=UNREAD)
    before = framework.parameters(repository)
    edit(repository, "serverless.yml", "    staging:\n", "    trial: {ofTrial: 1}\n    staging:\n")
    asking = "environment:\n  ASKED: ${param:askedFor, ''}\n"
    edit(repository, "functions/claim/function.yml", "environment:\n", asking)
    added = set(framework.parameters(repository)) - set(before)
    assert added == {"ofTrial", "askedFor"}


def test_every_parameter_of_a_stage_can_be_set() -> None:
    made = stage_parameters().keys()
    assert {"jwtSecret", "tablePrefix"} <= made <= set(framework.parameters(Repository.here()))


def test_a_parameters_value_reaches_the_template() -> None:
    made = stage_parameters("corsOrigin=https://example.org/?a=b", "alarmMail=a=1@example.org")
    assert made["httpCors"]["allowedOrigins"] == ["https://example.org/?a=b"]
    assert made["alarmMail"] == "a=1@example.org"


def test_functions_get_the_name_of_the_secrets_parameter() -> None:
    own, other = stage_parameters(), stage_parameters("jwtSecret=ssm:/shared/what.signs_tokens-1")
    assert own["jwtSecret"] == f"ssm:{Repository.here().names('prod').parameter('jwt-secret')}"
    assert other["jwtSecret"] == "ssm:/shared/what.signs_tokens-1"
    for made in (own, other):
        name = made["jwtSecret"].removeprefix("ssm:")
        assert made["jwtSecretArn"]["Fn::Join"][1][-1] == f":parameter{name}"


@pytest.mark.parametrize(
    "literal",
    ["0123456789abcdef0123456789abcdef", "ssm:", "ssm:name", "ssm:/a b", "ssm:/a:3", "env:SECRET"],
)
def test_a_secret_in_the_configuration_is_refused(literal: str) -> None:
    done = run_stage_js(f"jwtSecret={literal}")
    assert done.returncode != 0
    assert "jwtSecret must name an SSM parameter, as ssm:/path/name" in done.stderr


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["jwksUrl=http://us.example/jwks"], "jwksUrl must be an https URL"),
        (["jwksUrl=https://us.example/jwks"], "jwksUrl needs jwtIssuer"),
        (
            ["jwksUrl=https://us.example/jwks", "jwtIssuer=https://us.example"],
            "uv add --package jobplane-connect 'jobplane-tokens[asymmetric]'",
        ),
        (["jwtKeySet={}"], "uv add --package jobplane-status 'jobplane-tokens[asymmetric]'"),
    ],
)
def test_public_keys_without_what_they_need_are_refused(given: list[str], problem: str) -> None:
    done = run_stage_js(*given)
    assert done.returncode != 0
    assert problem in done.stderr


@pytest.mark.parametrize(
    ("region", "domain"),
    [
        *((region, "amazonaws.com") for region in ("eu-west-1", "ap-southeast-5", "us-gov-west-1")),
        ("cn-north-1", "amazonaws.com.cn"),
        ("us-iso-east-1", "c2s.ic.gov"),
    ],
)
def test_the_addresses_of_a_stage_are_in_its_partition(region: str, domain: str) -> None:
    apis = {"WebsocketsApi": "sock", "HttpApi": "http"}
    summaries = [
        {"LogicalResourceId": logical, "PhysicalResourceId": name, "ResourceType": "-"}
        for logical, name in apis.items()
    ]
    client = Mock()
    client.meta.region_name = region
    pages = [{"StackResourceSummaries": summaries}]
    client.get_paginator.return_value.paginate.return_value = pages
    stage = Mock(endpoint_url=None, client=lambda _service: client)
    stage.name = "prod"
    described = description.describe(stage)
    assert described["websocket_url"] == f"wss://sock.execute-api.{region}.{domain}/prod"
    assert described["management_url"] == f"https://sock.execute-api.{region}.{domain}/prod"
    assert described["http_url"] == f"https://http.execute-api.{region}.{domain}"


def stage_parameters(*given: str) -> Any:
    """The result of scripts/serverless/stage.js for a stage on AWS."""
    return printed(run_stage_js(*given))


def run_stage_js(*given: str) -> Done:
    service = json.dumps(Repository.here().service)
    script = f"""
        require('./scripts/serverless/stage.js')({{
            options: {{param: {json.dumps(given)}}},
            resolveVariable: async (name) => name === 'self:service' ? {service} : 'prod',
            resolveConfigurationProperty: async () => ({{default: {{}}, prod: {{}}}}),
        }}).then((made) => console.log(JSON.stringify(made)))
    """
    return program("node", "-e", script, cwd=ROOT)


def test_a_used_port_is_refused_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = copy_repository(Repository.here(), tmp_path / "copy", without=UNREAD)
    monkeypatch.setattr(Repository, "here", lambda: repository)
    monkeypatch.setattr(local_stage.framework, "install_framework", lambda _repository: None)
    monkeypatch.setattr(Builder, "build", lambda _builder, _functions: [])
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = CliRunner().invoke(command, ["up", "--stage", "taken", "--port", str(port)])
    assert done.exit_code == 1
    reason = os.strerror(errno.EADDRINUSE)
    assert done.stderr == f"Error: can't listen on port {port}: {reason}; pass another --port\n"
    assert not Stage(repository, "taken").directory.exists()


@pytest.mark.parametrize(
    "error",
    [
        click.UsageError("called wrongly"),
        click.ClickException("it failed"),
        ToolError("uv failed", "uv's own output"),
        NoRegionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_failure_is_one_error_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "jobplane", fail)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (1, 2)
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("Error: ")


def test_a_log_without_lines_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(log_lines, "events", lambda *given: asked.append(given[-1]) or ())
    arguments = ["claim", "--since", "99999d", "--stage", "elsewhere"]
    done = CliRunner().invoke(command_of("logs"), arguments)
    assert (done.exit_code, done.stdout, asked) == (0, "", [0])
    assert "no log lines in that time" in done.stderr


def test_the_help_imports_no_sdk_and_no_rich() -> None:
    script = (
        "import sys\nfrom jobplane.cli import jobplane\nimport click\n"
        "context = click.Context(jobplane)\n"
        "[jobplane.get_command(context, name) for name in jobplane.list_commands(context)]\n"
        "heavy = {'boto3', 'botocore', 'rich', 'moto', 'jwt', 'httpx'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert succeeded(program(sys.executable, "-c", script, cwd=ROOT)) == "[]\n"


def a_state(pid: int, started: str) -> State:
    return State(pid, started, port=1, region="eu-west-1", log="", jwt_secret="x")


def test_down_does_not_end_another_program_with_the_stored_pid(tmp_path: Path) -> None:
    stage = Stage(Repository(tmp_path), "local")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        try:
            stage.write_state(a_state(stranger.pid, started="long ago"))
            assert emulator.stop(stage) is False
            assert stranger.poll() is None
            assert not stage.directory.exists()
        finally:
            stranger.kill()


def test_down_ends_workers_whose_emulator_has_died(tmp_path: Path) -> None:
    stage = Stage(Repository(tmp_path), "local")
    script = tmp_path / ".jobplane" / "local" / "worker.py"
    script.parent.mkdir(parents=True)
    script.write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    launch = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, {str(script)!r}], stdout=subprocess.PIPE)\n"
        "p.stdout.readline(); print(p.pid, flush=True)\n"
    )
    leader = subprocess.Popen(
        [sys.executable, "-c", launch], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    worker = int(leader.communicate(timeout=30)[0])
    stage.write_state(a_state(leader.pid, started="then"))
    assert emulator.stop(stage) is True
    status = program("ps", "-o", "stat=", "-p", str(worker), cwd=tmp_path).stdout.strip()
    assert not status or status.startswith("Z")


def test_the_state_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    stage = Stage(Repository(tmp_path), "local")
    stage.write_state(a_state(1, "x"))
    assert stage.state_path.stat().st_mode & 0o077 == 0
    assert json.loads(stage.state_path.read_text())["pid"] == 1


def test_waiting_for_another_commands_lock_is_reported_on_stderr(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom lambdapack.locks import exclusive\n"
        "from jobplane.terminal.console import show_notes_of\nshow_notes_of('lambdapack')\n"
        "from jobplane.tree.repository import Repository\n"
        "with exclusive(Repository(Path(sys.argv[1])), 'build'):\n    print('mine')"
    )
    command, pipe = [sys.executable, "-c", script, str(tmp_path)], subprocess.PIPE
    with exclusive(Repository(tmp_path), "build"):
        waiting = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        assert waiting.stderr is not None
        assert "another command to finish (build)" in waiting.stderr.readline()
        assert waiting.poll() is None
    output, _ = waiting.communicate(timeout=30)
    assert output == "mine\n"
