"""Values of SSM parameters, cached and read again when they are old.

Needs only the standard library; the caller passes an SSM client of botocore or boto3.
"""

from jobplane_parameters._parameter import (
    RENEWAL_SECONDS,
    Cached,
    Parameter,
    ParameterError,
    split_secrets,
)

__all__ = ["RENEWAL_SECONDS", "Cached", "Parameter", "ParameterError", "split_secrets"]
