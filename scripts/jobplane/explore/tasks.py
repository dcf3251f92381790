"""Tasks of which one runs at a time, on simulated time.

A task is a thread that gives way only at a point (an AWS call) or when it must wait. Which task is
next is a choice of the schedule. The shipped code's own threads, locks and waits are replaced by
those of `SimulatedThreading` and `SimulatedTime`, so its background threads are tasks as well.
"""

import contextvars
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, Self

type Choose = Callable[["Task", str, list[str]], str]
"""Given the task, the kind of moment and the options, one of the options; "" is the default."""

STANDARD_START = 1_790_000_000.0
MOST_STEPS = 6_000


class KilledError(BaseException):
    """The process of a task has ended; no code of it may catch this."""


class UnrestError(Exception):
    """A schedule does not come to rest."""


@dataclass
class Process:
    """What is killed, frozen and has a clock as a whole: an invocation, or a program."""

    name: str
    skew: float = 0.0
    deadline: float = float("inf")
    frozen_until: float = 0.0
    dead: bool = False


@dataclass(eq=False)
class Task:
    """One thread of a process."""

    name: str
    process: Process
    order: int
    run: Callable[[], Any]
    ready: bool = True
    until: float | None = None
    """When a waiting task goes on at the latest."""
    done: bool = False
    moments: int = 0
    """How often it has come to a point or a wait."""
    calls: int = 0
    children: int = 0
    history: int = 0
    """A digest of all answers that it has had: with the stored data, its state."""
    result: Any = None
    error: BaseException | None = None
    baton: threading.Lock = field(default_factory=threading.Lock)
    joined: list["Task"] = field(default_factory=list)
    started: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}@{self.moments}"


class Scheduler:
    """Runs tasks until none is left, one at a time."""

    def __init__(self, choose: Choose, start: float = STANDARD_START) -> None:
        self.now = start
        self.started = start
        self.tasks: list[Task] = []
        self.errors: list[BaseException] = []
        """With which tasks have ended."""
        self.current: Task | None = None
        self.failure: BaseException | None = None
        self.on_rest: Callable[[float | None], bool] = lambda _: False
        """Called when no task can go on, with the next moment at which one will (None: never);
        whether it has added one."""
        self.log: list[tuple[float, str, str]] = []
        """What happened: when, to which task, what."""
        self._choose = choose
        self._closing = False
        self._numbers = itertools.count()
        self._names: dict[str, int] = {}
        self._main = threading.Lock()
        self._main.acquire()
        self._steps = 0

    # For the world

    def spawn(
        self, name: str, run: Callable[[], Any], process: Process, *, at: float | None = None
    ) -> Task:
        """Add a task that begins when a schedule chooses it, from `at` on."""
        number = self._names[name] = self._names.get(name, 0) + 1
        name = name if number == 1 else f"{name}#{number}"
        task = Task(name, process, next(self._numbers), run)
        task.baton.acquire()
        if at is not None and at > self.now:
            task.ready, task.until = False, at
        self.tasks.append(task)
        return task

    def go(self) -> None:
        """Run until all tasks have ended or wait for ever, or a failure is found."""
        self._pass_on(None)
        self._main.acquire()
        self._close()

    @property
    def ending(self) -> bool:
        """Whether the schedule is over, and its tasks only unwind."""
        return self._closing or self.failure is not None

    def fail(self, error: BaseException) -> None:
        """End the schedule with a violation."""
        if self.failure is None:
            self.failure = error

    def note(self, text: str) -> None:
        name = self.current.name if self.current else "setup"
        self.log.append((self.now - self.started, name, text))

    @property
    def moment(self) -> float:
        """The time; a later step has a later one."""
        return self.now + self._steps * 1e-6

    # For the running task

    def point(self, options: Iterable[str], kind: str = "call") -> str:
        """A moment before a call: other tasks may run first. Returns the fault that is chosen."""
        task = self._me()
        task.moments += 1
        self._steps += 1
        if self._is_restless():
            raise KilledError
        self._alive(task)
        others = [f">{other.name}" for other in self._runnable() if other is not task]
        chosen = self._choose(task, kind, [*others, *options])
        if chosen.startswith(">"):
            self.demote(task)
            self._switch(task, self._named(chosen[1:]))
            self._alive(task)
            return ""
        return chosen

    def wait(self, until: float | None = None) -> None:
        """Let others run until the task is made ready, or until a moment."""
        task = self._me()
        task.ready, task.until = False, until
        self._rest(task)

    def yield_once(self) -> None:
        """Let others run; the task stays ready."""
        self._rest(self._me())

    def wake(self, task: Task) -> None:
        if not task.ready and not task.done:
            task.ready, task.until = True, None

    def kill(self, process: Process) -> None:
        """End a process: its tasks go no further than their next moment."""
        process.dead = True
        for task in self.tasks:
            if task.process is process and not task.done:
                task.ready, task.until = True, None

    def die_if_dead(self) -> None:
        """To be called where a task could go on without a moment."""
        if self.current is not None:
            self._alive(self.current)

    # How one gives way to another

    def _me(self) -> Task:
        assert self.current is not None
        return self.current

    def _alive(self, task: Task) -> None:
        if self.ending or task.process.dead:
            raise KilledError

    def _is_restless(self) -> bool:
        if self._steps <= MOST_STEPS:
            return False
        self.fail(UnrestError(f"still running after {MOST_STEPS} steps"))
        return True

    def _rest(self, task: Task) -> None:
        task.moments += 1
        self._steps += 1
        self._pass_on(task)
        self._alive(task)

    def _switch(self, task: Task, to: Task) -> None:
        if to is task:
            return
        self._give(to)
        task.baton.acquire()

    def _give(self, to: Task) -> None:
        """Let a task run; its thread starts when it runs first."""
        self.current = to
        if to.started:
            to.baton.release()
        else:
            to.started = True
            _THREADS.start(to, self)

    def _pass_on(self, task: Task | None) -> None:
        """Give the processor to the next task; return when `task` is next again."""
        to = self._next(task)
        if to is None:
            self.current = None
            self._main.release()
        elif to is not task:
            self._give(to)
        else:
            return
        if task is not None and not task.done:
            task.baton.acquire()

    def _next(self, task: Task | None) -> Task | None:
        if self.failure is not None or self._closing:
            return None
        try:
            while not (found := self._runnable()):
                if not self._advance():
                    return None
        except Exception as error:
            # Raised in the thread of a task, it would end that thread, and all others would wait.
            self.fail(error)
            return None
        if self._is_restless():
            return None
        if len(found) == 1 or task is None:
            return found[0]
        chosen = self._choose(task, "wait", [f">{other.name}" for other in found[1:]])
        return self._named(chosen[1:]) if chosen else found[0]

    def _advance(self) -> bool:
        """Move the time to the next moment at which something happens."""
        moments = [task.until for task in self.tasks if task.until is not None and not task.done]
        frozen = [
            task.process.frozen_until
            for task in self.tasks
            if task.ready and not task.done and task.process.frozen_until > self.now
        ]
        deadlines = {
            task.process.deadline
            for task in self.tasks
            if not task.done and not task.process.dead and task.process.deadline > self.now
        }
        alive = [moment for moment in (*moments, *frozen, *deadlines) if moment < float("inf")]
        if self.on_rest(min(alive, default=None)):
            return True
        if not alive:
            return False
        self.now = max(self.now, min(alive))
        for task in self.tasks:
            if task.done:
                continue
            if task.process.deadline <= self.now and not task.process.dead:
                self.log.append((self.now - self.started, task.name, "killed at its time-out"))
                self.kill(task.process)
            if task.until is not None and task.until <= self.now:
                self.wake(task)
        return True

    def _runnable(self) -> list[Task]:
        return sorted(
            (
                task
                for task in self.tasks
                if task.ready
                and not task.done
                and (task.process.dead or task.process.frozen_until <= self.now)
            ),
            key=lambda task: task.order,
        )

    def demote(self, task: Task) -> None:
        """Let a task that was interrupted go on only when the others have come to rest."""
        task.order = next(self._numbers) + 1_000_000

    def _named(self, name: str) -> Task:
        return next(task for task in self.tasks if task.name == name and not task.done)

    def begin(self, task: Task) -> None:
        """In the task's thread: run it from its first moment to its end."""
        try:
            if not (self._closing or task.process.dead):
                task.result = task.run()
        except KilledError as error:
            task.error = error
        except BaseException as error:
            task.error = error
        task.done, task.ready, task.until = True, False, None
        task.moments += 1
        self.tasks.remove(task)
        if task.error is not None:
            self.errors.append(task.error)
        for waiting in task.joined:
            self.wake(waiting)
        if self._closing:
            self._main.release()
        else:
            self._pass_on(task)

    def _close(self) -> None:
        """End what is left of all tasks, so that their threads are free."""
        self._closing = True
        for task in list(self.tasks):
            while task.started and not task.done:
                self._give(task)
                self._main.acquire()
        self.current = None


class _Threads:
    """Threads that run one task after another, since starting a thread takes longer than a task."""

    def __init__(self) -> None:
        self._idle: list[_Thread] = []

    def start(self, task: Task, scheduler: Scheduler) -> None:
        thread = self._idle.pop() if self._idle else _Thread(self)
        thread.work = (task, scheduler)
        thread.go.release()

    def free(self, thread: "_Thread") -> None:
        self._idle.append(thread)


class _Thread:
    def __init__(self, threads: _Threads) -> None:
        self.go = threading.Lock()
        self.go.acquire()
        self.work: tuple[Task, Scheduler] | None = None
        self._threads = threads
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        while True:
            self.go.acquire()
            assert self.work is not None
            task, scheduler = self.work
            contextvars.Context().run(scheduler.begin, task)
            self._threads.free(self)


_THREADS = _Threads()


# What the shipped code uses instead of `time`, `threading` and executors


class SimulatedTime:
    """The module `time` for the shipped code: the clocks of the current task's process."""

    def __init__(self, scheduler: Callable[[], Scheduler]) -> None:
        self._scheduler = scheduler

    def time(self) -> float:
        scheduler = self._scheduler()
        skew = scheduler.current.process.skew if scheduler.current else 0.0
        return scheduler.now + skew

    def monotonic(self) -> float:
        return self._scheduler().now

    perf_counter = monotonic

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    def sleep(self, seconds: float) -> None:
        scheduler = self._scheduler()
        if scheduler.current is None:
            scheduler.now += seconds
        elif seconds > 0:
            scheduler.wait(scheduler.now + seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class _Primitive:
    def __init__(self, scheduler: Callable[[], Scheduler]) -> None:
        self._of = scheduler
        self._waiting: list[Task] = []

    @property
    def _s(self) -> Scheduler:
        return self._of()

    def _block(self, timeout: float | None) -> bool:
        """Wait to be woken; whether it was, before the time was over."""
        scheduler = self._s
        task = scheduler.current
        if task is None:
            raise UnrestError("the setup of a scenario waits for another task")
        self._waiting.append(task)
        scheduler.wait(None if timeout is None else scheduler.now + max(0.0, timeout))
        if task in self._waiting:
            self._waiting.remove(task)
            return False
        return True

    def _wake(self, count: int | None = None) -> None:
        woken, self._waiting = self._waiting[:count], self._waiting[len(self._waiting[:count]) :]
        for task in woken:
            self._s.wake(task)


class SimulatedLock(_Primitive):
    """A lock, also one that its owner may take again."""

    def __init__(self, scheduler: Callable[[], Scheduler], *, again: bool = False) -> None:
        super().__init__(scheduler)
        self._again = again
        self._owner: Task | str | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = self._s
        scheduler.die_if_dead()
        me = scheduler.current or "setup"
        while self._owner is not None and not (self._again and self._owner is me):
            if not blocking or not self._block(None if timeout < 0 else timeout):
                return False
        self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            self._wake(1)

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def let_go(self) -> int:
        """Release it completely, for a wait; how often it was held."""
        depth, self._depth, self._owner = self._depth, 0, None
        self._wake(1)
        return depth

    def take_back(self, depth: int) -> None:
        self.acquire()
        self._depth = depth


class SimulatedCondition(_Primitive):
    def __init__(
        self, scheduler: Callable[[], Scheduler], lock: SimulatedLock | None = None
    ) -> None:
        super().__init__(scheduler)
        self._lock = lock or SimulatedLock(scheduler, again=True)
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        depth = self._lock.let_go()
        try:
            return self._block(timeout)
        finally:
            try:
                self._lock.take_back(depth)
            except KilledError:
                self._lock._depth = depth
                raise

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        end = None if timeout is None else self._s.now + timeout
        while not (found := predicate()):
            if end is not None and self._s.now >= end:
                break
            self.wait(None if end is None else end - self._s.now)
        return found

    def notify(self, n: int = 1) -> None:
        self._wake(n)

    def notify_all(self) -> None:
        self._wake()


class SimulatedEvent(_Primitive):
    def __init__(self, scheduler: Callable[[], Scheduler]) -> None:
        super().__init__(scheduler)
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._wake()

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        self._s.die_if_dead()
        if not self._set:
            self._block(timeout)
        return self._set


class SimulatedThread:
    """A thread of a process: a task, whose name is that of its parent and a number."""

    def __init__(
        self,
        scheduler: Callable[[], Scheduler],
        target: Callable[..., Any] | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        daemon: bool | None = None,
    ) -> None:
        self._of = scheduler
        self._target, self._args, self._kwargs = target, args, kwargs or {}
        self.name, self.daemon = name or "thread", daemon
        self.task: Task | None = None

    def start(self) -> None:
        scheduler = self._of()
        parent = scheduler._me()
        scheduler._alive(parent)
        parent.children += 1
        target = self._target or self.run
        self.task = scheduler.spawn(
            f"{parent.name}.{parent.children}",
            lambda: target(*self._args, **self._kwargs),
            parent.process,
        )

    def run(self) -> None:
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def join(self, timeout: float | None = None) -> None:
        scheduler, task = self._of(), self.task
        if task is None:
            return
        end = None if timeout is None else scheduler.now + timeout
        while not task.done and (end is None or scheduler.now < end):
            task.joined.append(scheduler._me())
            scheduler.wait(end)

    def is_alive(self) -> bool:
        return self.task is not None and not self.task.done


class SimulatedExecutor(Executor):
    """Runs what it is given in tasks of the current process, all at once."""

    def __init__(self, scheduler: Callable[[], Scheduler], *_: Any, **__: Any) -> None:
        self._of = scheduler
        self._started: list[SimulatedThread] = []

    def submit[T](self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: _Future = _Future()
        if self._of().current is None:  # in the setup, at once
            _fulfil(future, call, args, kwargs)
            return future
        context = contextvars.copy_context()
        thread = SimulatedThread(
            self._of, target=lambda: context.run(_fulfil, future, call, args, kwargs)
        )
        future.thread = thread
        self._started.append(thread)
        thread.start()
        return future

    def map[T](
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        futures = [self.submit(fn, *arguments) for arguments in zip(*iterables, strict=False)]
        return (future.result() for future in futures)

    def shutdown(self, wait: bool = True, **_: Any) -> None:
        started, self._started = self._started, []
        if wait:
            for thread in started:
                thread.join()


class _Future(Future[Any]):
    thread: SimulatedThread | None = None

    def result(self, timeout: float | None = None) -> Any:
        if self.thread is not None:
            self.thread.join(timeout)
            if self.thread.task and isinstance(self.thread.task.error, KilledError):
                raise KilledError
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self.thread is not None:
            self.thread.join(timeout)
        return super().exception(0)


def _fulfil(
    future: Future[Any], call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    try:
        future.set_result(call(*args, **kwargs))
    except KilledError:
        raise
    except BaseException as error:
        future.set_exception(error)


class SimulatedThreading:
    """The module `threading` for the shipped code."""

    def __init__(self, scheduler: Callable[[], Scheduler]) -> None:
        self._of = scheduler

    def Lock(self) -> SimulatedLock:  # noqa: N802  # the names of threading
        return SimulatedLock(self._of)

    def RLock(self) -> SimulatedLock:  # noqa: N802
        return SimulatedLock(self._of, again=True)

    def Condition(self, lock: SimulatedLock | None = None) -> SimulatedCondition:  # noqa: N802
        return SimulatedCondition(self._of, lock)

    def Event(self) -> SimulatedEvent:  # noqa: N802
        return SimulatedEvent(self._of)

    def Thread(self, group: None = None, **arguments: Any) -> SimulatedThread:  # noqa: N802
        return SimulatedThread(self._of, **arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


class SimulatedRandom:
    """The module `random`, with numbers that depend on the task only."""

    def __init__(self, chance: Callable[[], random.Random]) -> None:
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chance(), name)
