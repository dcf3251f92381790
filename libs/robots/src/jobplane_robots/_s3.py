"""A sink that streams into an S3 bucket. The caller passes the client; no AWS SDK is imported."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Buffer
from dataclasses import dataclass
from hashlib import md5
from typing import Any
from zlib import crc32

from jobplane_robots._io import RobotInput, copy_input
from jobplane_robots._names import unique_name

# S3 allows 10,000 parts of at least 5 MiB: with 8 MiB an object may have up to 78 GiB.
PART_BYTES = 8 * 1024 * 1024
# The limit of CopyObject.
MAX_COPY_BYTES = 5 * 1024**3


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of an S3Sink; `size` in bytes, `md5hash` in hex.

    For a forwarded input `md5hash` is the value that its sender gave, or None.
    """

    key: str
    size: int
    mime: str
    meta: dict[str, Any]
    md5hash: str | None


class S3Sink:
    """Stores outputs under `prefix` in a bucket.

    An output of at most one part is stored by PutObject, a larger one by a multipart upload with
    one part in memory. `client` is an S3 client of botocore or boto3. An input whose `handle` is
    its key in the same bucket is forwarded by a copy within S3, up to 5 GiB; any other is read
    again. `taken` is the set of names that are in use under the prefix, also by other sinks; the
    sink adds its own. Needs s3:PutObject, s3:AbortMultipartUpload and s3:DeleteObject on the
    prefix, and s3:GetObject on forwarded inputs. Errors of the client are raised unchanged.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str,
        *,
        taken: set[str] | None = None,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.objects: list[StoredObject] = []
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._taken = set() if taken is None else taken
        self._part_bytes = part_bytes

    def create(self, name: str, *, mime: str, meta: dict[str, Any]) -> _ObjectWriter:
        """Begin an object; added to `objects` when stored; `name-2` … if the name is taken."""
        target = {"Bucket": self._bucket, "Key": self._key(name)}
        return _ObjectWriter(self._client, target, mime, meta, self._part_bytes, self.objects)

    def forward(self, source: RobotInput, *, name: str, meta: dict[str, Any]) -> None:
        """Store the input under a key of this sink, without reading it if S3 can copy it."""
        if not isinstance(source.handle, str) or source.size > MAX_COPY_BYTES:
            copy_input(source, self.create(name, mime=source.mime, meta=meta))
            return
        key = self._key(name)
        self._client.copy_object(
            Bucket=self._bucket,
            Key=key,
            CopySource={"Bucket": self._bucket, "Key": source.handle},
            MetadataDirective="REPLACE",
            ContentType=source.mime,
        )
        self.objects.append(StoredObject(key, source.size, source.mime, meta, source.md5hash))

    def _key(self, name: str) -> str:
        name = unique_name(name, self._taken.__contains__)
        self._taken.add(name)
        return self._prefix + name


class _ObjectWriter:
    """An object that is uploaded while it is written."""

    def __init__(
        self,
        client: Any,
        target: dict[str, str],
        mime: str,
        meta: dict[str, Any],
        part_bytes: int,
        objects: list[StoredObject],
    ) -> None:
        self.meta = meta
        self._client = client
        self._target = target
        self._mime = mime
        self._part_bytes = part_bytes
        self._objects = objects
        self._size = 0
        self._digest = md5(usedforsecurity=False)
        self._buffer = bytearray()
        self._upload: dict[str, str] | None = None
        self._parts: list[dict[str, Any]] = []
        self._stored: StoredObject | None = None
        self._ended = False

    def write(self, data: Buffer, /) -> int:
        data = memoryview(data).cast("B")
        self._size += len(data)
        self._digest.update(data)
        self._buffer += data
        while len(self._buffer) >= self._part_bytes:
            part = bytes(self._buffer[: self._part_bytes])
            del self._buffer[: self._part_bytes]
            self._send(part)
        return len(data)

    def close(self) -> None:
        if self._ended:
            return
        if self._upload is None:
            self._client.put_object(
                **self._target, Body=bytes(self._buffer), ContentType=self._mime
            )
        else:
            if self._buffer:
                self._send(bytes(self._buffer))
            self._client.complete_multipart_upload(
                **self._upload, MultipartUpload={"Parts": self._parts}
            )
            self._upload = None
        self._end()
        digest = self._digest.hexdigest()
        self._stored = StoredObject(self._target["Key"], self._size, self._mime, self.meta, digest)
        self._objects.append(self._stored)

    def abort(self) -> None:
        if self._upload is not None:
            self._client.abort_multipart_upload(**self._upload)
            self._upload = None
        elif self._stored is not None:
            self._client.delete_object(**self._target)
            self._objects.remove(self._stored)
            self._stored = None
        self._end()

    def _end(self) -> None:
        self._buffer = bytearray()
        self._ended = True

    def _send(self, data: bytes) -> None:
        if self._upload is None:
            created = self._client.create_multipart_upload(
                **self._target, ContentType=self._mime, ChecksumAlgorithm="CRC32"
            )
            self._upload = {**self._target, "UploadId": created["UploadId"]}
        # S3 requires the same checksum algorithm for the upload, each part and the completion.
        part = {
            "PartNumber": len(self._parts) + 1,
            "ChecksumCRC32": b64encode(crc32(data).to_bytes(4)).decode(),
        }
        sent = self._client.upload_part(**self._upload, **part, Body=data)
        self._parts.append({**part, "ETag": sent["ETag"]})
