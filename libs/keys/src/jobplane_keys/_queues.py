"""What functions put into the queues that they share."""

import json
from typing import Any

_MAX_CHARACTERS = 250_000  # SQS takes 256 KiB, and the text is ASCII


def unreadable_record(record: Any, error: BaseException) -> str:
    """The message about a record, of a stream or a queue, that can't be parsed.

    A text that is too long for a message is cut; it is not valid JSON then.
    """
    content = {"error": f"record can't be parsed: {error}", "record": record}
    return json.dumps(content, default=str)[:_MAX_CHARACTERS]
