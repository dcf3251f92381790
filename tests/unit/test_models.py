"""jobplane_models: what is accepted from outside, and what is not."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from jobplane_models.assemblies import AssemblyWebhook
from jobplane_models.payloads import (
    MAX_FILES,
    CreateUpload,
    GenerateReport,
    ProcessAssembly,
    UploadedFile,
    UploadFile,
)

FILE = {"name": "a.csv", "size": 5, "md5hash": "5D41402ABC4B2A76B9719D911017C592"}


@pytest.mark.parametrize(
    "mime", ["text/csv", "image/svg+xml", "application/vnd.ms-excel", "x-a/b!#$&^_.-1"]
)
def test_media_type_is_accepted(mime: str) -> None:
    """Every character that RFC 6838 allows."""
    assert UploadFile.model_validate(FILE | {"mime": mime}).mime == mime


@pytest.mark.parametrize(
    "mime", ["", "text", "text/", "/csv", "text/csv\r\nX: y", "text/csv\n", "tëxt/csv", "a/b/c"]
)
def test_what_no_header_can_carry_is_refused(mime: str) -> None:
    """The type is signed into a header of the upload."""
    with pytest.raises(ValidationError):
        UploadFile.model_validate(FILE | {"mime": mime})


@pytest.mark.parametrize(
    "changed",
    [{"size": -1}, {"size": "5"}, {"size": True}, {"md5hash": "x"}, {"name": ""}, {"z": 1}],
)
def test_file_is_strict(changed: dict[str, Any]) -> None:
    """No silent conversions, no unknown keys."""
    with pytest.raises(ValidationError):
        UploadFile.model_validate(FILE | changed)
    assert UploadFile.model_validate(FILE).md5hash == "5d41402abc4b2a76b9719d911017c592"


def test_webhook_of_a_stored_document() -> None:
    """A document says what state its notification is in."""
    stored = AssemblyWebhook.model_validate(
        {"status": "retrying", "attempts": 2, "last_response_code": 503}
    )
    assert (stored.status, stored.attempts, stored.delivered) == ("retrying", 2, None)


@pytest.mark.parametrize(
    "answered",
    [
        {"delivered": False, "attempts": 0, "error": "not_configured"},
        {"status": "delivered", "delivered": True, "attempts": 1, "status_code": 200},
    ],
)
def test_webhook_of_a_triggered_answer(answered: dict[str, Any]) -> None:
    """The answer to a trigger says what this delivery came to, with a stored state or without."""
    webhook = AssemblyWebhook.model_validate(answered)
    assert webhook.model_dump(exclude_unset=True) == answered


@pytest.mark.parametrize(
    ("model", "field", "file"),
    [(CreateUpload, "files", FILE), (ProcessAssembly, "uploads", FILE | {"key": "k"})],
)
def test_files_of_a_job_are_counted(model: type[BaseModel], field: str, file: Any) -> None:
    """A thousand, and at least one."""
    job = {"template_id": "t", "fields": {}}
    assert model.model_validate(job | {field: [file] * MAX_FILES})
    for count in (0, MAX_FILES + 1):
        with pytest.raises(ValidationError, match=field):
            model.model_validate(job | {field: [file] * count})


@pytest.mark.parametrize("model", [CreateUpload, ProcessAssembly])
def test_fields_of_a_job_are_counted(model: type[BaseModel]) -> None:
    """A hundred at most."""
    fields = {str(number): number for number in range(101)}
    with pytest.raises(ValidationError) as refused:
        model.model_validate({"template_id": "t", "fields": fields})
    assert ("fields",) in [fault["loc"] for fault in refused.value.errors()]


def test_a_key_is_as_long_as_s3_takes_it() -> None:
    """1,024 characters; a longer one names no object."""
    assert UploadedFile.model_validate(FILE | {"key": "k" * 1024})
    with pytest.raises(ValidationError, match="key"):
        UploadedFile.model_validate(FILE | {"key": "k" * 1025})


@pytest.mark.parametrize(("end", "valid"), [("2027-01-01", True), ("2027-01-02", False)])
def test_a_report_covers_a_year_at_most(end: str, valid: bool) -> None:
    """From a day to the same day of the next year."""
    report = {"start_date": "2026-01-01", "end_date": end}
    if valid:
        assert GenerateReport.model_validate(report)
    else:
        with pytest.raises(ValidationError, match="longer than 365 days"):
            GenerateReport.model_validate(report)
