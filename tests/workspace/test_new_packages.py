"""`jobplane new --action` and `--robot`: new packages pass all checks of this repository."""

import re
import shlex
import subprocess
from pathlib import Path
from textwrap import indent

import pytest

from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Repository
from lambdapack.environments import plain_environment, uv_command
from tests.workspace.copies import edit

PAGE = Path("docs/adding-a-job.md")
# A short name, and one of the greatest length.
MADE = {"transcribe": "action", "q": "action", "count-the-words-19x": "action",
        "z": "robot", "number-the-lines-19": "robot"}  # fmt: skip

# What a user would write for the action of the page, with a service that answers at once.
TRANSCRIBED = '''
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jobplane.trying.inprocess import InProcess
from jobplane_keys import from_item, owner_key, to_item, upload_prefix

ROW = {"owner": owner_key("tenant-1", "user-1"), "request_id": "req-1"}
CALLER = {"tenant_id": "tenant-1", "user_id": "user-1", "permissions": []}


class Service(ThreadingHTTPServer):
    """It is done when it was asked three times; it refuses recordings with `bad` in their name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.calls = Counter[str]()
        self.hooks: list[Any] = []
        self.recordings: list[str] = []
        self.asked = threading.Event()
        self.is_slow = False
        # The last one is repeated.
        self.statuses = {"POST": [200], "GET": [200], "DELETE": [200], "hook": [204]}


class Answers(BaseHTTPRequestHandler):
    server: Service

    def answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        if self.path == "/hook":
            self.server.hooks.append(body)
            self.send_response(self.server.statuses["hook"][0])
            self.end_headers()
            return
        if self.command == "POST":
            self.server.recordings.append(body["recording"])
        self.server.calls[self.command] += 1
        asked = self.server.calls["GET"]
        content: Any = {"id": "task-1", "percent": 40 * asked, "text": "Good morning"}
        if self.server.is_slow:
            content["percent"] = 10
        if asked:
            self.server.asked.set()
        statuses = self.server.statuses[self.command]
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        self.send_response(422 if body and "bad" in body["recording"] else status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def aws(service: Service) -> Iterator[InProcess]:
    url = f"http://127.0.0.1:{service.server_port}"
    with InProcess() as stage:
        stage.router = stage.load("router")
        stage.processor = stage.load(
            "processor",
            {"TRANSCRIBER_URL": url, "WEBHOOK_ALLOW_HTTP": "true", "WEBHOOK_HOSTS": "127.0.0.1"},
        )
        for name, value in (("url", f"{url}/hook"), ("secret", "the key of a test")):
            stage.client("ssm").put_parameter(
                Name=f"/jobplane/{stage.template.stage}/webhooks/{name}",
                Value=value, Type="SecureString",
            )  # fmt: skip
        yield stage


def send(aws: InProcess, action: str, **payload: Any) -> dict[str, Any]:
    message = {"id": "req-1", "action": action, "payload": payload}
    event = {"caller": CALLER, "messages": [json.dumps(message)]}
    (answer,) = aws.router.handler(event, aws.context("router"))["answers"]
    return answer


def run(aws: InProcess) -> None:
    record = {"messageId": "m", "receiptHandle": "r", "body": json.dumps(ROW),
              "attributes": {"ApproximateReceiveCount": "1"}}
    aws.processor.handler({"Records": [record]}, aws.context("processor"))


def row(aws: InProcess) -> dict[str, Any]:
    found = aws.client("dynamodb").get_item(TableName=aws.tables["requests"], Key=to_item(ROW))
    return from_item(found["Item"])


def test_it_ends_with_the_text_and_reports_progress(aws: InProcess, service: Service) -> None:
    assert send(aws, "transcribe", recording="https://x/a.mp3")["status"] == "queued"
    assert row(aws)["lane_limit"] == 10
    run(aws)
    ended = row(aws)
    assert (ended["status"], json.loads(ended["result"])) == ("COMPLETED", {"text": "Good morning"})
    assert ended["progress"]["percentage"] == 80
    assert service.calls == {"POST": 1, "GET": 3}
    assert service.recordings == ["https://x/a.mp3"]
    assert service.hooks == [{"request_id": "req-1", "result": {"text": "Good morning"}}]


def test_the_service_gets_a_link_to_an_upload(aws: InProcess, service: Service) -> None:
    key = f"{upload_prefix(ROW['owner'])}a/b"
    send(aws, "transcribe", recording=key)
    run(aws)
    assert row(aws)["status"] == "COMPLETED"
    (link,) = service.recordings
    assert key in link
    assert "X-Amz-Signature=" in link


def test_an_upload_of_another_user_is_refused(aws: InProcess, service: Service) -> None:
    send(aws, "transcribe", recording="uploads/other/a")
    run(aws)
    assert row(aws)["error"]["message"] == "The recording is not one of your uploads"
    assert not service.calls


def test_a_service_that_asks_for_patience_is_asked_again(aws: InProcess, service: Service) -> None:
    service.statuses["GET"] = [200, 429, 200]
    send(aws, "transcribe", recording="https://x/a.mp3")
    run(aws)
    ended = row(aws)
    assert (ended["status"], ended["attempts"]) == ("COMPLETED", 2)
    assert service.calls["POST"] == 1


@pytest.mark.parametrize("status", [200, 404, 500])
def test_cancel_ends_it_and_its_task(aws: InProcess, service: Service, status: int) -> None:
    service.is_slow = True
    service.statuses["DELETE"] = [status]
    send(aws, "transcribe", recording="https://x/a.mp3")
    worker = threading.Thread(target=run, args=(aws,))
    worker.start()
    assert service.asked.wait(30)
    answer = send_cancel(aws)
    worker.join(60)
    assert answer["data"]["status"] == "cancelling"
    assert row(aws)["status"] == "CANCELLED"
    assert service.calls["DELETE"] == 1


def send_cancel(aws: InProcess) -> dict[str, Any]:
    message = {"action": "cancel", "payload": {"request_id": "req-1"}}
    event = {"caller": CALLER, "messages": [json.dumps(message)]}
    (answer,) = aws.router.handler(event, aws.context("router"))["answers"]
    return answer


def test_a_refusal_of_the_service_is_the_reason(aws: InProcess) -> None:
    send(aws, "transcribe", recording="https://x/bad.mp3")
    run(aws)
    assert row(aws)["status"] == "FAILED"
    assert row(aws)["error"]["message"] == "The service refused the recording (422)"


def test_a_webhook_that_its_receiver_refuses_is_the_reason(
    aws: InProcess, service: Service
) -> None:
    service.statuses["hook"] = [403]
    send(aws, "transcribe", recording="https://x/a.mp3")
    run(aws)
    assert row(aws)["status"] == "FAILED"
    assert row(aws)["error"]["message"] == "The webhook was not delivered: failed"
    assert len(service.hooks) == 1


def test_a_malformed_recording_is_refused(aws: InProcess) -> None:
    answer = send(aws, "transcribe", recording="file:///etc/passwd")
    assert answer["error"]["details"][0]["field"] == "payload.recording"
'''


class Copy:
    """A copy of the repository with an environment of its own, in which packages are installed."""

    def __init__(self, folder: Path) -> None:
        self.repository = copy_repository(Repository.here(), folder)

    def run(self, *command: str) -> str:
        return self.uv("run", "--quiet", *command)

    def uv(self, *arguments: str) -> str:
        done = subprocess.run(
            [uv_command(), *arguments],
            cwd=self.repository.root, env=plain_environment(), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def test(self, *paths: str) -> str:
        return self.run("pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *paths)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    copy = Copy(tmp_path_factory.mktemp("packages") / "copy")
    for name, kind in MADE.items():
        copy.run("jobplane", "new", name, f"--{kind}")
    copy.run("jobplane", "schema")
    copy.run("jobplane", "docs", "packages", "templates")
    return copy


def test_linters_and_types_accept_new_packages(made: Copy) -> None:
    paths = [f"libs/{name}" for name in MADE]
    paths += [f"tests/unit/test_{name.replace('-', '_')}.py" for name in MADE]
    made.run("ruff", "check", *paths)
    made.run("ruff", "format", "--check", *paths)
    made.run("mypy", *(f"libs/{name}/src" for name in MADE))


def test_check_accepts_the_functions_that_load_new_packages(made: Copy) -> None:
    made.run("jobplane", "check", "router", "processor")
    for rule in ("references", "imports"):
        made.run("jobplane", "check", "--rule", rule)


def test_the_tests_and_cases_of_new_packages_pass(made: Copy) -> None:
    said = made.test(*(f"tests/unit/test_{name.replace('-', '_')}.py" for name in MADE))
    assert " passed" in said
    for function in ("router", "processor"):
        made.run("jobplane", "invoke", function, "--all", "--in-process")


def test_contracts_and_documents_have_new_packages(made: Copy) -> None:
    root = made.repository.root
    for name, kind in MADE.items():
        if kind == "action":
            assert (root / f"contracts/json-schema/socket/results/{name}.json").is_file()
    assert '"count_the_words_19x"' in (root / "contracts/asyncapi.json").read_text()
    page = (root / PAGE).read_text()
    assert "| action `transcribe` | `{texts}` | `libs/transcribe` |" in page
    assert "| robot `/own/z` |" in page
    made.test("tests/workspace/test_contracts_socket.py", "tests/workspace/test_contracts.py")


def test_a_user_gets_the_pages_action_by_its_blocks(made: Copy) -> None:
    """Its progress, its end, `cancel`, uploads, a webhook; and `check` asks for its variable."""
    root = made.repository.root
    page = (root / PAGE).read_text()
    blocks = dict(re.findall(r"<!-- (\S+) -->\n```(?:python|yaml)\n(.*?)```", page, re.S))
    variables, statements = blocks.pop("functions/processor/function.yml").split(
        "iamRoleStatements:\n"
    )
    assert len(blocks) == 4
    for path, text in blocks.items():
        (root / path).write_text(text)
    job, payload = (
        f"libs/transcribe/src/jobplane_transcribe/{name}.py" for name in ("job", "payload")
    )
    (pattern,) = re.findall(r'`(pattern="[^`]*")`', page)
    (link,) = re.findall(r"^recording = .*$", page, re.M)
    (ending,) = re.findall(r"^result = \{.*?^return result$", page, re.M | re.S)
    edit(made.repository, payload, 'pattern="^https://"', pattern)
    edit(made.repository, job, ").recording\n", f").recording\n    {link}\n")
    edit(
        made.repository, job, '    return {"text": state["text"]}\n', indent(ending, "    ") + "\n"
    )
    imports = "from .announce import announce\n{}from .uploads import link_to\n"
    line = "from .payload import Transcribe\n"
    edit(made.repository, job, line, imports.format(line))
    (root / "tests/unit/test_transcribe.py").write_text(TRANSCRIBED)
    for command in re.findall(r"^uv (add .*)$", page, re.M):
        if "httpx" not in command:  # An example: the page's action does not import it.
            made.uv(*shlex.split(command))
    with pytest.raises(AssertionError, match="TRANSCRIBER_URL is not declared, .* of processor"):
        made.run("jobplane", "check", "processor", "--rule", "environment")
    config = "functions/processor/function.yml"
    url = "  TRANSCRIBER_URL: https://x\n"
    edit(made.repository, config, "environment:\n", variables + url)
    edit(made.repository, config, "iamRoleStatements:\n", f"iamRoleStatements:\n{statements}")
    made.run("jobplane", "check", "router", "processor")
    made.run("ruff", "check", "libs/transcribe")
    made.run("ruff", "format", "--check", "libs/transcribe")
    made.run("mypy", "libs/transcribe/src")
    assert "10 passed" in made.test("tests/unit/test_transcribe.py")


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        (
            "libs/q/pyproject.toml",
            '"jobplane_q.job:q"',
            '"jobplane_q.job:nothing"',
            "'q' of jobplane.actions refers to jobplane_q.job:nothing, which does not exist",
        ),
        (
            "libs/q/pyproject.toml",
            '"jobplane.payloads"]\nq =',
            '"jobplane.payloads"]\nother =',
            "'q' of jobplane.actions has no entry of jobplane.payloads",
        ),
        (
            "libs/z/pyproject.toml",
            '"/own/z" =',
            '"/own/number-the-lines-19" =',
            "'/own/number-the-lines-19' of jobplane.robots is declared by two packages",
        ),
        (
            "functions/processor/pyproject.toml",
            '    "jobplane-z",\n',
            "",
            "'/own/z' of jobplane.robots is loaded by processor, which does not depend on",
        ),
    ],
)
def test_check_finds_what_is_wrong_with_an_entry_point(
    made: Copy, path: str, old: str, new: str, said: str
) -> None:
    before = (made.repository.root / path).read_text()
    edit(made.repository, path, old, new)
    try:
        with pytest.raises(AssertionError, match=re.escape(said)):
            made.run("jobplane", "check", "--rule", "references")
    finally:
        (made.repository.root / path).write_text(before)
