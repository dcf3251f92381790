"""X-Ray segments. Imported only by sampled invocations: the SDK takes over 100 ms to load.

The SDK's Lambda context can only continue the trace of the invocation. A job continues the trace of
the message that began it, so segments are opened on the SDK's basic context.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aws_xray_sdk.core import patch, xray_recorder
from aws_xray_sdk.core.context import Context
from aws_xray_sdk.core.models.trace_header import TraceHeader

# Calls outside of segments are not traced; the SDK must not log that as an error.
logging.getLogger("aws_xray_sdk").setLevel(logging.CRITICAL)
xray_recorder.configure(context=Context(context_missing="IGNORE_ERROR"), sampling=False)
patch(("botocore",))


@contextmanager
def segment(name: str, header: str, ids: Mapping[str, Any]) -> Iterator[None]:
    """Open a segment of the header's trace for the AWS calls of the current thread."""
    outer = xray_recorder.get_trace_entity()
    parsed = TraceHeader.from_header_str(header)
    xray_recorder.begin_segment(name, traceid=parsed.root, parent_id=parsed.parent, sampling=1)
    annotate(ids)
    try:
        yield
    finally:
        xray_recorder.end_segment()
        if outer is not None:
            # A new segment replaces the enclosing one.
            xray_recorder.set_trace_entity(outer)


def annotate(ids: Mapping[str, Any]) -> None:
    """Add ids to the current segment, to find traces by them."""
    current = xray_recorder.current_segment()
    if current is not None:
        for key, value in ids.items():
            current.put_annotation(key, str(value))
