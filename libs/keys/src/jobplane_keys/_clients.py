"""Options of AWS clients, and the links to objects that they sign."""

import base64
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

# Arguments of botocore's Config. A call that hangs fails after seconds, while there is time to try
# again: botocore waits a minute by default. Attempts are AWS_MAX_ATTEMPTS of AWS_RETRY_MODE.
CLIENT_OPTIONS: Mapping[str, Any] = {"connect_timeout": 2, "read_timeout": 5}

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def s3_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of botocore's Config for an S3 client that signs links.

    A link has the address of the bucket's region. S3's global address answers with a redirect
    while a bucket is new, and with an error for regions opened since March 2019. A signature is
    valid for one host only, and browsers don't follow redirects of a preflight request. If the
    endpoint in `environment` is a loopback address, the bucket is in the path, because not every
    resolver knows `bucket.localhost`.
    """
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    is_loopback = urlsplit(endpoint).hostname in _LOOPBACK
    return {
        "signature_version": "s3v4",
        "s3": {
            "addressing_style": "path" if is_loopback else "virtual",
            "us_east_1_regional_endpoint": "regional",
        },
    }


def link_signer(client: Callable[[], Any], bucket: str, seconds: int) -> Callable[[str], str]:
    """Makes a link from an object's key: its holder may read the object for so many seconds.

    `client` returns the S3 client, and is called for the first link. Signing makes no call.
    """

    def sign(key: str) -> str:
        parameters = {"Bucket": bucket, "Key": key}
        return str(
            client().generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)
        )

    return sign


def upload_signer(
    client: Callable[[], Any], bucket: str, seconds: int
) -> Callable[[str, int, str, str], dict[str, Any]]:
    """Makes a presigned PUT from an object's key, size, media type and md5 in hex.

    It is valid for so many seconds, and only for a file with this size and md5. `client` is as for
    `link_signer`.
    """

    def sign(key: str, size: int, mime: str, md5hash: str) -> dict[str, Any]:
        headers = {
            "Content-MD5": base64.b64encode(bytes.fromhex(md5hash)).decode(),
            "Content-Length": str(size),
            "Content-Type": mime,
        }
        parameters = {
            "Bucket": bucket,
            "Key": key,
            "ContentMD5": headers["Content-MD5"],
            "ContentLength": size,
            "ContentType": mime,
        }
        url = client().generate_presigned_url("put_object", Params=parameters, ExpiresIn=seconds)
        return {"method": "PUT", "url": url, "headers": headers}

    return sign
