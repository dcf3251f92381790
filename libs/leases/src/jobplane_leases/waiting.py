"""The documents of assemblies that wait for a worker.

A job's acknowledgement is sent when its assembly has a document, which says that it waits. The
worker that begins with it writes it anew. One that has no `execution_start` has not begun; it has
no `lease_until`, since no worker has it, and ends with the job that it names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from jobplane_keys import (
    ASSEMBLY_TTL_SECONDS,
    TERMINAL_STATUSES,
    is_past,
    is_terminal_assembly,
    iso_time,
    new_upload_id,
    parse_iso_time,
    read_item,
    split_owner_key,
    ttl_after,
)
from jobplane_leases._assemblies import write_assembly
from jobplane_leases._errors import LeaseLostError
from jobplane_leases._writes import Row, is_transient

__all__ = ["LEFT_FIELDS", "Waiting", "has_begun", "name_parts"]

LEFT_FIELDS = frozenset(
    (
        "ok",
        "error",
        "webhook",
        "last_job_completed",
        "execution_start",
        "execution_duration",
        "current_step",
        "lease_until",
        "followers",
    )
)
"""What a document may have of the execution before, and a new one must remove."""


def has_begun(document: Mapping[str, Any]) -> bool:
    """Whether a worker has begun with the execution of a document."""
    return "execution_start" in document


def name_parts(name: str) -> dict[str, str]:
    """`name`, `basename` and `ext` (without a dot) of a file."""
    stem, dot, extension = name.rpartition(".")
    if not dot or not stem:
        stem, extension = name, ""
    return {"name": name, "basename": stem, "ext": extension}


@dataclass(frozen=True, slots=True)
class Waiting:
    """The documents of a table. `safe_name` makes a file's name of a client's text.

    `row` is a request's, `payload` that of its action, and `now` in epoch seconds.
    """

    dynamodb: Any
    table: str
    branch: str
    safe_name: Callable[[str], str]
    on_error: Callable[[str, Exception], object]
    """Called with what was not done, and with an error that would be the same the next time."""

    def read(self, assembly_id: str, now: float) -> Row | None:
        """The document of an assembly; None if it is missing or has expired."""
        document = read_item(self.dynamodb, self.table, {"assembly_id": assembly_id})
        return document if document and not is_past(document.get("ttl"), now) else None

    def attributes(self, row: Mapping[str, Any], payload: Mapping[str, Any], now: float) -> Row:
        """What the document has before its work begins, but for its execution."""
        tenant_id, user_id = split_owner_key(row["owner"])
        begins = parse_iso_time(row["run_at"]) if "run_at" in row else now
        return {
            "template_id": payload["template_id"],
            "branch": self.branch,
            "user": {"userId": user_id},
            "user_id": user_id,
            "tenant_id": tenant_id,
            "owner": row["owner"],
            "request_id": row["request_id"],
            "created_at": iso_time(now),
            "updated_at": iso_time(now),
            "message": "Waiting for a worker",
            "uploads": [self._upload(upload) for upload in payload["uploads"]],
            "results": {},
            "bytes_expected": sum(upload["size"] for upload in payload["uploads"]),
            "bytes_received": 0,
            "bytes_usage": 0,
            "progress_pct": 0,
            "steps_completed": 0,
            "warnings": [],
            "ttl": ttl_after(max(now, begins), ASSEMBLY_TTL_SECONDS),
        }

    def add(
        self, row: Mapping[str, Any], payload: Mapping[str, Any], now: float, *, is_new: bool
    ) -> Row:
        """The document of a job, written now unless there is one; {} if it could not be written.

        A new job replaces that of a job that has failed or was cancelled, so that the end of that
        one is not taken for its own.
        """
        known = self.read(row["assembly_id"], now)
        if known is None and row["status"] in TERMINAL_STATUSES:
            return {}
        if known is not None:
            is_failed = bool(known.get("error")) or known.get("ok") == "ASSEMBLY_CANCELED"
            if not (is_new and is_failed and known.get("owner") == row["owner"]):
                return known
        return self._write(row, payload, known, now) or {}

    def first(self, row: Mapping[str, Any], payload: Mapping[str, Any], now: float) -> Row | None:
        """The document of a job that ends before its work began. If there is none, it is written,
        so that `add` in another process leaves none behind that would never end.
        """
        known = self.read(row["assembly_id"], now)
        return self._write(row, payload, None, now) if known is None else known

    def cancel(
        self, row: Mapping[str, Any], payload: Mapping[str, Any], now: float, *, has_webhook: bool
    ) -> Row | None:
        """End the document of a job that no worker has had, before the job itself is ended: a
        worker that comes in between ends the job in the same way.

        Returns the document if it is that of this job, and has ended: its webhook may be pending.
        """
        while (document := self.first(row, payload, now)) is not None:
            mine = document.get("request_id") == row["request_id"]
            if mine and is_terminal_assembly(document):
                return document
            if not mine or has_begun(document):
                return None
            ended: Row = {"ok": "ASSEMBLY_CANCELED", "message": "Cancelled"}
            ended |= {"updated_at": iso_time(now)}
            if has_webhook:
                ended |= {"webhook": {"status": "pending", "attempts": 0}}
            try:
                rev = document["rev"]
                return write_assembly(
                    self.dynamodb, self.table, row["assembly_id"], rev, ended, now
                )
            except LeaseLostError:
                continue
        return None

    def _write(
        self, row: Mapping[str, Any], payload: Mapping[str, Any], known: Row | None, now: float
    ) -> Row | None:
        """The document as it is now: this one, or another process's; None if it has no room."""
        before = known or {}
        document = self.attributes(row, payload, now) | {
            "execution": before.get("execution", 0) + 1
        }
        document["created_at"] = before.get("created_at", document["created_at"])
        try:
            return write_assembly(
                self.dynamodb,
                self.table,
                row["assembly_id"],
                before.get("rev"),
                document,
                now,
                remove=sorted(LEFT_FIELDS),
            )
        except LeaseLostError:
            return self.read(row["assembly_id"], now)
        except (ClientError, ValueError) as error:
            if is_transient(error):
                raise
            # The worker meets it, too, and ends the job with it.
            self.on_error("assembly's document not written", error)
            return None

    def _upload(self, upload: Mapping[str, Any]) -> Row:
        return {
            "id": new_upload_id(),
            **name_parts(self.safe_name(upload["name"])),
            "size": upload["size"],
            "mime": upload["mime"],
            "field": upload.get("field", "file"),
            **({"meta": upload["meta"]} if upload.get("meta") else {}),
            "md5hash": upload["md5hash"],
            "key": upload["key"],
        }
