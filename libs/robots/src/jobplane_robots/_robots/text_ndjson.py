"""`/text/ndjson`: checks that every line of a file is JSON."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Literal

from jobplane_robots._io import Outputs, RobotContext, RobotInput, RobotResult
from jobplane_robots._robot import RobotOptions, robot
from jobplane_robots._text import (
    MIB,
    Faults,
    MaxRecordBytes,
    MaxReported,
    TextOutput,
    read_ndjson,
)

MIME = "application/x-ndjson"


class TextNdjsonOptions(RobotOptions):
    """What happens to a bad line, and the limits.

    `fail` ends the run at the first one, `report` passes the file on and lists the first ones in
    its meta, `drop` writes a file of the good lines only. Blank lines are skipped and counted.
    """

    on_error: Literal["fail", "report", "drop"] = "fail"
    max_line_bytes: MaxRecordBytes = 4 * MIB
    max_reported: MaxReported = 20


@robot("/text/ndjson", options=TextNdjsonOptions)
def text_ndjson(
    source: RobotInput, options: TextNdjsonOptions, outputs: Outputs, context: RobotContext
) -> RobotResult:
    """Checks the lines; passes the file on unchanged, unless bad lines are dropped."""
    faults = Faults(options.on_error, options.max_reported)
    lines = valid = 0
    with context.open(source) as stream, ExitStack() as stack:
        text = None
        if options.on_error == "drop":
            output = stack.enter_context(outputs.create(source.name, mime=MIME))
            text = TextOutput(output)
        for line in read_ndjson(stream, max_line_bytes=options.max_line_bytes):
            lines += 1
            if line.fault:
                faults.add(line.fault, line=line.number)
            elif not line.blank:
                valid += 1
                if text:
                    text.write(f"{line.text}\n")
        counts = {
            "lines": lines,
            "valid": valid,
            "invalid": faults.count,
            "blank": lines - valid - faults.count,
        }
        facts = {**counts, "bad_lines": faults.first}
        if text:
            text.flush()
            output.meta.update(facts)
    if options.on_error != "drop":
        outputs.forward(source, facts)
    done = "lines were left out" if options.on_error == "drop" else "lines are not valid"
    return RobotResult(counts=counts, meta=facts, warnings=faults.warning(done))
