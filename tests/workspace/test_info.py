"""`info` and `logs` of a local stage."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobplane.tree.repository import Repository

pytestmark = pytest.mark.e2e

HERE = Repository.here()
COMMAND = Path(sys.executable).with_name("jobplane")
ASK = "import boto3; print(boto3.client('sqs').list_queues()['QueueUrls'])"
FOREIGN = {
    "AWS_PROFILE": "gone",
    "AWS_DEFAULT_PROFILE": "gone",
    "AWS_SESSION_TOKEN": "foreign",
    "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
}


def run(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments, cwd=HERE.root, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("shell", [name for name in ("bash", "zsh", "dash") if shutil.which(name)])
def test_exported_variables_win_over_the_users_aws_configuration(
    stage_name: str, tmp_path: Path, shell: str
) -> None:
    config = tmp_path / "config"
    config.write_text("not a configuration\n[")
    script = f'eval "$({COMMAND} info --export --stage {stage_name})"; {sys.executable} -c "{ASK}"'
    done = run(shell, "-c", script, AWS_CONFIG_FILE=str(config), **FOREIGN)
    assert done.returncode == 0, done.stderr
    assert "webhooks" in done.stdout


def test_exported_variables_lead_clients_to_the_stage(stage_name: str) -> None:
    """As they are pasted from the documents, also with a `$` in the address."""
    header = "Authorization: Bearer $JOBPLANE_TOKEN"
    script = f"""
        eval "$({COMMAND} info --export --stage {stage_name})"
        curl -sS "$JOBPLANE_URL/jobs" -H "{header}"; echo " $JOBPLANE_SOCKET_URL"
    """
    done = run("bash", "-c", script, NO_PROXY="*")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r'\{"jobs":.*\} ws://.*\n', done.stdout), done.stdout


def test_osls_deploy_function_works_with_the_exported_variables(stage_name: str) -> None:
    """Whatever AWS_PROFILE is."""
    osls = "node_modules/.bin/osls deploy function -f status -s"
    script = f'eval "$({COMMAND} info --export --stage {stage_name})"; {osls} {stage_name}'
    done = run("bash", "-c", script, AWS_PROFILE="gone")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_local_stage_works_with_any_aws_profile(stage_name: str) -> None:
    done = run(COMMAND, "invoke", "claim", "held", "--stage", stage_name, **FOREIGN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok   claim/held" in done.stdout


def test_info_prints_a_token_on_one_line(stage_name: str) -> None:
    """And in its JSON."""
    told = json.loads(run(COMMAND, "info", "--json", "--stage", stage_name).stdout)
    assert told["token"].count(".") == 2
    printed = run(COMMAND, "info", "--stage", stage_name, COLUMNS="20").stdout
    (line,) = [line for line in printed.splitlines() if line.startswith("token ")]
    assert line.split()[1].count(".") == 2
    assert told["http_url"] in printed


def test_logs_omits_metric_lines_by_default(stage_name: str) -> None:
    assert run(COMMAND, "invoke", "claim", "acquired", "--stage", stage_name).returncode == 0
    done = run(COMMAND, "logs", "claim", "--stage", stage_name)
    assert "METRIC" not in done.stdout
    assert done.stderr == "metric lines are hidden; pass --metrics to show them\n"
    done = run(COMMAND, "logs", "claim", "--metrics", "--stage", stage_name)
    assert " METRIC " in done.stdout
