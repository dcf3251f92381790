"""jobplane_models: accepted and refused input."""

import copy
import math
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from jobplane_models import payloads
from jobplane_models.assemblies import AssemblyWebhook
from jobplane_models.payloads import CreateUpload, ProcessAssembly, UploadFile

FILE = {"name": "a.csv", "size": 5, "md5hash": "5D41402ABC4B2A76B9719D911017C592"}


@pytest.mark.parametrize(
    "mime", ["text/csv", "image/svg+xml", "application/vnd.ms-excel", "x-a/b!#$&^_.-1"]
)
def test_a_media_type_may_have_every_character_of_rfc_6838(mime: str) -> None:
    assert UploadFile.model_validate(FILE | {"mime": mime}).mime == mime


@pytest.mark.parametrize(
    "mime", ["", "text", "text/", "/csv", "text/csv\r\nX: y", "text/csv\n", "tëxt/csv", "a/b/c"]
)
def test_a_media_type_that_no_header_can_carry_is_refused(mime: str) -> None:
    """It is signed into a header of the upload."""
    with pytest.raises(ValidationError):
        UploadFile.model_validate(FILE | {"mime": mime})


@pytest.mark.parametrize(
    "changed",
    [{"size": -1}, {"size": "5"}, {"size": True}, {"md5hash": "x"}, {"name": ""}, {"z": 1}],
)
def test_a_file_has_no_type_conversions_and_no_unknown_keys(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        UploadFile.model_validate(FILE | changed)
    assert UploadFile.model_validate(FILE).md5hash == "5d41402abc4b2a76b9719d911017c592"


def test_a_document_has_the_state_of_its_webhook() -> None:
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
def test_the_answer_to_a_trigger_has_the_outcome_of_this_delivery(answered: dict[str, Any]) -> None:
    webhook = AssemblyWebhook.model_validate(answered)
    assert webhook.model_dump(exclude_unset=True) == answered


@pytest.mark.parametrize(
    ("model", "field", "file"),
    [(CreateUpload, "files", FILE), (ProcessAssembly, "uploads", FILE | {"key": "k"})],
)
def test_a_job_has_1_to_1000_files(model: type[BaseModel], field: str, file: Any) -> None:
    job = {"template_id": "t", "fields": {}}
    assert model.model_validate(job | {field: [file] * payloads.MAX_FILES})
    for count in (0, payloads.MAX_FILES + 1):
        with pytest.raises(ValidationError, match=field):
            model.model_validate(job | {field: [file] * count})


@pytest.mark.parametrize("model", [CreateUpload, ProcessAssembly])
def test_a_job_has_at_most_100_fields(model: type[BaseModel]) -> None:
    fields = {str(number): number for number in range(101)}
    with pytest.raises(ValidationError) as refused:
        model.model_validate({"template_id": "t", "fields": fields})
    assert ("fields",) in [fault["loc"] for fault in refused.value.errors()]


def test_a_key_has_at_most_1024_characters() -> None:
    """The limit of S3."""
    assert payloads.UploadedFile.model_validate(FILE | {"key": "k" * 1024})
    with pytest.raises(ValidationError, match="key"):
        payloads.UploadedFile.model_validate(FILE | {"key": "k" * 1025})


@pytest.mark.parametrize(("end", "valid"), [("2027-01-01", True), ("2027-01-02", False)])
def test_a_report_covers_a_year_at_most(end: str, valid: bool) -> None:
    report = {"start_date": "2026-01-01", "end_date": end}
    if valid:
        assert payloads.GenerateReport.model_validate(report)
    else:
        with pytest.raises(ValidationError, match="longer than 365 days"):
            payloads.GenerateReport.model_validate(report)


NESTED: dict[str, Any] = {"a": []}
for _ in range(15):
    NESTED = {"a": [NESTED]}


@pytest.mark.parametrize(
    ("model", "payload", "field", "most"),
    [
        (ProcessAssembly, {"uploads": [FILE | {"key": "k"}]}, "uploads.0.size", 5 * 1024**4),
        (CreateUpload, {"files": [FILE]}, "files.0.size", 5 * 1024**4),
        (payloads.Subscribe, {"request_id": "r"}, "since_seq", 2**53),
        (payloads.Delay, {}, "seconds", 60),
        (payloads.Delay, {}, "steps", 1000),
        (payloads.Delay, {}, "fail_at", 1000),
        (payloads.Count, {}, "to", 100_000),
        (payloads.Subscribe, {"request_id": "r"}, "since_event", 2**53),
    ],
)
def test_a_number_of_a_payload_is_a_number_within_its_bounds(
    model: type[BaseModel], payload: dict[str, Any], field: str, most: int
) -> None:
    """JSON has numbers that no row can hold."""
    if "template_id" in model.model_fields:
        payload = payload | {"template_id": "t"}

    def given(value: Any) -> dict[str, Any]:
        changed: dict[str, Any] = copy.deepcopy(payload)
        place: Any = changed
        *path, last = field.split(".")
        for name in path:
            place = place[int(name) if name.isdigit() else name]
        place[last] = value
        return changed

    model.model_validate(given(most))
    for wrong in (most + 1, -1, 10**400, 1e308, math.inf, math.nan, True, "1", [1]):
        with pytest.raises(ValidationError) as caught:
            model.model_validate(given(wrong))
        assert ".".join(map(str, caught.value.errors()[0]["loc"])) == field


@pytest.mark.parametrize(
    ("fields", "valid"), [(NESTED, True), ({"a": NESTED}, True), ({"a": {"b": NESTED}}, False)]
)
def test_fields_are_nested_32_levels_deep_at_most(fields: dict[str, Any], valid: bool) -> None:
    payload = {"template_id": "t", "files": [FILE], "fields": fields}
    if valid:
        assert CreateUpload.model_validate(payload).model_dump(mode="json")["fields"] == fields
        return
    with pytest.raises(ValidationError, match="deeper than 32 levels"):
        CreateUpload.model_validate(payload)


@pytest.mark.parametrize("day", ["1999-12-31", "3000-01-01", "9999-12-31", "0001-01-01"])
def test_a_report_is_of_days_that_have_a_next_one(day: str) -> None:
    with pytest.raises(ValidationError, match="from 2000-01-01 to 2999-12-31"):
        payloads.GenerateReport.model_validate({"start_date": day, "end_date": day})
