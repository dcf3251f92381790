"""The specifications and the code have the same conditional writes, with the same conditions.

conditions.toml has both: each write of the code by the action that stands for it, and each of its
conditions by the name that the specification gives it.
"""

import ast
import fnmatch
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from jobplane_files import Change, Row, counter_corrections, reset_of
from jobplane_keys import to_item
from jobplane_keys.tracking import FileStatus
from jobplane_leases import (
    Lane,
    Lease,
    LeaseLostError,
    RequestLease,
    begin_document,
    enqueue_request,
    release_claim,
    remove_lane_row,
    write_assembly,
)
from tests.unit.stack import AWS, ROOT, client_error, load

HERE = Path(__file__).parent
TABLE = tomllib.loads((HERE / "conditions.toml").read_text(encoding="utf-8"))
WRITES: dict[str, Any] = {
    f"{name}.{action}": write for name, actions in TABLE["writes"].items() for action, write in
    actions.items()
}  # fmt: skip
CONDITION = re.compile(
    r"(?:attribute_\w+|size)\([^()]*\)(?:\s*[<>=]+\s*:\w+)?|[#\w.]+\s*(?:<=|>=|<>|=|<|>)\s*:?\w+"
)
NOW = 1_795_342_530.25
ITEM = {
    "claimId": {"S": "c1"}, "fence": {"N": "7"}, "taker": {"S": "other"},
    "slots": {"SS": ["other"]},
}  # fmt: skip


def named(write: Mapping[str, Any]) -> str:
    """The condition of a write, with the names of attributes instead of their numbers."""
    names = write.get("ExpressionAttributeNames", {})
    return re.sub(r"#\d+", lambda found: f"#{names[found[0]]}", str(write["ConditionExpression"]))


class Recorder:
    """A client of DynamoDB that refuses each write, and keeps its condition."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[str] = []
        self._monkeypatch = monkeypatch

    def update_item(self, **parameters: Any) -> None:
        self.sent.append(named(parameters))
        error = client_error("ConditionalCheckFailedException", 400, "UpdateItem")
        error.response["Item"] = ITEM  # type: ignore[typeddict-unknown-key]
        raise error

    put_item = delete_item = update_item

    def transact_write_items(self, TransactItems: list[Any], **_: Any) -> None:
        writes = [each for item in TransactItems for each in item.values()]
        self.sent.append(" AND ".join(map(named, writes)))
        reasons = [{"Code": "ConditionalCheckFailed"}] * 2
        raise ClientError(
            {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons},  # type: ignore[typeddict-unknown-key]
            "TransactWriteItems",
        )

    def get_item(self, **_: Any) -> Any:
        return {"Item": to_item({"status": "PENDING"})}

    def batch_get_item(self, **_: Any) -> Any:
        return {}

    def function(self, name: str) -> Any:
        """A function's module that has this client."""
        module = load(name)
        self._monkeypatch.setattr(module, "dynamodb", self)
        return module


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    return Recorder(monkeypatch)


def claim_event(**fields: Any) -> dict[str, Any]:
    return {"projectUserId": "p#u", "claimId": "c1", "fence": 7} | fields


def acquire(client: Recorder) -> None:
    claim = client.function("claim")
    wish = claim.Acquisition.of(claim_event(threadId="t", messageId="m", minIntervalSeconds=1))
    claim.write_claim(wish, claim.new_claim(NOW), NOW)


def prolong(client: Recorder) -> None:
    claim = client.function("claim")
    wish = claim.Acquisition.of(claim_event(threadId="t", messageId="m"))
    claim.prolong({"claimId": "c1", "fence": 7}, wish, NOW)


def take(client: Recorder) -> None:
    claim = client.function("claim")
    claim.take(claim.Holding.of(claim_event()), "me", 60, 60, NOW)


def renew(client: Recorder) -> None:
    client.function("claim").renew(claim_event(takerSeconds=60), NOW)


def release(client: Recorder, **whose: Any) -> None:
    release_claim(client, "t", "p#u", claim_id="c1", reason="done", now=NOW, **whose)


READ = {"status": "PENDING", "lease_until": 1, "write_id": "a"}
ME = Lease("me", 1)
STEP = {"steps": [{"name": "a"}], "step_count": 1}


def of_request(step: Callable[[RequestLease], Any]) -> Callable[[Recorder], None]:
    """A step of a request's lease, as what a client is sent."""

    def send(client: Recorder) -> None:
        with suppress(LeaseLostError):
            step(RequestLease(client, "t", "tenant#user", "req-1"))

    return send


def enqueue(client: Recorder) -> None:
    enqueue_request(client, "t", {"owner": "tenant#user", "request_id": "req-1"}, NOW)


def begin(client: Recorder) -> None:
    request = RequestLease(client, "t", "tenant#user", "req-1")
    with suppress(LeaseLostError):
        begin_document(client, "t", "a1", 1, {}, NOW, remove=(), request=request, lease_owner="me")


def write_document(client: Recorder) -> None:
    with suppress(LeaseLostError):
        write_assembly(client, "t", "a1", 1, {}, NOW)


def of_lane(step: Callable[[Lane], Any]) -> Callable[[Recorder], None]:
    """A step of a lane, as what a client is sent."""
    return lambda client: step(Lane(client, "t", "lane", 1))


def reserve(client: Recorder) -> None:
    """A client that refuses each write lets it read again, until it gives up."""
    request = RequestLease(client, "t", "tenant#user", "req-1")
    with suppress(ClientError):
        Lane(client, "t", "lane", 1, 60).reserve(request, NOW)


def change_row(client: Recorder, change: Change, **fields: Any) -> None:
    module = client.function("state-manager")
    row = {"date_prefix": "2026-11-22", "file_key": "a", "status": "pending", "updated_at": "x"}
    with suppress(module.RefusedError):
        budget = {"deadline": NOW, "clock": lambda: NOW, "full_bytes": 1}
        run = module.Run(NOW, "req-1", scheduled=False, **budget)
        module.change_row(run, Row(to_item(row | fields), 10), change)


def reset(client: Recorder) -> None:
    row = {"date_prefix": "2026-11-22", "file_key": "a", "status": "processing", "updated_at": "x"}
    file = Row(to_item(row), 10)
    change = reset_of(file, 3, began=NOW, now=NOW, changed_by="me", reason="stuck")[1]
    change_row(client, change, manifest_path="s3://b/m")


def count(client: Recorder) -> None:
    module = client.function("count-files")
    with suppress(ClientError):
        client.transact_write_items(module.transaction([module.Change("e1", 1, Counter())], NOW))


def correct(client: Recorder) -> None:
    """One of the rows of the counters is there already."""
    updates = counter_corrections("t", {0: {"changes": 1}}, {}, 1)
    with suppress(ClientError):
        client.transact_write_items([{"Update": update} for update in updates])


SENT: dict[str, Callable[[Recorder], Any]] = {
    "claims.Acquire": acquire,
    "claims.Prolong": prolong,
    "claims.Take": take,
    "claims.TakeOver": take,
    "claims.Renew": renew,
    "claims.ReleaseIssued": lambda client: release(client, fence=7),
    "claims.ReleaseHeld": lambda client: release(client, fence=7, is_worker=True),
    "claims.ReleaseOwned": lambda client: release(client, owner="execution"),
    "requests.Enqueue": enqueue,
    "requests.Take": of_request(lambda lease: lease.take(ME, NOW)),
    "requests.TakeOver": of_request(lambda lease: lease.take_over(READ, ME, NOW)),
    "requests.Renew": of_request(lambda lease: lease.renew(ME, NOW, {"seq": 1})),
    "requests.Finish": of_request(lambda lease: lease.finish("me", {}, NOW)),
    "requests.PutBack": of_request(lambda lease: lease.put_back("me", 1, NOW, keep=True)),
    "requests.Park": of_request(lambda lease: lease.park(READ, NOW)),
    "requests.Requeue": of_request(lambda lease: lease.requeue(NOW)),
    "requests.Start": of_request(lambda lease: lease.start(NOW)),
    "requests.Cancel": of_request(lambda lease: lease.cancel(READ, {}, NOW)),
    "requests.AskToCancel": of_request(lambda lease: lease.ask_to_cancel()),
    "requests.BeginDocument": begin,
    "requests.WriteDocument": write_document,
    "steps.StoreStep": of_request(lambda lease: lease.store_steps("me", STEP, NOW)),
    "steps.TimeOut": of_request(
        lambda lease: lease.store_steps("me", STEP, NOW, callback="unanswered")
    ),
    "steps.OpenCallback": of_request(lambda lease: lease.open_callback("me", {}, {}, NOW)),
    "steps.AwaitCallback": of_request(lambda lease: lease.await_callback("me", {}, 1, 0, NOW)),
    "steps.AnswerWaiting": of_request(
        lambda lease: lease.answer_callback("d", "1", NOW, waits=True)
    ),
    "steps.AnswerBusy": of_request(lambda lease: lease.answer_callback("d", "1", NOW, waits=False)),
    "steps.Renew": of_request(lambda lease: lease.renew(ME, NOW, {"seq": 1})),
    "rates.Reserve": reserve,
    "rates.RemoveRow": lambda client: remove_lane_row(client, "t", "lane#0"),
    "rows.Enter": of_lane(lambda lane: lane.enter(["a"])),
    "rows.SetWaiting": of_lane(lambda lane: lane.set_waiting(NOW)),
    "rows.ClearWaiting": of_lane(lambda lane: lane.clear_waiting(1)),
    "rows.LeaveRow": of_lane(lambda lane: lane.leave(["a"])),
    "rows.RemoveRow": lambda client: remove_lane_row(client, "t", "lane#0"),
    "lanes.Enter": of_lane(lambda lane: lane.enter(["a"])),
    "lanes.SetWaiting": of_lane(lambda lane: lane.set_waiting(NOW)),
    "lanes.ClearWaiting": of_lane(lambda lane: lane.clear_waiting(1)),
    "lanes.LeaveRow": of_lane(lambda lane: lane.leave(["a"])),
    "lanes.RemoveRow": lambda client: remove_lane_row(client, "t", "lane#0"),
    "lanes.WaitForLane": of_request(lambda lease: lease.wait_for_lane("shard", NOW)),
    "lanes.LeaveQueue": of_request(lambda lease: lease.leave_queue(NOW)),
    "counters.ChangeRow": lambda client: change_row(client, Change(FileStatus.FAILED, "me")),
    "counters.ResetRow": reset,
    "counters.Count": count,
    "counters.Correct": correct,
}


def conditions_in(expression: str) -> list[str]:
    """The conditions of an expression, in their order. Nothing else may be in it."""
    rest = re.sub(r"\b(?:AND|OR|NOT)\b|[()\s]", "", CONDITION.sub("", expression))
    assert rest == "", f"can't be read: {rest}"
    return [" ".join(found.split()) for found in CONDITION.findall(expression)]


@pytest.mark.parametrize("name", WRITES)
def test_a_write_has_the_conditions_of_the_table(name: str, client: Recorder) -> None:
    """Each of them, and no other."""
    SENT[name](client)
    write = WRITES[name]
    sent = client.sent[write.get("number", 0)]
    texts = {each["text"] for each in write["conditions"].values()}
    assert set(conditions_in(sent)) == texts | set(write.get("beside", ()))


def test_every_action_and_condition_is_in_its_specification() -> None:
    """And each condition of a specification is in the table."""
    for name, actions in TABLE["writes"].items():
        text = (HERE / f"{name}.tla").read_text(encoding="utf-8")
        assert {action for action in actions if not re.search(rf"(?m)^{action}\b", text)} == set()
        listed = [each for write in actions.values() for each in write["conditions"]]
        assert len(listed) == len(set(listed))
        assert set(listed) == held_in(text)


def test_a_promise_is_held_by_a_test_of_the_code() -> None:
    """Each condition names the promise and the test, or why it is implied."""
    for write in WRITES.values():
        for entry in write["conditions"].values():
            assert set(entry) in ({"text", "breaks", "test"}, {"text", "implied"})
            if "test" in entry:
                module, _, test = entry["test"].partition("::")
                assert f"def {test}(" in (ROOT / "tests" / "unit" / module).read_text()


def held_in(text: str) -> set[str]:
    """The conditions of a specification; those of a form that several writes share have its end."""
    found = set(re.findall(r'Holds\("([\w.]+)"', text)) | set(
        re.findall(r'WriteDocument\(w, "([\w.]+)"', text)
    )
    for form, body in re.findall(r"(?ms)^(\w+)\(name, .*?\) ==\n(.*?)\n\n", text):
        ends = re.findall(r'Holds\(name \\o "([\w.]+)"', body)
        users = re.findall(rf'\b{form}\("(\w+)"', text)
        found |= {user + end for user in users for end in ends}
    return found


def test_every_conditional_write_of_the_code_is_in_the_table() -> None:
    """Or outside of the specifications, with the reason; and nothing else is."""
    listed = {site for write in WRITES.values() for site in write["code"]}
    outside = [pattern for group in TABLE["outside"] for pattern in group["code"]]
    found = {
        site
        for folder in ("functions/*", "libs/*/src/*")
        for path in ROOT.glob(f"{folder}/*.py")
        if path.name != "_writes.py"
        for site in sites(path)
    }
    assert listed <= found
    of_pattern = {pattern: set(fnmatch.filter(found, pattern)) for pattern in outside}
    assert found - listed == set().union(*of_pattern.values())
    assert all(of_pattern.values())


WRITERS = frozenset({
    "_change", "_enter_row", "_lease", "_owned", "_stepped", "_unsubscribing", "_update", "create",
    "release_claim", "remove", "row_update", "transact", "update", "update_assembly",
    "update_item", "write_held",
})  # fmt: skip


def sites(path: Path) -> Iterator[str]:
    """The functions of a module that write on a condition, or pass one on."""
    package = path.parent.name if path.parent.parent.name == "src" else path.stem
    tree = ast.parse(path.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for prefix, body in [("", tree.body), *((f"{each.name}.", each.body) for each in classes)]:
        for each in body:
            if isinstance(each, ast.FunctionDef) and writes(each):
                yield f"{package}.{prefix}{each.name}"


def writes(function: ast.FunctionDef) -> bool:
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in WRITERS:
                return True
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                if name.startswith("_") and name in WRITERS:
                    return True
            case ast.Constant(value="ConditionExpression"):
                return True
    return False
