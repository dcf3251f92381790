"""How links to objects are addressed."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def s3_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of botocore's Config for an S3 client that signs links.

    A link names the address of the bucket's own region. S3's global address answers a redirect
    while a bucket is new, and an error for regions opened since March 2019; a signature is bound
    to its host, and a browser follows no redirect of a preflight. Where the endpoint in the
    environment is a loopback address, the bucket stands in the path, since `bucket.localhost` is
    not a name that every resolver knows.
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
