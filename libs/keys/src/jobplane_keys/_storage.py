"""The addresses of links to objects."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

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
