"""The stored results of a job's steps, in their order.

They are attributes of the request's row, and come with it when a worker takes the request:

- `steps`: the newest ones, each with its `name` and its `result` (JSON text), or with `object`, the
  name of the object that holds a result of more than a kilobyte;
- `steps_object`: the object that holds those before them, so that the row stays small;
- `step_count`: how many there are.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from jobplane_keys import item_size, to_item

type Row = dict[str, Any]

MAX_STEPS = 10_000
MAX_STEP_BYTES = 16 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_RESULT_IN_ROW_BYTES = 1024
_STEPS_IN_ROW_BYTES = 4096


class StepError(Exception):
    """The steps of a job contradict those that are stored, or a step can't be stored."""


class CallbackError(StepError):
    """The callback of a step has no result: its time is over (`timed_out`), or what was returned is
    an error, whose text this has.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class StepObjects(Protocol):
    """Where the objects of a job's steps are."""

    def put_object(self, name: str, body: bytes) -> None:
        """Store an object; no other attempt uses its name."""

    def get_object(self, name: str) -> bytes:
        """The content of an object."""


class Steps:
    """The steps of one job as far as they are stored, and how many of them this attempt has passed.

    `attempt` is part of the names of the objects that it stores.
    """

    def __init__(self, row: Mapping[str, Any], objects: StepObjects, attempt: str) -> None:
        self._objects = objects
        self._attempt = attempt
        self._passed: list[str] = []
        self._earlier: list[Row] | None = None
        self.accept(row)

    @property
    def number(self) -> int:
        """The number of the next step, counted from 1."""
        return len(self._passed) + 1

    def accept(self, row: Mapping[str, Any]) -> None:
        """Take over what is stored in the row."""
        if row.get("steps_object") != getattr(self, "_object", None):
            self._earlier = None
        self._recent: list[Row] = [*row.get("steps", ())]
        self._object: str | None = row.get("steps_object")
        self._count: int = row.get("step_count", 0)

    def upcoming(self) -> Row | None:
        """The entry of the next step; None if it is not stored."""
        number, before = len(self._passed), self._count - len(self._recent)
        if number == self._count:
            return None
        return self._recent[number - before] if number >= before else self._read()[number]

    def find(self, name: str) -> Row | None:
        """The entry of the next step, by its name; None if it is not stored. Raises StepError."""
        number = len(self._passed)
        if not _NAME.fullmatch(name):
            raise StepError(
                f"Step {number + 1} has the name {name!r}; use 1 to 64 of A-Z, a-z, 0-9 and ._:-"
            )
        if name in self._passed:
            raise StepError(f"Two steps have the name {name!r}; give each step its own name")
        entry = self.upcoming()
        if entry is None:
            if number == MAX_STEPS:
                raise StepError(f"A job has at most {MAX_STEPS} steps; do more in each")
            return None
        if entry["name"] != name:
            raise StepError(
                f"Step {number + 1} is {name!r} now, but {entry['name']!r} is stored: the job's"
                " steps must have the same names in the same order in every attempt"
            )
        return entry

    def passed(self, name: str) -> None:
        """Note that the step is done, for this attempt."""
        self._passed.append(name)

    def text_of(self, entry: Row) -> str:
        """The result of a step as JSON text."""
        if "object" in entry:
            return self._objects.get_object(entry["object"]).decode()
        return str(entry["result"])

    def with_step(self, name: str, text: str) -> Row:
        """The attributes of the row with one more step, whose objects this stores."""
        body, number = text.encode(), self._count + 1
        if len(body) > MAX_STEP_BYTES:
            raise StepError(
                f"The result of step {name!r} has more than {MAX_STEP_BYTES} bytes; store it as an"
                " object, and return its key"
            )
        entry = {"name": name, "result": text}
        if len(body) > _RESULT_IN_ROW_BYTES:
            entry = {"name": name, "object": f"{self._attempt}/step-{number}.json"}
            self._objects.put_object(entry["object"], body)
        changes: Row = {"steps": [*self._recent, entry], "step_count": number}
        if self._recent and item_size(to_item(changes)) > _STEPS_IN_ROW_BYTES:
            changes["steps_object"] = f"{self._attempt}/steps-{number - 1}.json"
            changes["steps"] = [entry]
            content = json.dumps([*self._read(), *self._recent], ensure_ascii=False)
            self._objects.put_object(changes["steps_object"], content.encode())
        return changes

    def _read(self) -> list[Row]:
        """The steps before those of the row."""
        if self._earlier is None:
            self._earlier = []
            if self._object is not None:
                self._earlier = json.loads(self._objects.get_object(self._object))
        return self._earlier
