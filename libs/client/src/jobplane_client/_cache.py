"""A cache of the documents of completed jobs. A job that failed or was cancelled may run again."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from jobplane_models.assemblies import AssemblyDocument


class CompletedCache:
    """The `size` documents that were used last, by caller, each for `ttl` seconds. Thread-safe."""

    def __init__(self, size: int, ttl: float, clock: Callable[[], float]) -> None:
        self._size = size
        self._ttl = ttl
        self._clock = clock
        self._entries: OrderedDict[tuple[str | None, str], tuple[float, AssemblyDocument]] = (
            OrderedDict()
        )
        self._lock = threading.Lock()

    def get(self, caller: str | None, assembly_id: str) -> AssemblyDocument | None:
        """The caller's document; None if it is not in the cache, or too old."""
        key = (caller, assembly_id)
        with self._lock:
            expires_at, document = self._entries.get(key, (0.0, None))
            if document is None:
                return None
            if expires_at <= self._clock():
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return document

    def put(self, caller: str | None, document: AssemblyDocument) -> None:
        """Store the document if its job has completed."""
        if not document.completed or self._size <= 0:
            return
        key = (caller, document.assembly_id)
        with self._lock:
            self._entries[key] = (self._clock() + self._ttl, document)
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
