"""A cached value, and SSM parameters as such."""

import math
import random
import re
import time
from collections.abc import Callable
from typing import Any

# The shortest time between two early reads, and the longest between two failed ones.
RENEWAL_SECONDS = 60.0
# Waits are shortened by up to this part, so that workers that started together read apart.
_JITTER = 0.25
_MISSING = frozenset({"ParameterNotFound", "ParameterVersionNotFound"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_THROTTLED = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException"})


class ParameterError(Exception):
    """The parameter has no usable value.

    The text names the parameter and the remedy; it is for the log, not for clients.
    """


class Cached[T]:
    """A value that is read from elsewhere, at most `max_age` seconds old.

    When a read fails, the last good value stays in use, for `max_kept` seconds if that is given.
    Until the first good value, the wait after each failure is longer, up to RENEWAL_SECONDS. Ages
    are measured by the system clock, so they are right in a process that was frozen or restored
    from a snapshot.

    Args:
        read: returns the value, or raises ParameterError.
        max_age: in seconds.
        max_kept: in seconds. With it, a read that fails while a value is kept is not repeated for
            RENEWAL_SECONDS.
        report: called with the text of each failure.
        clock, chance: return the time in epoch seconds, and a random number from 0 to 1.
    """

    def __init__(
        self,
        read: Callable[[], T],
        *,
        max_age: float,
        max_kept: float = math.inf,
        report: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._fetched = read
        self._max_age = max_age
        self._max_kept = max_kept
        self._good_at = -math.inf
        self._report = report
        self._clock = clock
        self._chance = chance
        self._good: tuple[T] | None = None
        self._failures = 0
        self._error: ParameterError | None = None
        self._read_at = math.inf
        self._due = self._renewable = 0.0

    def value(self) -> T:
        """The value. Raises ParameterError until a read has succeeded."""
        return self._read_unless(self._due)

    def renewed(self) -> T:
        """The value, read again unless the last read was less than RENEWAL_SECONDS ago.

        Call it when the parameter may have changed. Raises ParameterError until a read has
        succeeded.
        """
        return self._read_unless(self._renewable)

    def _read_unless(self, before: float) -> T:
        now = self._clock()
        if not self._read_at <= now < before:
            self._read(now)
        if self._good is not None and now - self._good_at > self._max_kept:
            self._good = None
        if self._good is None:
            raise ParameterError(str(self._error)) from self._error
        return self._good[0]

    def _read(self, now: float) -> None:
        try:
            self._good = (self._fetched(),)
            self._good_at = now
        except ParameterError as error:
            self._error = error
            # After the first failure the next read is at once, after later ones it waits.
            wait = min(RENEWAL_SECONDS, 2.0 ** min(self._failures, 10) - 1)
            self._failures += 1
            if self._good is not None and self._max_kept < math.inf:
                wait = RENEWAL_SECONDS
            if self._report is not None:
                kept = "; the last value is kept" if self._good else ""
                self._report(f"{error}{kept}")
        else:
            self._failures, wait = 0, self._max_age
        self._read_at = now
        self._due = now + self._shortened(wait)
        self._renewable = now + self._shortened(min(wait, RENEWAL_SECONDS))

    def _shortened(self, seconds: float) -> float:
        return seconds * (1 - _JITTER * self._chance())


class Parameter[T](Cached[T]):
    """The value of an SSM parameter, at most `max_age` seconds old; see Cached.

    Args:
        client: an SSM client.
        name: the parameter's name, `/path/name`.
        parse: turns the parameter's text into the value; called with None if the parameter does
            not exist. A ValueError is a failed read; its text continues a sentence that begins
            with the parameter's name: "is empty: …".
        max_age, report, clock, chance: as of Cached.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        parse: Callable[[str | None], T],
        *,
        max_age: float,
        report: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._client = client
        self._parse = parse
        super().__init__(self._parsed, max_age=max_age, report=report, clock=clock, chance=chance)

    def value(self) -> T:
        """See Cached.value."""
        return super().value()

    def renewed(self) -> T:
        """See Cached.renewed."""
        return super().renewed()

    def _parsed(self) -> T:
        try:
            answer = self._client.get_parameter(Name=self.name, WithDecryption=True)
            text: str | None = answer["Parameter"]["Value"]
        except Exception as error:  # the client may raise anything, and no read may end a worker
            code = _code(error)
            if code not in _MISSING:
                raise ParameterError(f"SSM parameter {self.name} {_remedy(code, error)}") from error
            text = None
        try:
            return self._parse(text)
        except ValueError as error:
            raise ParameterError(f"SSM parameter {self.name} {error}") from error


def split_secrets(text: str) -> tuple[str, ...]:
    """The secrets of a text, separated by spaces, line ends or commas; the newest is first.

    `v1,whsec_…`, as some providers show a webhook's secret, is one secret: `whsec_…`.
    """
    return tuple(re.findall(r"(?:\bv1,(?=whsec_))?([^\s,]+)", text))


def _code(error: Exception) -> str:
    """AWS's code of an error; empty if AWS has not answered."""
    response = getattr(error, "response", None)
    found = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return found if isinstance(found, str) else ""


def _remedy(code: str, error: Exception) -> str:
    """The cause of a failed read and its remedy, after the parameter's name."""
    if code in _DENIED:
        return (
            f"can't be read: allow this function's role ssm:GetParameter on it and, if a customer "
            f"managed key encrypts it, kms:Decrypt on that key ({error})"
        )
    if code in _THROTTLED:
        return (
            "can't be read now: SSM throttles (40 reads a second by default); it is tried again. "
            "If this continues, switch on SSM's higher throughput"
        )
    return f"can't be read: {type(error).__name__}: {error}"
