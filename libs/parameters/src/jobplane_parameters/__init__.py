"""Values of SSM parameters, kept for a while and read again.

Standard library only: the SSM client is botocore's or boto3's, and the caller makes it.
"""

from jobplane_parameters._parameter import (
    RENEWAL_SECONDS,
    Parameter,
    ParameterError,
    split_secrets,
)

__all__ = ["RENEWAL_SECONDS", "Parameter", "ParameterError", "split_secrets"]
