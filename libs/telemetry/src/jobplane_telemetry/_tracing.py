"""X-Ray segments. Imported by sampled invocations only: the SDK costs over 100 ms to load.

Segments are opened by hand on the SDK's plain context, since its Lambda context can only continue
the trace of the invocation itself, and a job goes on in the trace of the message that began it.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aws_xray_sdk.core import patch, xray_recorder
from aws_xray_sdk.core.context import Context
from aws_xray_sdk.core.models.trace_header import TraceHeader

# Calls outside of all segments are not traced; this must not be logged as an error.
logging.getLogger("aws_xray_sdk").setLevel(logging.CRITICAL)
xray_recorder.configure(context=Context(context_missing="IGNORE_ERROR"), sampling=False)
patch(("botocore",))


@contextmanager
def segment(name: str, header: str, ids: Mapping[str, Any]) -> Iterator[None]:
    """A segment of the header's trace, around the AWS calls of the current thread."""
    outer = xray_recorder.get_trace_entity()
    parsed = TraceHeader.from_header_str(header)
    xray_recorder.begin_segment(name, traceid=parsed.root, parent_id=parsed.parent, sampling=1)
    annotate(ids)
    try:
        yield
    finally:
        xray_recorder.end_segment()
        if outer is not None:
            # A new segment takes the place of the one around it.
            xray_recorder.set_trace_entity(outer)


def annotate(ids: Mapping[str, Any]) -> None:
    """Put ids on the current segment, so that traces can be found by them."""
    current = xray_recorder.current_segment()
    if current is not None:
        for key, value in ids.items():
            current.put_annotation(key, str(value))
