"""The sink for S3: single and multipart uploads, copies, aborts."""

import base64
import io
import random
import re
from collections.abc import Iterator
from hashlib import md5
from typing import Any
from zlib import crc32

import boto3
import pytest
from moto import mock_aws

from jobplane_robots import RobotInput, S3Sink, get_robot

BUCKET = "bucket"
PART_BYTES = 5 * 1024 * 1024
LARGE = random.Random(7).randbytes(11 * 1024 * 1024)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client, and the bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture
def sink(s3: Any) -> S3Sink:
    return S3Sink(s3, BUCKET, "out/", part_bytes=PART_BYTES)


def source(data: bytes, name: str = "a.bin", **details: Any) -> RobotInput:
    return RobotInput(name, lambda: io.BytesIO(data), len(data), **details)


def keys(s3: Any) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def uploads(s3: Any) -> list[Any]:
    return list(s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))


def test_a_small_output_is_one_object(s3: Any, sink: S3Sink) -> None:
    writer = sink.create("a.txt", mime="text/plain", meta={"pages": 1})
    writer.write(b"hel")
    writer.write(memoryview(b"lo"))
    assert keys(s3) == []
    writer.close()
    found = s3.get_object(Bucket=BUCKET, Key="out/a.txt")
    assert (found["Body"].read(), found["ContentType"]) == (b"hello", "text/plain")
    (stored,) = sink.objects
    assert (stored.key, stored.size, stored.mime) == ("out/a.txt", 5, "text/plain")
    assert stored.md5hash == md5(b"hello", usedforsecurity=False).hexdigest()
    assert stored.meta == {"pages": 1}


@pytest.mark.parametrize(
    ("size", "parts"), [(PART_BYTES - 1, 0), (PART_BYTES, 1), (2 * PART_BYTES, 2), (len(LARGE), 3)]
)
def test_a_large_output_has_equal_parts(s3: Any, sink: S3Sink, size: int, parts: int) -> None:
    writer = sink.create("a.bin", mime="application/octet-stream", meta={})
    for start in range(0, size, 1_000_003):
        writer.write(LARGE[start : min(size, start + 1_000_003)])
    writer.close()
    assert s3.get_object(Bucket=BUCKET, Key="out/a.bin")["Body"].read() == LARGE[:size]
    etag = s3.head_object(Bucket=BUCKET, Key="out/a.bin")["ETag"].strip('"')
    assert etag.partition("-")[2] == (str(parts) if parts else "")
    assert sink.objects[0].size == size


def test_an_empty_output_is_an_object(s3: Any, sink: S3Sink) -> None:
    sink.create("a.txt", mime="text/plain", meta={}).close()
    assert s3.head_object(Bucket=BUCKET, Key="out/a.txt")["ContentLength"] == 0


@pytest.mark.parametrize("size", [5, len(LARGE)], ids=["whole", "parts"])
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_an_aborted_output_leaves_nothing(s3: Any, sink: S3Sink, size: int, closed: bool) -> None:
    writer = sink.create("a.bin", mime="text/plain", meta={})
    writer.write(LARGE[:size])
    if closed:
        writer.close()
        writer.close()
    writer.abort()
    writer.abort()
    assert (keys(s3), uploads(s3), sink.objects) == ([], [], [])


def test_sinks_that_share_names_use_each_once(s3: Any) -> None:
    taken: set[str] = set()
    for _ in range(2):
        sink = S3Sink(s3, BUCKET, "out/", taken=taken)
        sink.create("a.txt", mime="text/plain", meta={}).close()
    assert keys(s3) == ["out/a-2.txt", "out/a.txt"]
    assert taken == {"a.txt", "a-2.txt"}


def test_a_forwarded_object_is_copied_within_s3(s3: Any, sink: S3Sink) -> None:
    """Its bytes are not read; its type is the input's."""
    s3.put_object(Bucket=BUCKET, Key="in/a.csv", Body=b"a,b")
    given = RobotInput(
        "a.csv", lambda: pytest.fail("it was read"), 3, "text/csv", handle="in/a.csv"
    )
    sink.forward(given, name="a.csv", meta={"n": 1})
    found = s3.get_object(Bucket=BUCKET, Key="out/a.csv")
    assert (found["Body"].read(), found["ContentType"]) == (b"a,b", "text/csv")
    assert [(o.key, o.size, o.meta) for o in sink.objects] == [("out/a.csv", 3, {"n": 1})]


def test_an_input_that_s3_can_not_copy_is_read_and_uploaded(s3: Any, sink: S3Sink) -> None:
    sink.forward(source(b"here"), name="a.bin", meta={})
    huge = RobotInput("b.bin", lambda: io.BytesIO(b"b"), 5 * 1024**3 + 1, handle="in/b.bin")
    sink.forward(huge, name="b.bin", meta={})
    assert s3.get_object(Bucket=BUCKET, Key="out/a.bin")["Body"].read() == b"here"
    assert s3.get_object(Bucket=BUCKET, Key="out/b.bin")["Body"].read() == b"b"


def test_a_failed_forward_leaves_no_parts(s3: Any, sink: S3Sink) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size) or (_ for _ in ()).throw(OSError("the disk is gone"))

    given = RobotInput("a.bin", lambda: Broken(LARGE), len(LARGE))
    with pytest.raises(OSError, match="gone"):
        sink.forward(given, name="a.bin", meta={})
    assert (keys(s3), uploads(s3), sink.objects) == ([], [], [])


def test_a_robots_outputs_become_objects_with_safe_names(s3: Any, sink: S3Sink) -> None:
    options = {"lines": 1}
    get_robot("/document/split").run(source(b"a\nb\n", "../t.txt"), options, sink)
    assert keys(s3) == ["out/t-part-0001.txt", "out/t-part-0002.txt"]


def test_every_part_has_the_checksum_of_its_multipart_upload(s3: Any, sink: S3Sink) -> None:
    """S3 refuses others, and a completion without it."""
    sent: dict[str, list[Any]] = {}

    def keep(params: dict[str, Any], model: Any, **_: Any) -> None:
        sent.setdefault(model.name, []).append(params)

    s3.meta.events.register("before-call.s3", keep)
    writer = sink.create("a.bin", mime="text/plain", meta={})
    writer.write(LARGE)
    writer.close()

    (created,), parts = sent["CreateMultipartUpload"], sent["UploadPart"]
    assert created["headers"]["x-amz-checksum-algorithm"] == "CRC32"
    pieces = [LARGE[at : at + PART_BYTES] for at in range(0, len(LARGE), PART_BYTES)]
    checksums = [base64.b64encode(crc32(piece).to_bytes(4)).decode() for piece in pieces]
    assert [part["headers"]["x-amz-checksum-crc32"] for part in parts] == checksums
    assert not any("x-amz-trailer" in part["headers"] for part in parts)
    (completed,) = sent["CompleteMultipartUpload"]
    told = re.findall(rb"<ChecksumCRC32>(.*?)</ChecksumCRC32>", completed["body"])
    assert [checksum.decode() for checksum in told] == checksums
