"""Posts that their sender does not wait for."""

import contextvars
import threading
import time
from collections.abc import Callable
from functools import partial

SILENCE_SECONDS = 5.0
"""How long `Outbox.drain` waits for an endpoint that answers nothing."""


class Outbox:
    """Makes posts one after the other, in a thread of its own that the first one starts.

    Each post is a call without arguments, which must not raise. It runs in the context variables
    of the code that has put it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[Callable[[], object], bool]] = []
        self._has_begun = False
        self._is_busy = False
        self._is_closed = False
        self._answered_at = 0.0

    def put(self, post: Callable[[], object], *, replaceable: bool = False) -> None:
        """Make a post after those that wait. If it and the last that waits are both replaceable,
        it takes the other's place; the first one of all is never replaced.
        """
        with self._changed:
            if replaceable and self._waiting and self._waiting[-1][1]:
                self._waiting.pop()
            run = partial(contextvars.copy_context().run, post)
            self._waiting.append((run, replaceable and self._has_begun))
            if not self._has_begun:
                self._has_begun = True
                threading.Thread(target=self._run, name="outbox", daemon=True).start()
            self._changed.notify_all()

    def answered(self) -> None:
        """Note that the endpoint has answered; `post` calls it as `on_answer`."""
        self._answered_at = time.monotonic()

    def drop(self) -> None:
        """Forget the posts that wait."""
        with self._changed:
            self._waiting.clear()
            self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait until all posts are made, for `seconds` at most; return whether they are.

        It gives up earlier when the endpoint has answered nothing for five seconds.
        """
        began = time.monotonic()
        with self._changed:
            while self._waiting or self._is_busy:
                end = min(began + seconds, max(began, self._answered_at) + SILENCE_SECONDS)
                if (left := end - time.monotonic()) <= 0:
                    return False
                self._changed.wait(left)
        return True

    def close(self, seconds: float) -> bool:
        """`drain`, and end the thread when nothing is left. Replaceable posts that still wait are
        dropped; the others may be made later.
        """
        is_drained = self.drain(seconds)
        with self._changed:
            self._is_closed = True
            self._waiting = [entry for entry in self._waiting if not entry[1]]
            self._changed.notify_all()
        return is_drained

    def _run(self) -> None:
        try:
            while post := self._next():
                post()
        finally:
            with self._changed:
                self._waiting.clear()
                self._is_busy = False
                self._changed.notify_all()

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            self._is_busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            self._is_busy = bool(self._waiting)
            return self._waiting.pop(0)[0] if self._waiting else None
