"""Which stuck files may be reset, and what that writes."""

from typing import Any

from jobplane_files._changes import Change
from jobplane_files._rows import HOUR, Row
from jobplane_keys import iso_time
from jobplane_keys.tracking import FileStatus


def no_reset_because(
    file: Row, manifest: Row | None, *, now: float, hours: float, max_resets: int
) -> str | None:
    """Why a file that seems stuck must stay as it is; None when it may be reset.

    `manifest` is its manifest's row; `hours` is how long it may run.
    """
    if file.since is None:
        return "its age is unknown: no readable timestamp"
    if file.status is FileStatus.FAILED and resets_of(file) >= max_resets:
        return f"it was reset {resets_of(file)} times already"
    status = None if manifest is None else manifest.values.get("status")
    if manifest is None or status in {None, FileStatus.FAILED}:
        return None
    if status == FileStatus.COMPLETED:
        return "its manifest is completed: the data is in the output"
    times = ("processing_start_time", "updated_at", "created_at")
    begun = next((manifest.time(name) for name in times if manifest.values.get(name)), None)
    if begun is None:
        return f"its manifest is {status}, and its age is unknown: no readable timestamp"
    return f"its manifest is still {status}" if now - begun <= hours * HOUR else None


def resets_of(file: Row) -> int:
    """How often a file was reset."""
    count = file.values.get("reset_count")
    return count if isinstance(count, int) else 0


def reset_of(
    file: Row, max_resets: int, *, began: float, now: float, changed_by: str, reason: str | None
) -> tuple[dict[str, Any], Change]:
    """How a stuck file is reported, and its reset; a file that was reset too often fails.

    `began` is the time at which the search began, by which ages are measured.
    """
    resets = resets_of(file)
    is_last = resets >= max_resets
    action, resets = ("fail", resets) if is_last else ("reset", resets + 1)
    found = file.finding(began, reset_count=resets, action=action)
    at = iso_time(now)
    return found, Change(
        status=FileStatus.FAILED if is_last else FileStatus.PENDING,
        changed_by=changed_by,
        reason=reason or f"stuck for {found['hours_stuck']} hours",
        fields=(
            {"failed_time": at, "error_message": f"stuck again after {resets} resets"}
            if is_last
            else {"last_reset_time": at, "reset_count": resets}
        ),
        # With these, a run that is late could complete a file that was reset.
        removed=("manifest_path", "glue_job_run_id"),
    )
