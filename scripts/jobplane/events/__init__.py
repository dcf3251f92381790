"""Realistic events of AWS services, to try a function by hand."""

from jobplane.events._fresh import Fresh
from jobplane.events._overrides import OverrideError, override
from jobplane.events._sources import (
    SOURCES,
    KeyMissingError,
    NoTableError,
    Source,
    request_item,
    scheduled_input,
    stream_event,
)

__all__ = [
    "SOURCES", "Fresh", "KeyMissingError", "NoTableError", "OverrideError", "Source", "override",
    "request_item", "scheduled_input", "stream_event",
]  # fmt: skip
