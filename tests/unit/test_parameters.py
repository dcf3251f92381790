"""jobplane_parameters: when an SSM parameter is read, and how failures are handled."""

from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from moto import mock_aws

from jobplane_parameters import RENEWAL_SECONDS, Parameter, ParameterError, split_secrets
from tests.unit.clock import Clock

NAME = "/jobplane/test/jwt-secret"
MAX_AGE = 300.0
DENIED = "User: arn:aws:sts::1:assumed-role/x is not authorized to perform: ssm:GetParameter"


class Ssm:
    """Returns a text or raises; counts its calls."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer = answer
        self.reads = 0

    def get_parameter(self, *, Name: str, WithDecryption: bool) -> dict[str, Any]:  # noqa: N803
        assert (Name, WithDecryption) == (NAME, True)
        self.reads += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"Parameter": {"Value": self.answer}}


def refused(code: str, text: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": text}}, "GetParameter")


def whole(text: str | None) -> str:
    if text is None:
        raise ValueError("does not exist: create it")
    if not text.strip():
        raise ValueError("is empty: put a value")
    return text


class Reader:
    """A parameter with its client, its clock and its reports."""

    def __init__(
        self,
        answer: str | Exception,
        chance: float = 0.0,
        parse: Callable[[str | None], Any] = whole,
    ) -> None:
        self.ssm, self.clock = Ssm(answer), Clock(1_000_000.0)
        self.reports: list[str] = []
        self.parameter: Parameter[Any] = Parameter(
            self.ssm, NAME, parse, max_age=MAX_AGE, report=self.reports.append,
            clock=self.clock, chance=lambda: chance,
        )  # fmt: skip

    def after(self, seconds: float) -> "Reader":
        self.clock.now += seconds
        return self


def test_a_value_is_read_again_after_its_lifetime() -> None:
    reader = Reader("first")
    assert [reader.parameter.value() for _ in range(3)] == ["first"] * 3
    reader.ssm.answer = "second"
    assert reader.after(MAX_AGE - 1).parameter.value() == "first"
    assert reader.ssm.reads == 1
    assert reader.after(1).parameter.value() == "second"
    assert (reader.ssm.reads, reader.reports) == (2, [])


def test_a_values_lifetime_is_shortened_at_random() -> None:
    """By up to a quarter, so that workers that start together do not read together."""
    late, early = Reader("x", chance=0.0), Reader("x", chance=1.0)
    for reader in (late, early):
        reader.parameter.value()
        reader.after(MAX_AGE * 0.75).parameter.value()
    assert (late.ssm.reads, early.ssm.reads) == (1, 2)


def test_a_renewal_reads_at_most_once_a_minute() -> None:
    reader = Reader("old")
    assert reader.parameter.renewed() == "old"
    reader.ssm.answer = "new"
    for _ in range(1000):
        assert reader.parameter.renewed() == "old"
    assert reader.ssm.reads == 1
    assert reader.after(RENEWAL_SECONDS).parameter.renewed() == "new"
    for _ in range(1000):
        assert reader.parameter.renewed() == reader.parameter.value() == "new"
    assert reader.ssm.reads == 2


@pytest.mark.parametrize(
    "answer",
    [
        refused("ThrottlingException"),
        refused("AccessDeniedException"),
        refused("ParameterNotFound"),
        refused("InternalServerError"),
        ConnectTimeoutError(endpoint_url="https://ssm"),
        " ",
    ],
)
def test_a_failed_read_keeps_the_last_good_value(answer: str | Exception) -> None:
    reader = Reader("good")
    reader.parameter.value()
    reader.ssm.answer = answer
    assert reader.after(MAX_AGE).parameter.value() == "good"
    assert reader.after(10 * MAX_AGE).parameter.renewed() == "good"
    assert len(reader.reports) == 2
    assert all(text.endswith("; the last value is kept") for text in reader.reports)
    reader.ssm.answer = "better"
    assert reader.after(RENEWAL_SECONDS).parameter.value() == "better"


def test_the_wait_after_each_failure_grows_to_a_minute() -> None:
    """One read at once, then after 1, 3, 7 … seconds."""
    reader = Reader(refused("ThrottlingException"))
    began, times = reader.clock.now, []
    for _ in range(4 * 600):
        with pytest.raises(ParameterError):
            reader.parameter.renewed()
        if reader.ssm.reads > len(times):
            times.append(reader.clock.now - began)
        reader.after(0.25)
    waits = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert waits[:7] == [0.25, 1, 3, 7, 15, 31, 60]
    assert set(waits[7:]) == {60}


def test_a_parameter_created_later_is_found() -> None:
    reader = Reader(refused("ParameterNotFound"))
    for _ in range(3):
        with pytest.raises(ParameterError, match="does not exist: create it"):
            reader.after(RENEWAL_SECONDS).parameter.value()
    reader.ssm.answer = "there"
    assert reader.after(RENEWAL_SECONDS).parameter.value() == "there"


def test_a_parser_may_accept_a_missing_parameter() -> None:
    reader = Reader(refused("ParameterNotFound"), parse=lambda text: text)
    assert reader.parameter.value() is reader.parameter.value() is None
    assert (reader.ssm.reads, reader.reports) == (1, [])


@pytest.mark.parametrize("shift", [-86400.0, 90 * 86400.0])
def test_a_clock_that_jumps_causes_a_read(shift: float) -> None:
    """After a restored snapshot, or a clock that was set back."""
    reader = Reader("old")
    reader.parameter.value()
    reader.ssm.answer = "new"
    assert reader.after(shift).parameter.value() == "new"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (refused("AccessDeniedException", DENIED), ["allow", "ssm:GetParameter", "kms:Decrypt"]),
        (refused("ThrottlingException"), ["40 reads a second", "tried again"]),
        (refused("InvalidKeyId", "the key is disabled"), ["InvalidKeyId", "the key is disabled"]),
        (ConnectTimeoutError(endpoint_url="https://ssm"), ["ConnectTimeoutError"]),
        (refused("ParameterNotFound"), ["does not exist"]),
        ("", ["is empty"]),
    ],
)
def test_a_failure_names_the_parameter_and_the_remedy(answer: Any, told: list[str]) -> None:
    """In the report and in the error, whose cause is the client's error."""
    reader = Reader(answer)
    with pytest.raises(ParameterError) as raised:
        reader.parameter.value()
    for text in (str(raised.value), *reader.reports):
        assert text.startswith(f"SSM parameter {NAME} ")
        assert not [part for part in told if part not in text]
    assert isinstance(raised.value.__cause__, ParameterError)
    if isinstance(answer, ClientError) and "NotFound" not in str(answer):
        assert raised.value.__cause__.__cause__ is answer


def test_botocores_answers_and_errors_are_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        client = boto3.client("ssm", region_name="eu-west-1")
        parameter = Parameter(client, NAME, whole, max_age=MAX_AGE)
        with pytest.raises(ParameterError, match="does not exist"):
            parameter.value()
        client.put_parameter(Name=NAME, Value="v", Type="SecureString")
        assert parameter.value() == "v"


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("one", ("one",)),
        ("new old", ("new", "old")),
        ("new,old", ("new", "old")),
        (" new ,\n\told\r\n", ("new", "old")),
        (" , ", ()),
        ("v1,whsec_a", ("whsec_a",)),
        ("v1,whsec_a,v1,whsec_b\nv1,other", ("whsec_a", "whsec_b", "v1", "other")),
        ("", ()),
    ],
)
def test_secrets_are_separated_by_spaces_and_commas(text: str, secrets: tuple[str, ...]) -> None:
    assert split_secrets(text) == secrets
