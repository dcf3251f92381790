"""processor: steps of a job that run once, and jobs that outlast their invocation."""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from jobplane_leases import Lease, RequestLease
from jobplane_leases.callbacks import AnswerError, TokenError, new_token, return_callback
from jobplane_leases.jobs import CallbackError
from tests.unit.stack import OWNER, PREFIX, Processor, Row, Run, Stack, iso, message, request


class Steps:
    """A job that runs steps in turn and returns their results; `ran` are those that were run."""

    def __init__(self, processor: Processor, *names: str) -> None:
        self.processor, self.names = processor, names
        self.ran: list[str] = []
        self.after: dict[str, list[Callable[[Any], None]]] = {}
        self.result: Callable[[str], Any] = lambda name: {"of": name}
        processor.action("delay", self)

    def __call__(self, job: Any) -> Any:
        results = []
        for name in self.names:
            results.append(job.step(name, lambda name=name: self.run(name)))
            if waiting := self.after.get(name):
                waiting.pop(0)(job)
        return results

    def run(self, name: str) -> Any:
        self.ran.append(name)
        return self.result(name)

    def once(self, name: str, effect: Callable[[Any], None]) -> None:
        """What happens when a step is passed for the first time."""
        self.after.setdefault(name, []).append(effect)

    def raising(self, name: str, error: str) -> None:
        """The job raises an error of the module after a step, once."""

        def fail(job: Any) -> None:
            raise getattr(self.processor.module, error)()

        self.once(name, fail)


@pytest.fixture
def steps(processor: Processor) -> Steps:
    return Steps(processor, "one", "two", "three")


def go_on(processor: Processor, stack: Stack) -> Row:
    """Deliver the message of the request that was put back, and give its row."""
    waiting = stack.request()
    assert waiting["status"] == "PENDING", waiting
    assert processor.deliver(message(waiting)) == []
    return stack.request()


def result_of(row: Row) -> Any:
    assert row["status"] == "COMPLETED", row
    return json.loads(row["result"])


def test_a_step_costs_one_write(processor: Processor, stack: Stack, steps: Steps) -> None:
    """Taking and ending the job are the others; an ended row has nothing of its steps."""
    calls = stack.calls(processor.module.dynamodb, processor.module.s3())
    row = processor.run()
    assert result_of(row) == [{"of": "one"}, {"of": "two"}, {"of": "three"}]
    assert {name: calls.counts()[name] for name in ("UpdateItem",)} == {"UpdateItem": 2 + 3}
    assert calls.counts().keys() <= {"UpdateItem", "BatchGetItem"}
    assert not {name for name in row if name.startswith("step")}


def test_a_later_attempt_gets_what_is_stored(processor: Processor, steps: Steps) -> None:
    steps.raising("two", "TransientError")
    row = processor.run()
    assert result_of(row) == [{"of": "one"}, {"of": "two"}, {"of": "three"}]
    assert (steps.ran, row["attempts"]) == (["one", "two", "three"], 2)


def test_the_step_that_failed_runs_again(processor: Processor, steps: Steps) -> None:
    failing = [TimeoutError()]

    def result(name: str) -> Any:
        if name == "two" and failing:
            raise failing.pop()
        return name

    steps.result = result
    assert result_of(processor.run()) == ["one", "two", "three"]
    assert steps.ran == ["one", "two", "two", "three"]


@pytest.mark.parametrize("value", [None, True, "text", 1.5, [1, [2]], {"a": {"b": "ü"}}, (1, 2)])
def test_both_attempts_see_the_same_value(processor: Processor, value: Any) -> None:
    """That of the JSON text."""
    seen: list[Any] = []

    def run(job: Any) -> Any:
        seen.append(job.step("one", lambda: value))
        if len(seen) == 1:
            raise TimeoutError
        return {}

    assert processor.run(job=run)["attempts"] == 2
    assert seen == [json.loads(json.dumps(value))] * 2


def test_large_results_and_many_steps_keep_the_row_small(
    processor: Processor, stack: Stack, steps: Steps
) -> None:
    """They are objects; each attempt's have names of their own."""
    steps.names = tuple(f"step-{number}" for number in range(40))
    steps.result = lambda name: name * (300 if name == "step-7" else 30)
    sizes: list[int] = []
    for name in steps.names:
        steps.once(name, lambda job: sizes.append(len(json.dumps(stack.request()))))
    steps.raising("step-39", "TransientError")
    row = processor.run()
    assert result_of(row) == [steps.result(name) for name in steps.names]
    assert steps.ran == [*steps.names]
    assert max(sizes) - min(sizes) < 6000
    keys = stack.keys("results/requests/")
    assert [key for key in keys if "/1-" not in key] == []
    assert any(key.endswith("/step-8.json") for key in keys)
    assert any("/steps-" in key for key in keys)


def refused(processor: Processor, job: Run) -> str:
    """The error of a request whose steps are wrong; another attempt would not help."""
    row = processor.run(job=job)
    assert (row["status"], row["attempts"]) == ("FAILED", 1)
    assert row["error"]["code"] == "PROCESSING_FAILED"
    return str(row["error"]["message"])


def after_first(*names: str) -> Run:
    """The first attempt runs the step `one`; the second one runs other steps."""

    def run(job: Any) -> Any:
        for name in names if job.row["attempts"] > 1 else ["one"]:
            job.step(name, dict)
        raise TimeoutError

    return run


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (lambda job: [job.step("a", dict), job.step("a", dict)], "Two steps have the name 'a'"),
        (lambda job: job.step("two words", dict), "Step 1 has the name 'two words'; use 1 to 64"),
        (lambda job: job.step("", dict), "Step 1 has the name ''"),
        (lambda job: job.step("a", object), "The result of step 'a' is not a JSON value"),
        (lambda job: job.step("a", lambda: float("nan")), "step 'a' is not a JSON value"),
        (lambda job: job.step("a", lambda: "\ud800"), "step 'a' is not a JSON value"),
        (lambda job: job.step("a", lambda: "x" * 99), "'a' has more than 64 bytes; store it as an"),
        (lambda job: job.step("a", lambda: job.step("b", dict)), "Step 'b' was called within step"),
        (lambda job: [job.step(n, dict) for n in "abcd"], "A job has at most 3 steps"),
    ],
)  # fmt: skip
def test_a_wrong_step_fails_the_job(
    processor: Processor, stack: Stack, run: Run, text: str
) -> None:
    """With a message that says what to do."""
    stack.monkeypatch.setattr("jobplane_leases._steps.MAX_STEP_BYTES", 64)
    stack.monkeypatch.setattr("jobplane_leases._steps.MAX_STEPS", 3)
    assert text in refused(processor, run)


def test_a_large_result_without_a_store_fails_the_job(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what a worker of one's own must override."""
    monkeypatch.delattr(processor.module.Job, "put_object")
    text = refused(processor, lambda job: job.step("large", lambda: "x" * 2000))
    assert "override put_object and get_object" in text


def test_a_changed_sequence_fails_the_job(processor: Processor) -> None:
    row = processor.run(job=after_first("other"))
    assert (row["status"], row["attempts"]) == ("FAILED", 2)
    assert row["error"]["message"].startswith("Step 1 is 'other' now, but 'one' is stored")


def test_a_step_whose_answer_was_lost_is_recognised(stack: Stack) -> None:
    """Also if the lease was renewed before botocore has sent it again."""
    whole, now = stack.dynamodb.update_item, time.time()
    mine = {"status": "PROCESSING", "attempts": 1, "lease_owner": "me", "lease_until": int(now)}
    stack.put("requests", request(**mine))

    class Interrupted:
        def update_item(self, **parameters: Any) -> Any:
            whole(**parameters)
            lease_of(stack).renew(Lease("me", int(now) + 60), now)
            return whole(**parameters)

    lease = RequestLease(Interrupted(), f"{PREFIX}requests", OWNER, "req-1")
    row = lease.store_steps("me", {"steps": [{"name": "a"}], "step_count": 1}, now)
    assert (row["step_count"], row["lease_until"]) == (1, int(now) + 60)


def lease_of(stack: Stack) -> RequestLease:
    return RequestLease(stack.dynamodb, f"{PREFIX}requests", OWNER, "req-1")


def test_a_throttled_step_is_written_again(
    processor: Processor, stack: Stack, steps: Steps
) -> None:
    """Its function does not run again."""
    stack.closing_waits(0.0, 0.0)
    steps.once("one", lambda job: stack.fail(processor.module.dynamodb, "UpdateItem", times=2))
    assert result_of(processor.run())
    assert steps.ran == ["one", "two", "three"]


def test_a_late_write_of_an_earlier_attempt_stands(processor: Processor, stack: Stack) -> None:
    """It was sent by the same worker, which has retried the job; both have the same result then."""

    def run(job: Any) -> Any:
        def function() -> str:
            late = {"steps": [{"name": "one", "result": '"late"'}], "step_count": 1}
            lease_of(stack).store_steps(job.invocation.id, late, time.time())
            return "mine"

        return job.step("one", function)

    assert result_of(processor.run(job=run)) == "late"


def test_a_worker_without_its_lease_stores_no_step(processor: Processor, stack: Stack) -> None:
    theirs = request(status="PROCESSING", attempts=2, lease_owner="other", started_at="now")

    def run(job: Any) -> Any:
        return job.step("one", lambda: stack.put("requests", theirs))

    assert processor.run(job=run) == theirs
    assert processor.terminal() == []


def test_a_cancellation_is_heard_of_with_a_step(
    processor: Processor, stack: Stack, steps: Steps
) -> None:
    steps.once("one", lambda job: lease_of(stack).ask_to_cancel() and None)
    assert processor.run()["status"] == "CANCELLED"
    assert steps.ran == ["one", "two"]


# Small steps


class Small:
    """A job of small steps `0` to `9`; `ran` are those that were run."""

    def __init__(self, processor: Processor, store_every: float = 0.0) -> None:
        self.ran: list[int] = []
        self.of = "a"
        self.before: dict[int, list[Callable[[Any], None]]] = {}
        processor.stack.monkeypatch.setattr("jobplane_leases.jobs.STORE_SECONDS", store_every)
        processor.action("delay", self)

    def __call__(self, job: Any) -> Any:
        with job.small_steps("part", self.of) as small:
            return [small.run(partial(self.run, job, number)) for number in range(10)]

    def run(self, job: Any, number: int) -> Any:
        if waiting := self.before.get(number):
            waiting.pop(0)(job)
        self.ran.append(number)
        return {"of": f"{self.of}{number}"}

    def raising(self, number: int, error: type[Exception]) -> None:
        """The job raises an error in this step, once."""

        def fail(job: Any) -> None:
            raise error

        self.before.setdefault(number, []).append(fail)


def parts(of: str = "a") -> list[Row]:
    return [{"of": f"{of}{number}"} for number in range(10)]


@pytest.mark.parametrize(("every", "writes"), [(0.0, 10), (60.0, 0)])
def test_small_steps_share_a_write(
    processor: Processor, stack: Stack, every: float, writes: int
) -> None:
    """About one a second; those of the last second are not stored by a job that ends."""
    small = Small(processor, every)
    calls = stack.calls(processor.module.dynamodb)
    assert result_of(processor.run()) == parts()
    assert (calls.counts()["UpdateItem"], small.ran) == (2 + writes, [*range(10)])


@pytest.mark.parametrize(("every", "repeated"), [(0.0, []), (60.0, [*range(4)])])
def test_a_later_attempt_goes_on_with_the_small_step_that_failed(
    processor: Processor, every: float, repeated: list[int]
) -> None:
    """What was not stored yet runs again."""
    small = Small(processor, every)
    small.raising(4, TimeoutError)
    assert result_of(processor.run()) == parts()
    assert small.ran == [*range(4), *repeated, *range(4, 10)]


def test_a_hand_over_repeats_the_small_step_that_was_under_way(
    processor: Processor, stack: Stack
) -> None:
    """Whatever was not stored before; it spends no attempt."""
    small = Small(processor, 60.0)
    for number in (3, 7):
        small.raising(number, processor.module.OutOfTimeError)
    assert processor.run()["attempts"] == 0
    assert go_on(processor, stack)["attempts"] == 0
    assert result_of(go_on(processor, stack)) == parts()
    assert small.ran == [*range(10)]


def test_a_small_step_for_which_time_is_short_begins_in_the_next_invocation(
    processor: Processor, stack: Stack
) -> None:
    small = Small(processor, 60.0)
    small.before[2] = [lambda job: setattr(job, "_longest_step", 1e6)]
    assert processor.run()["status"] == "PENDING"
    assert small.ran == [0, 1, 2]
    assert result_of(go_on(processor, stack)) == parts()


def test_results_of_other_work_are_not_used(processor: Processor, stack: Stack) -> None:
    """A deployment has changed what the job does; its own results are used later."""
    small = Small(processor)

    def change(job: Any) -> None:
        small.of = "b"
        raise TimeoutError

    small.before[3] = [change]
    small.raising(8, TimeoutError)
    assert result_of(processor.run()) == parts("b")
    assert small.ran == [0, 1, 2, *range(10)]


@pytest.mark.parametrize("late", [["late"], ["late"] * 5])
def test_a_late_write_of_small_steps_stands(
    processor: Processor, stack: Stack, late: list[str]
) -> None:
    """It was sent by an attempt before; what follows keeps its place."""
    small = Small(processor, 60.0)

    def store_late(job: Any) -> None:
        text = json.dumps({"of": "a", "first": 0, "results": late})
        steps = {"steps": [{"name": "part-1", "result": text}], "step_count": 1}
        lease_of(stack).store_steps(job.invocation.id, steps, time.time())
        raise processor.module.OutOfTimeError

    small.before[3] = [store_late]
    processor.run()
    found = result_of(go_on(processor, stack))
    assert found == [*late, *parts()[len(late) :]]
    assert small.ran == [*range(3), *range(len(late), 10)]


# Hand-over


def test_a_job_goes_on_in_the_next_invocation(
    processor: Processor, stack: Stack, steps: Steps
) -> None:
    """At once, at the first step without a result, and without an attempt."""
    calls = stack.calls(processor.module.dynamodb)
    steps.raising("one", "OutOfTimeError")
    steps.raising("two", "OutOfTimeError")
    row = processor.run()
    assert (row["status"], row["attempts"], row["step_count"]) == ("PENDING", 0, 1)
    assert "lease_owner" not in row
    assert calls.counts()["UpdateItem"] == 2 + 2
    assert go_on(processor, stack)["attempts"] == 0
    row = go_on(processor, stack)
    assert (len(result_of(row)), row["attempts"]) == (3, 1)
    assert steps.ran == ["one", "two", "three"]
    assert len(processor.terminal()) == 1


def test_a_job_outlasts_more_invocations_than_attempts(
    processor: Processor, stack: Stack, steps: Steps
) -> None:
    steps.names = tuple("abcdefgh")
    for name in steps.names:
        steps.raising(name, "OutOfTimeError")
    processor.run(request(max_attempts=2))
    for _ in steps.names:
        row = go_on(processor, stack)
    assert (len(result_of(row)), steps.ran) == (8, [*"abcdefgh"])


def test_an_invocation_without_progress_has_failed_its_attempt(
    processor: Processor, stack: Stack, steps: Steps
) -> None:
    """What an earlier one has stored does not count."""
    processor.set(backoff_seconds=lambda attempt: 5e4)
    for _ in range(2):
        steps.raising("one", "OutOfTimeError")
    processor.run()
    row = go_on(processor, stack)
    assert (row["status"], row["attempts"]) == ("RETRYING", 1)


def test_a_step_for_which_time_is_short_begins_in_the_next_invocation(
    processor: Processor, stack: Stack, steps: Steps
) -> None:
    """By the longest step so far; without one, the step is tried."""
    steps.once("one", lambda job: setattr(job, "_longest_step", 1e6))
    assert processor.run()["status"] == "PENDING"
    assert steps.ran == ["one"]
    assert len(result_of(go_on(processor, stack))) == 3


def test_a_hand_over_that_is_cut_is_completed_by_the_sweeper(
    processor: Processor, stack: Stack, steps: Steps
) -> None:
    """The function has died between the two writes."""
    steps.raising("two", "OutOfTimeError")
    processor.run()
    stack.put("requests", stack.request() | {"status": "RETRYING", "lease_until": int(time.time())})
    assert processor.sweep() == {"requeued": 1}
    assert len(result_of(go_on(processor, stack))) == 3
    assert steps.ran == ["one", "two", "three"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_job_that_takes_too_long_ends(
    processor: Processor, stack: Stack, steps: Steps, begun: bool
) -> None:
    """All invocations together, from the first one on; also if it makes progress."""
    steps.raising("one", "OutOfTimeError")
    processor.run()
    if begun:
        steps.once("two", lambda job: setattr(job, "ends_at", time.time()))
    else:
        processor.set(MAX_JOB_SECONDS=0)
    row = go_on(processor, stack)
    assert (row["status"], row["error"]["code"]) == ("FAILED", "TIMEOUT")
    assert row["error"]["message"].startswith("The job takes longer than")
    assert steps.ran == ["one", "two"][: 1 + begun]


# Waits


def test_a_wait_gives_the_worker_back(processor: Processor, stack: Stack) -> None:
    """Neither a message nor a sweep begins the job early; it goes on after the wait."""
    ran: list[str] = []

    def run(job: Any) -> Any:
        job.step("one", lambda: ran.append("one"))
        job.wait(3600)
        return job.step("two", lambda: ran.append("two"))

    began = time.time()
    row = processor.run(job=run)
    assert (row["status"], row["attempts"], ran) == ("RETRYING", 0, ["one"])
    assert began + 3600 <= row["lease_until"] <= time.time() + 3601
    assert "lease_owner" not in row
    assert (processor.deliver(message(row)), processor.sweep(), stack.request()) == ([], {}, row)
    one, wait = row["steps"]
    assert wait["name"] == "wait-2"
    row |= {"lease_until": int(began), "steps": [one, wait | {"result": str(began)}]}
    stack.put("requests", row)
    assert processor.sweep() == {"requeued": 1}
    row = go_on(processor, stack)
    assert (row["status"], row["attempts"], ran) == ("COMPLETED", 1, ["one", "two"])


@pytest.mark.parametrize("given", [{"seconds": 0.01}, {"until": 1.0}, {"seconds": -1, "name": "x"}])
def test_a_short_wait_keeps_the_worker(processor: Processor, given: Row) -> None:
    row = processor.run(job=lambda job: [job.wait(**given), job.wait(**given | {"name": "again"})])
    assert (result_of(row), row["attempts"]) == ([None, None], 1)


def test_a_wait_ends_with_the_time_of_the_job(processor: Processor, stack: Stack) -> None:
    """It fails then; the row does not expire before."""
    row = processor.run(job=lambda job: job.wait(30 * 24 * 3600))
    assert row["lease_until"] <= time.time() + processor.module.MAX_JOB_SECONDS + 1 < row["ttl"]
    started = time.time() - processor.module.MAX_JOB_SECONDS - 1
    stack.put("requests", row | {"lease_until": 1, "started_at": iso(started)})
    processor.sweep()
    row = go_on(processor, stack)
    assert (row["status"], row["error"]["code"]) == ("FAILED", "TIMEOUT")


# Callbacks


class Asking:
    """A job that asks for an approval, whose tokens are `sent`; it returns what it gets."""

    def __init__(self, processor: Processor, stack: Stack, timeout: float = 3600) -> None:
        self.processor, self.stack, self.timeout = processor, stack, timeout
        self.sent: list[str] = []
        self.during: Callable[[], Any] = lambda: None

    def __call__(self, job: Any) -> Any:
        try:
            return {"got": job.callback("approval", self.timeout, self.send)}
        except CallbackError as error:
            return {"error": str(error), "timed_out": error.timed_out}

    def send(self, token: str) -> None:
        self.sent.append(token)
        self.during()

    def give(self, **answer: Any) -> str:
        """Return the newest token; what refuses it."""
        return self.returned(self.sent[-1], answer or {"result": "yes"})

    def returned(self, token: Any, answer: Row, now: float | None = None) -> str:
        try:
            table = f"{PREFIX}requests"
            return_callback(self.stack.dynamodb, table, token, answer, now or time.time())
        except (AnswerError, TokenError) as error:
            return type(error).__name__
        return ""

    def run(self) -> Row:
        return self.processor.run(job=self)


@pytest.fixture
def asking(processor: Processor, stack: Stack) -> Asking:
    return Asking(processor, stack)


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"result": {"by": "ü"}}, {"got": {"by": "ü"}}),
        ({"result": None}, {"got": None}),
        ({"error": "no"}, {"error": "no", "timed_out": False}),
        ({"result": "x" * 8000}, {"got": "x" * 8000}),
    ],
)
def test_a_callback_gives_the_worker_back_until_it_is_returned(
    processor: Processor, stack: Stack, asking: Asking, answer: Row, result: Row
) -> None:
    """The one who returns it queues the job; what is returned again is refused, also at the end."""
    row = asking.run()
    assert (row["status"], row["attempts"]) == ("RETRYING", 0)
    assert time.time() + 3590 < row["lease_until"] <= time.time() + 3601
    assert asking.sent[0] not in json.dumps(row)
    assert asking.sent[0].split(".")[1] not in json.dumps(row)
    assert (asking.give(**answer), asking.give(**answer)) == ("", "TokenUsedError")
    row = go_on(processor, stack)
    assert (result_of(row), row["attempts"], len(asking.sent)) == (result, 1, 1)
    assert asking.give() == "TokenUsedError"
    assert "callback_answer" not in row


def test_a_callback_is_returned_while_its_worker_has_the_job(
    processor: Processor, stack: Stack, asking: Asking
) -> None:
    """The job is not put back for an hour, but goes on."""
    asking.during = asking.give
    assert asking.run()["status"] == "PENDING"
    assert result_of(go_on(processor, stack)) == {"got": "yes"}
    assert len(asking.sent) == 1


@pytest.mark.parametrize("is_late", [False, True])
def test_a_callback_times_out(
    processor: Processor, stack: Stack, asking: Asking, is_late: bool
) -> None:
    """The action can catch it. What is returned while that is stored counts, and once only."""
    row = asking.run()
    over = row["callback"] | {"expires": int(time.time()) - 1}
    stack.put("requests", row | {"callback": over, "lease_until": 1})
    assert asking.give() == "TokenOverError"
    assert processor.sweep() == {"requeued": 1}
    before = time.time() - 60
    if is_late:  # by a clock that is slow
        whole = RequestLease.store_steps

        def store(lease: RequestLease, *given: Any, **more: Any) -> Row:
            asking.returned(asking.sent[0], {"result": 1}, before)
            return whole(lease, *given, **more)

        stack.monkeypatch.setattr(RequestLease, "store_steps", store)
    result = result_of(go_on(processor, stack))
    if is_late:
        assert result == {"got": 1}
    else:
        text = "The callback 'approval' was not returned in time"
        assert result == {"error": text, "timed_out": True}
    again = asking.returned(asking.sent[0], {"result": 2}, before)
    assert again == ("TokenUsedError" if is_late else "TokenOverError")


@pytest.mark.parametrize("is_returned", [False, True])
def test_a_token_that_was_sent_before_a_crash(
    processor: Processor, stack: Stack, asking: Asking, is_returned: bool
) -> None:
    """Another one is sent in its place, unless it was returned; its time is not longer."""
    failing = [TimeoutError()]

    def during() -> None:
        if is_returned:
            asking.give()
        while failing:
            raise failing.pop()

    asking.during = during
    row = asking.run()
    if is_returned:
        assert (result_of(row), len(asking.sent)) == ({"got": "yes"}, 1)
        return
    first, second = asking.sent
    assert asking.returned(first, {"result": 1}) == "TokenOverError"
    assert (asking.returned(second, {"result": 2}), row["attempts"]) == ("", 1)
    assert result_of(go_on(processor, stack)) == {"got": 2}


def test_a_cancelled_job_ends_its_callback(
    processor: Processor, stack: Stack, asking: Asking
) -> None:
    asking.run()
    lease_of(stack).ask_to_cancel()
    assert lease_of(stack).requeue(time.time())
    assert go_on(processor, stack)["status"] == "CANCELLED"
    assert asking.give() == "TokenOverError"


def test_a_job_has_several_callbacks(processor: Processor, stack: Stack) -> None:
    """Each with a token of its own; the newest of those that are over are known."""
    sent: list[str] = []
    names = [f"ask-{number}" for number in range(22)]
    processor.run(job=lambda job: [job.callback(name, 60, sent.append) for name in names])
    asking = Asking(processor, stack)
    for number, _ in enumerate(names):
        assert asking.returned(sent[-1], {"result": number}) == ""
        row = go_on(processor, stack)
    assert result_of(row) == [*range(22)]
    assert [asking.returned(token, {"result": 0}) for token in sent] == [
        *["TokenUnknownError"] * 2,
        *["TokenUsedError"] * 20,
    ]


def test_another_callback_than_the_open_one_fails_the_job(
    processor: Processor, stack: Stack, asking: Asking
) -> None:
    asking.run()
    asking.give()
    processor.action("delay", lambda job: job.callback("other", 60, asking.send))
    assert "while 'approval' is open" in go_on(processor, stack)["error"]["message"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({}, "AnswerError"), ({"result": 1, "error": "x"}, "AnswerError"),
        ({"error": 5}, "AnswerError"), ({"error": "x" * 1001}, "AnswerError"),
        ({"result": object()}, "AnswerError"), ({"result": float("nan")}, "AnswerError"),
        ({"result": "\ud800"}, "AnswerError"), ({"result": "x" * 8192}, "AnswerError"),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_valid(asking: Asking, answer: Row, error: str) -> None:
    """It changes nothing: the token can be returned then."""
    asking.run()
    assert asking.returned(asking.sent[0], answer) == error
    assert asking.give() == ""


def test_a_token_that_is_not_of_the_job(stack: Stack, asking: Asking) -> None:
    asking.run()
    (token,) = asking.sent
    name, secret = token.split(".")
    other, _ = new_token("tenant#somebody", "req-1")
    guessed, _ = new_token(OWNER, "req-1")
    wrong: list[Any] = [
        "", None, ".", name, f"{token}.", f"{secret}.{name}", f"{name}.{secret[:-2]}", other,
        guessed, "é.é", "x" * 2049, f"é{token}", f"{name} .{secret}", f"eA.{secret}",
    ]  # fmt: skip
    assert {asking.returned(each, {"result": 1}) for each in wrong} == {"TokenUnknownError"}
    stack.put("requests", stack.request() | {"ttl": int(time.time()) - 1})
    assert asking.give() == "TokenUnknownError"
