"""A case's files: refusals, recordings, and the output of a run."""

import json
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess as Done
from typing import Any

import pytest
from click.testing import CliRunner

from jobplane.reference import cases as case_reference
from jobplane.reference.documents import with_tables
from jobplane.tree.copies import copy_repository
from jobplane.tree.repository import Function, Repository
from jobplane.trying import case_files, cases
from jobplane.trying.case_files import UnreadableEventError
from jobplane.trying.cases import Case, Outcome, Result, StageTarget
from jobplane.trying.placeholders import PlaceholderError, Values, mismatches
from jobplane.verbs import event, invoke, seed_files
from tests.workspace.copies import UNREAD

HERE = Repository.here()
STACK = case_files.Stack.of(HERE, *HERE.functions())
COMMAND = Path(sys.executable).with_name("jobplane")
VERBS = {"event": event.command, "invoke": invoke.command, "seed-files": seed_files.command}
OUTCOME = Outcome({"claimed": True}, None, None, [], 1.0, cold=False)
ACQUIRE = json.loads((HERE.root / "functions" / "claim" / "events" / "acquired.json").read_text())


def run(verb: str, *arguments: str, given: str = "") -> Done:
    """Run a verb of the command in this process, which has imported moto."""
    done = CliRunner().invoke(VERBS[verb], arguments, input=given)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(list(arguments), done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A copy of the repository, which the verbs take for their own."""
    copy = copy_repository(HERE, tmp_path / "copy", without=UNREAD)
    monkeypatch.setattr(Repository, "here", lambda: copy)
    return copy


def a_case(folder: Path, event: Any = ACQUIRE, **files: Any) -> Path:
    """An event's file, with its other files by kind."""
    path = folder / "case.json"
    path.write_text(json.dumps(event))
    for kind, document in files.items():
        (folder / f"case.{kind}.json").write_text(json.dumps(document))
    return path


REFUSED: dict[str, list[tuple[Any, str]]] = {
    "event": [
        ({"at": "<nwo+60>"}, "at: unknown placeholder '<nwo+60>'; the nearest known one is '<now"),
        ({"at": "<now +60>"}, "unknown placeholder '<now +60>'"),
        ({"at": "<NOW>"}, "unknown placeholder '<NOW>'"),
        ({"a": [{"b": "x <tabel:requests>"}]}, "a[0].b: unknown placeholder '<tabel:requests>'"),
        ({"<stge>": 1}, "unknown placeholder '<stge>'; the nearest known one is '<stage>'"),
        ("<table:conections>", "the nearest known one is '<table:connections>'"),
        ("<bucket:flies>", "the nearest known one is '<bucket:files>'"),
        ("<queue:webhook>", "the nearest known one is '<queue:webhooks>'"),
        ("<token:usr=u,tenant=t>", "the nearest known one is '<token:user=u,tenant=t>'"),
        ("<token:user=u>", "unknown placeholder '<token:user=u>'"),
        ("<int>", "'<int>' is for expect files only"),
        ("<b>bold</b>", "a literal `<` is written <lt>"),
    ],
    "given": [
        ({"tabels": {}}, "unknown key 'tabels'; the nearest known one is 'tables'"),
        ({"tables": {"conections": []}}, "tables: unknown table 'conections'; the nearest known"),
        ({"absent": {"request": []}}, "absent: unknown table 'request'; the nearest known one is"),
        ({"objects": {"flies": {}}}, "objects: unknown bucket 'flies'; the nearest known one is"),
        ({"environment": {"LOG_LEVLE": "x"}}, "unknown variable 'LOG_LEVLE'; the nearest known"),
        ({"tables": {"connections": [{"id": "c"}]}}, "the table's key needs 'connection_id'"),
        ({"absent": {"connections": [{"connection_id": "c", "x": 1}]}}, "'x' is not part of the"),
        ({"tables": {"connections": {}}}, 'tables.connections: {} is not of type "array"'),
        ({"objects": {"files": {"key": 1}}}, 'objects.files.key: 1 is not of type "string"'),
        ({"ssm": {"/<service>/<stge>/x": "y"}}, "unknown placeholder '<stge>'"),
        ({"objects": {"files": {"<stge>/x": "y"}}}, "unknown placeholder '<stge>'"),
        ([], 'is not of type "object"'),
    ],
    "expect": [
        ({"anwser": {}}, "unknown key 'anwser'; the nearest known one is 'answer'"),
        ({"itmes": {}}, "unknown key 'itmes'; the nearest known one is 'items'"),
        ({"items": {"actve-jobs": []}}, "unknown table 'actve-jobs'; the nearest known one is"),
        ({"answer": {"a": "<absnt>"}}, "answer.a: unknown placeholder '<absnt>'; the nearest"),
        ({"answer": ["<itn>"]}, "answer[0]: unknown placeholder '<itn>'; the nearest known one"),
        ({"answer": "id <uuid>"}, "answer: '<uuid>' must be the whole text"),
        ({"answer": "<contains:>"}, "the nearest known one is '<contains:part>'"),
        ({"answer": "<regex:>"}, "answer: unknown placeholder '<regex:>'"),
        ({"answer": "<now>"}, "answer: '<now>' is for events and given files only"),
        ({"answer": "<regex:(>"}, "answer: '<regex:(>' is not a regular expression"),
        ({"log": [{"m": "<contians:x>"}]}, "log[0].m: unknown placeholder '<contians:x>'"),
        ({"answer": 1, "error": "E"}, "has both 'answer' and 'error'"),
        ({"log": []}, "log: is empty, so it expects nothing: fill it, or remove the key"),
        ({"items": {}}, "items: is empty, so it expects nothing"),
        ({"answer": {}, "items": {"requests": []}}, "items.requests: is empty, so it expects"),
        ({"log": [{}]}, "log[0]: matches everything: add a key that must be there, with its value"),
        ({"log": ["<any>"]}, "log[0]: matches everything"),
        ({"log": [{"m": "x"}, {"m": "<absent>"}]}, "log[1]: matches everything"),
        ({"items": {"requests": [{}]}}, "items.requests[0]: matches everything"),
        ({"items": {"requests": [{"x": "<absent>"}]}}, "items.requests[0]: matches everything"),
    ],
}  # fmt: skip
ACCEPTED: dict[str, list[Any]] = {
    "event": [
        {"a": "5 < 6", "b": "Ann <ann@example.com>", "c": "</b>", "d": "a <- b -> c", "e": None},
        {"a": "<lt>b>", "b": "Bearer <token:user=u,tenant=t,permissions=a+b,ttl=-60>"},
        {"a": "<now>", "b": "before <iso-now-1> after", "c": "<date+2>", "<stage>": "<service>"},
        [1, True, "<table:requests>", "<queue:jobs-dlq.fifo>", "<bucket:files>", "<uuid>"],
    ],
    "given": [
        {},
        {"$schema": "x", "tables": {"connections": [{"connection_id": "<uuid>", "n": 1.5}]}},
        {"objects": {"files": {"a/<date>": "<lt>p>"}}, "ssm": {"/<service>/<stage>/x": "y"}},
    ],
    "expect": [
        {"answer": {"a": "<absent>", "b": "<regex:^<table:requests>[0-9]+(x|y)$>"}},
        {"answer": "<contains:<b>>", "items": {"requests": [{"status": "PENDING"}]}},
        {"error": "ValidationError", "log": ["<string>", {"level": "ERROR"}]},
    ],
}


@pytest.mark.parametrize(
    ("kind", "document", "said"), [(k, *each) for k, all_ in REFUSED.items() for each in all_]
)
def test_a_mistake_is_refused_with_place_and_nearest(kind: str, document: Any, said: str) -> None:
    with pytest.raises(UnreadableEventError) as refused:
        case_files.require_valid(kind, document, "the/file.json", STACK)
    assert said in refused.value.message
    assert refused.value.message.startswith("the/file.json: ")


@pytest.mark.parametrize(
    ("kind", "document"), [(k, each) for k, all_ in ACCEPTED.items() for each in all_]
)
def test_valid_files_are_accepted(kind: str, document: Any) -> None:
    case_files.require_valid(kind, document, "the/file.json", STACK)


@pytest.mark.parametrize("kind", ["event", "given", "expect"])
def test_the_published_schemas_accept_what_the_command_accepts(kind: str) -> None:
    """A broken expression is beyond a schema."""
    from jsonschema import Draft202012Validator

    path = HERE.root / "contracts" / "json-schema" / "cases" / f"{kind}.json"
    published = Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))
    for document, said in REFUSED[kind]:
        if "regular expression" not in said:
            assert not published.is_valid(document), document
    for document in ACCEPTED[kind]:
        assert published.is_valid(document), document
    for case in cases.all_cases(HERE):
        document = {"event": case.event, "given": case.given, "expect": case.expect or {}}[kind]
        assert published.is_valid(document), case


def test_vs_codes_settings_name_a_published_schema_for_each_kind_of_file() -> None:
    settings = json.loads((HERE.root / ".vscode" / "settings.json").read_text())
    urls = {HERE.root / each["url"] for each in settings["json.schemas"]}
    assert urls == set((HERE.root / "contracts" / "json-schema" / "cases").glob("*.json"))


def test_the_documentation_lists_every_key_and_placeholder() -> None:
    text = (HERE.root / case_reference.DOCUMENT).read_text(encoding="utf-8")
    assert text == with_tables(text, case_reference.tables()), "run `jobplane docs cases`"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"given": {"tabels": {}}}, "case.given.json: unknown key 'tabels'"),
        ({"expect": {"anwser": {}}}, "case.expect.json: unknown key 'anwser'"),
        ({"event": ACQUIRE | {"threadId": "<nwo>"}}, "case.json: threadId: unknown placeholder"),
    ],
)
def test_invoke_does_not_run_a_mistake(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    command = [COMMAND, "invoke", "claim", str(a_case(tmp_path, **files)), "--in-process"]
    done = subprocess.run(command, cwd=HERE.root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_invoke_refuses_a_mistake_on_stdin() -> None:
    done = run("invoke", "claim", "-", "--in-process", given='{"projectId": "<stge>"}')
    assert done.returncode == 2
    assert "stdin: projectId: unknown placeholder '<stge>'" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' appears twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
    ],
)
def test_duplicate_keys_and_nan_are_refused(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "case.json"
    path.write_bytes(text)
    with pytest.raises(UnreadableEventError, match=said):
        Case.read(HERE.functions()[0], path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("aquired.expect.json", "there is no aquired.json; the nearest known one is 'acquired'"),
        ("acquired.expects.json", "the nearest known one is 'expect'"),
        ("acquired.givn.json", "the nearest known one is 'given'"),
    ],
)
def test_a_file_that_belongs_to_no_case_is_refused(tmp_path: Path, name: str, said: str) -> None:
    """A mistake in its name would leave a case without given rows or an expectation."""
    events = tmp_path / "events"
    events.mkdir()
    (events / "acquired.json").write_text("{}")
    (events / name).write_text("{}")
    with pytest.raises(UnreadableEventError, match=said):
        cases.case_paths(Function("claim", tmp_path))


WRITES = "refusing to invoke claim/{} on 'nowhere': it is not a local stage, and the case {}; pass"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("claim", "held"), WRITES.format("held", "writes rows and reads all of active-jobs")),
        (("claim", "--all"), "refusing to invoke claim/acquired-again on 'nowhere'"),
        (("claim", "acquired"), WRITES.format("acquired", "reads all of active-jobs")),
    ],
)
def test_a_case_that_writes_to_aws_needs_yes(arguments: tuple[str, ...], said: str) -> None:
    done = run("invoke", *arguments, "--stage", "nowhere")
    assert done.returncode == 2
    assert said in done.stderr
    assert "pass --yes to do it anyway" in done.stderr


@pytest.mark.parametrize(
    ("files", "is_refused"),
    [
        ({"given": {"objects": {"files": {"k": "v"}}}}, True),
        ({"given": {"ssm": {"/x": "v"}}}, True),
        ({"given": {"absent": {"connections": [{"connection_id": "c"}]}}}, True),
        ({"expect": {"items": {"requests": [{"status": "done"}]}}}, True),
        ({"expect": {"answer": {"claimed": True}}}, False),
        ({}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("yes", [(), ("--yes",)])
def test_only_a_case_with_given_needs_yes_on_aws(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, Any],
    is_refused: bool,
    yes: tuple[str, ...],
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    done = run("invoke", "claim", str(a_case(tmp_path, **files)), "--stage", "nowhere", *yes)
    assert ("refusing to invoke" in done.stderr) is (is_refused and not yes)
    # It went on to AWS, for which this test has no credentials.
    assert ("no AWS credentials" in done.stderr) is not (is_refused and not yes), done.stderr


def test_seed_files_on_aws_needs_yes() -> None:
    done = run("seed-files", "--stage", "nowhere")
    assert done.returncode == 2
    assert (
        "refusing to seed 'nowhere': it is not a local stage; pass --yes to do it anyway"
        in done.stderr
    )


def test_an_empty_object_or_list_in_an_expectation_must_be_empty() -> None:
    assert mismatches({"swept": {}}, {"swept": {"a": 1}}) == [
        'answer.swept: expected an empty object, got {"a": 1}'
    ]
    assert mismatches({"swept": {}}, {"swept": {}, "other": 1}) == []


@pytest.mark.parametrize(
    ("expect", "place", "meant"),
    [
        ({"answer": {"clamed": "<absent>"}}, "answer.clamed", "claimed"),
        ({"items": {"active-jobs": [{"state": "held", "clamedAt": "<absent>"}]}},
         "items.active-jobs[0].clamedAt", "claimedAt"),
        ({"answer": {"held": {"thraedId": "<absent>"}}}, "answer.held.thraedId", "threadId"),
    ],
)  # fmt: skip
def test_expecting_the_absence_of_an_unknown_key_is_refused(
    tmp_path: Path, expect: dict[str, Any], place: str, meant: str
) -> None:
    """It would always be absent."""
    done = run("invoke", "claim", str(a_case(tmp_path, expect=expect)), "--in-process")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"case.expect.json: {place}: " in done.stderr
    assert "does not occur in the function or the libs, so it is always absent" in done.stderr
    assert f"the nearest known word is {meant!r}" in done.stderr


def test_expecting_the_absence_of_a_given_key_is_accepted(tmp_path: Path) -> None:
    (function,) = HERE.select(("claim",))
    key = {"projectUserId": "p#u", "madeUpHere": 1}
    expect = {"items": {"active-jobs": [{"state": "held", "madeUpHere": "<absent>"}]}}
    path = a_case(tmp_path, given={"tables": {"active-jobs": [key]}}, expect=expect)
    assert cases.Case.read(function, path).expect == expect


def test_a_case_without_an_expectation_neither_passes_nor_fails(tmp_path: Path) -> None:
    path = a_case(tmp_path)
    done = run("invoke", "claim", "acquired", str(path), "--in-process")
    assert done.returncode == 0, done.stdout
    assert "ran  claim/case" in done.stdout
    assert done.stdout.splitlines()[1].endswith("  no expectation")
    assert done.stdout.splitlines()[-1] == "2 cases: 1 passed, 1 no expectation"
    (tmp_path / "case.expect.json").write_text("{}")
    done = run("invoke", "claim", str(path), "--in-process", "--json")
    assert json.loads(done.stdout)["state"] == "no expectation"


def test_invoke_all_ends_with_totals(tmp_path: Path) -> None:
    wrong = a_case(tmp_path, expect={"error": "Nothing"})
    done = run("invoke", "claim", "acquired", str(wrong), "--in-process")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "2 cases: 1 passed, 1 failed"
    done = run("invoke", "claim", "acquired", str(wrong), "--in-process", "--json")
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 2
    assert done.stderr == "2 cases: 1 passed, 1 failed\n"
    number = len(cases.case_paths(HERE.select(("claim",))[0]))
    done = run("invoke", "claim", "--all", "--in-process")
    assert done.stdout.splitlines()[-1] == f"{number} cases: {number} passed"


def test_metric_lines_are_counted_in_one_line_by_default() -> None:
    done = run("invoke", "claim", "acquired", "--in-process")
    assert "  METRIC  1 line (pass --metrics to show them)" in done.stdout
    assert "ClaimOperation=1" not in done.stdout
    done = run("invoke", "claim", "acquired", "--in-process", "--metrics")
    assert "ClaimOperation=1" in done.stdout
    assert "--metrics" not in done.stdout


def test_a_recording_replaces_changing_values_with_placeholders(copy: Repository) -> None:
    events = copy.root / "functions" / "claim" / "events"
    before = json.loads((events / "acquired.expect.json").read_text())
    (events / "acquired.expect.json").unlink()
    done = run("invoke", "claim", "acquired", "--record", "--in-process")
    assert done.returncode == 0, done.stderr
    assert "wrote functions/claim/events/acquired.expect.json" in done.stderr
    recorded = json.loads((events / "acquired.expect.json").read_text())
    answer = recorded["answer"]
    assert answer["claimed"] is True
    assert (answer["claimId"], answer["fence"], answer["containerId"]) == (
        "<uuid>", "<int>", "<string>",
    )  # fmt: skip
    (row,) = recorded["items"]["active-jobs"]
    assert (row["state"], row["claimedAt"]) == ("held", "<iso-time>")
    assert row["projectUserId"] == before["items"]["active-jobs"][0]["projectUserId"]
    for _ in range(2):
        done = run("invoke", "claim", "acquired", "--in-process")
        assert (done.returncode, "ok   claim/acquired" in done.stdout) == (0, True), done.stdout


@pytest.mark.parametrize(
    ("name", "recorded"),
    [("claim", ("no-fence", "released")), ("connect", ("accepted", "token-missing"))],
)
def test_a_recorded_case_passes(copy: Repository, name: str, recorded: tuple[str, ...]) -> None:
    for case in recorded:
        (copy.root / "functions" / name / "events" / f"{case}.expect.json").unlink()
    assert run("invoke", name, *recorded, "--record", "--in-process").returncode == 0
    done = run("invoke", name, *recorded, "--in-process")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "2 cases: 2 passed"


def test_recording_needs_runnable_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    for folder in (here, there):
        folder.mkdir()
    first = a_case(here)
    second = a_case(there, given={"only_in_process": "needs moto"})
    arguments = ["claim", str(first), str(second), "--record", "--stage", "dev", "--yes"]
    monkeypatch.setattr(invoke, "_run", lambda case, *_: Result(case, OUTCOME, []))
    monkeypatch.setattr(StageTarget, "values", lambda _: Values("jobplane", "dev", ""))
    done = CliRunner().invoke(invoke.command, arguments)
    assert done.exit_code == 1, done.output
    assert "claim/case needs moto, so nothing was recorded" in done.output
    assert not list(tmp_path.rglob("*.expect.json"))


def test_recording_writes_after_all_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing case leaves no files of the others."""
    here, there = tmp_path / "a", tmp_path / "b"
    for folder in (here, there):
        folder.mkdir()
    paths = [a_case(here), a_case(there)]

    def broken(case: Case, *_: object) -> Result:
        if case.path == paths[1]:
            raise PlaceholderError("stage 'dev' has no table")
        return Result(case, OUTCOME, [])

    monkeypatch.setattr(invoke, "_run", broken)
    monkeypatch.setattr(StageTarget, "values", lambda _: Values("jobplane", "dev", ""))
    arguments = ["claim", *map(str, paths), "--record", "--stage", "dev", "--yes"]
    done = CliRunner().invoke(invoke.command, arguments)
    assert (done.exit_code, "has no table" in done.output) == (1, True), done.output
    assert not list(tmp_path.rglob("*.expect.json"))


def test_recording_an_event_from_stdin_is_refused() -> None:
    """There is no file to write the expectation beside."""
    done = run("invoke", "claim", "-", "--record", "--in-process", given="{}")
    assert done.returncode == 2
    assert "--record can't be used with stdin; pass a case or a file" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("event", "status", "http", "--in-process"),
        ("invoke", "status", "http", "--print", "--in-process"),
    ],
)
def test_a_filled_event_is_plain_json(arguments: tuple[str, ...]) -> None:
    """As `sam remote test-event put --file -` and Lambda's console accept it."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    event = json.loads(done.stdout)
    assert event["headers"]["authorization"].startswith("Bearer ey")
    assert "<token" not in done.stdout


def test_an_event_without_names_needs_no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # moto's
        monkeypatch.delenv(name, raising=False)
    assert run("event", "claim", "acquired", "--stage", "nowhere").returncode == 0
    done = run("invoke", "status", "http", "--print", "--stage", "local-not-up")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_an_unknown_case_is_refused_with_the_nearest_name() -> None:
    done = run("event", "claim", "acquierd")
    assert done.returncode == 2
    assert "claim has no case 'acquierd'; the nearest known one is 'acquired'" in done.stderr
    done = run("invoke", "claim", "acquierd", "--in-process")
    assert "'acquierd' is neither a case nor a file; the nearest known one" in done.stderr
