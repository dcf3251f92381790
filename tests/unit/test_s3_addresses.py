"""Signed links use S3's address of the bucket's region, in every partition."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobplane.tree.repository import Repository
from jobplane_keys import s3_options
from tests.unit.stack import AWS, BUCKET, UNSET, load

REGIONS = ["eu-west-1", "us-east-1", "ap-southeast-5", "eu-south-2", "mx-central-1", "cn-north-1"]
REGIONS += ["us-gov-west-1"]
THERE = {function.name for function in Repository.here().functions()}
SIGNERS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "router, uploads": (
        "router",
        lambda router: router.sign_upload("a/b", 3, "text/plain", "0" * 32)["url"],
    ),
    "router, results": ("router", lambda router: router.sign_download("a/b")),
    "deliver-webhook": ("deliver-webhook", lambda function: function.sign_download("a/b")),
    "processor": ("processor", lambda processor: processor.sign_download("a/b")),
    "status": ("status", lambda status: status.sign_download("a/b")),
}


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A signed link in a region, or at an endpoint."""
    for name in (*UNSET, "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    loaded: list[ModuleType] = []

    def make(signer: str, region: str, endpoint: str | None = None) -> str:
        function, sign = SIGNERS[signer]
        monkeypatch.setenv("AWS_REGION", region)
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
        module = load(function, AWS_DEFAULT_REGION=region)
        loaded.append(module)
        if endpoint:
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        module.s3.cache_clear()
        return sign(module)

    yield make
    for module in loaded:
        module.s3.cache_clear()


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("signer", [name for name, (of, _) in SIGNERS.items() if of in THERE])
def test_a_link_has_the_regional_host(link: Callable[..., str], signer: str, region: str) -> None:
    """A new bucket redirects from the global host, and a signature binds the host."""
    parts = urlsplit(link(signer, region))
    host = f"{BUCKET}.s3.{region}.amazonaws.com{'.cn' * region.startswith('cn-')}"
    assert (parts.scheme, parts.netloc) == ("https", host)
    assert parts.path == "/a/b"


@pytest.mark.parametrize("signer", [name for name, (of, _) in SIGNERS.items() if of in THERE])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_link_to_a_loopback_address_has_the_bucket_in_its_path(
    link: Callable[..., str], signer: str, host: str
) -> None:
    """Not every resolver knows names below localhost."""
    parts = urlsplit(link(signer, "eu-west-1", f"http://{host}:4566"))
    assert (parts.netloc, parts.path) == (f"{host}:4566", f"/{BUCKET}/a/b")


def test_AWS_ENDPOINT_URL_S3_wins_over_AWS_ENDPOINT_URL() -> None:
    """As in botocore."""
    local, vpc = "http://127.0.0.1:4566", "https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com"

    def style(**endpoints: str) -> str:
        return str(s3_options(endpoints)["s3"]["addressing_style"])

    assert style() == "virtual"
    assert style(AWS_ENDPOINT_URL=local) == "path"
    assert style(AWS_ENDPOINT_URL=local, AWS_ENDPOINT_URL_S3=vpc) == "virtual"
    assert style(AWS_ENDPOINT_URL=vpc, AWS_ENDPOINT_URL_S3=local) == "path"
