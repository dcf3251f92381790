"""What a handler receives: its job, the signal to stop, and follow-up messages."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from jobplane_client._errors import JobInterrupted


class Clock(Protocol):
    """Reads the time and waits."""

    def time(self) -> float:
        """The time in epoch seconds."""

    def monotonic(self) -> float:
        """Seconds since a fixed moment; never goes back."""

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        """Wait for the event, for at most `seconds`; return whether it is set."""


class JobEnd(StrEnum):
    """How a job ended.

    completed     the result was reported
    failed        the handler raised, or its result could not be reported
    interrupted   another thread needs the workspace: PREEMPTED was reported
    stopped       the worker had to stop: the next one does the job, from its beginning
    lost          the execution has ended or the claim is lost: the result was not reported
    unreported    Step Functions could not be notified; the message is delivered again
    """

    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped"
    LOST = "lost"
    UNREPORTED = "unreported"


class StopReason(StrEnum):
    """Why a handler must stop; a later value of this list replaces an earlier one."""

    STOPPING = "stopping"
    INTERRUPT = "interrupt"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Another thread needs the workspace."""

    id: str
    message_id: str
    new_thread_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A message of the job's own thread."""

    message_id: str
    thread_id: str
    instruction: Any
    attachments: Sequence[Mapping[str, Any]] = ()


class Cancellation:
    """The signal that a handler must stop; used like a `threading.Event`.

    `reason` is `interrupt`, `lost` or `stopping`, `detail` explains it, and `interrupt` is the
    message that interrupted the job. All are None until the signal is given.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = threading.Event()
        self._signal: tuple[StopReason, str, Interrupt | None] | None = None

    def is_set(self) -> bool:
        """Whether the handler must stop."""
        return self._event.is_set()

    __bool__ = is_set

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the signal, for at most `seconds`; return whether it was given."""
        return self._clock.wait(self._event, seconds)

    @property
    def reason(self) -> StopReason | None:
        return self._signal[0] if self._signal else None

    @property
    def detail(self) -> str | None:
        return self._signal[1] if self._signal else None

    @property
    def interrupt(self) -> Interrupt | None:
        return self._signal[2] if self._signal else None

    def give(self, reason: StopReason, detail: str, interrupt: Interrupt | None = None) -> None:
        """Give the signal; only the worker calls this."""
        self._signal = (reason, detail, interrupt)
        self._event.set()


class Job:
    """One piece of work, as its handler sees it.

    `instruction` and `attachments` are the flow's input; an attachment that was not found has
    `ok: false`. `claim_id` and `fence` identify the claim: pass the fence with every write of the
    job. `expires_at` (epoch seconds) grows as the worker renews the claim. `cancelled` is set
    when the handler must stop.
    """

    def __init__(
        self,
        *,
        instruction: Any,
        attachments: Sequence[Mapping[str, Any]],
        message_id: str,
        thread_id: str,
        project_user_id: str,
        claim_id: str,
        fence: int,
        container_id: str | None,
        expires_at: int,
        clock: Clock,
        take: Callable[[], list[FollowUp]] = list,
        report: Callable[[float, str], None] = lambda percentage, message: None,
        emit: Callable[[Any], None] = lambda event: None,
    ) -> None:
        self.instruction = instruction
        self.attachments = attachments
        self.message_id = message_id
        self.thread_id = thread_id
        self.project_user_id = project_user_id
        self.claim_id = claim_id
        self.fence = fence
        self.container_id = container_id
        self.expires_at = expires_at
        self.cancelled = Cancellation(clock)
        self._take = take
        self._report = report
        self._emit = emit
        self._partial: Any = None

    def check(self) -> None:
        """Raise JobInterrupted if the job must stop."""
        if self.cancelled.is_set():
            raise JobInterrupted(self.cancelled.reason or "", self.cancelled.detail or "")

    def wait(self, seconds: float) -> bool:
        """Wait for `seconds`, or until the job must stop; return whether it must."""
        return self.cancelled.wait(seconds)

    def follow_ups(self) -> list[FollowUp]:
        """The follow-ups that arrived since the last call, oldest first; does not wait.

        A call confirms that the follow-ups of the previous call are done, and so does the result of
        the job. Those that are not confirmed when the worker crashes or the job ends without a
        result, and those that were never returned, become separate jobs.
        """
        return self._take()

    def report(self, percentage: float, message: str = "") -> None:
        """Tell those who listen to the job's request how far it is, 0 to 100; does not wait.

        Of several reports within half a second, the newest is sent. A percentage never falls. A
        job that was not sent as a request (`instruct`) has no listeners. Raises ValueError.
        """
        self._report(percentage, message)

    def emit(self, event: Any) -> None:
        """Send a JSON value of at most 30 KB to those who listen to the job's request: all, in
        order, once. What was not sent when the worker crashes is lost. Raises ValueError.
        """
        self._emit(event)

    def partial(self, value: Any) -> None:
        """Save partial work as JSON; the flow receives it if the job is interrupted.

        Raises TypeError or ValueError for a value that can't be written as JSON.
        """
        # A copy, so that later changes of the value have no effect.
        self._partial = json.loads(json.dumps(value, allow_nan=False))

    @property
    def partial_work(self) -> Any:
        """The last value given to `partial`."""
        return self._partial
