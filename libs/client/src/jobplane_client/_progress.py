"""One line about a job, for people."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobplane_models.assemblies import AssemblyDocument

_WAITING_CODES = (None, "ASSEMBLY_UPLOADING")


def progress_message(document: "AssemblyDocument | Mapping[str, Any]") -> str:
    """The state of a job in one printable line.

    Examples: `INPUT_MISSING: a.csv is missing`, `Completed in 5.2s`, `Cancelled`,
    `40 % (2/5 steps) resize`, `Waiting`. It ends in `, stalled` when the job makes no progress.
    Takes a document, or the mapping that a webhook delivers.
    """
    values = document if isinstance(document, Mapping) else document.model_dump()
    return "".join(part for part in " ".join(_line(values).split()) if part.isprintable())


def _line(values: Mapping[str, Any]) -> str:
    error, ok = values.get("error"), values.get("ok")
    if "ASSEMBLY_CANCELED" in (ok, error):
        return "Cancelled"
    if error:
        message = values.get("message")
        return f"{error}: {message}" if message and message != error else str(error)
    if ok == "ASSEMBLY_COMPLETED":
        duration = values.get("execution_duration")
        return "Completed" if duration is None else f"Completed in {duration:.1f}s"
    executing = is_executing(ok, values.get("execution_start"))
    line = _running(values) if executing else "Waiting"
    return f"{line}, stalled" if values.get("stalled") else line


def is_executing(ok: str | None, execution_start: str | None) -> bool:
    """Whether a job that has not ended is running."""
    return ok not in _WAITING_CODES or bool(execution_start)


def _running(values: Mapping[str, Any]) -> str:
    percentage, total = values.get("progress_pct"), values.get("steps_total")
    parts = []
    if percentage is not None:
        # Rounded down: a job shows 100 % only when it has ended.
        parts.append(f"{int(min(max(percentage, 0), 100))} %")
    if total:
        parts.append(f"({values.get('steps_completed') or 0}/{total} steps)")
    if values.get("current_step"):
        parts.append(values["current_step"])
    return " ".join(parts) or "Processing"
