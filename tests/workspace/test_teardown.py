"""The resources of a stage on AWS outside of its stack, for `jobplane down`."""

from unittest.mock import Mock

import boto3
from moto import mock_aws

from jobplane.deploy import teardown
from jobplane.tree.names import Names


@mock_aws
def test_a_shared_secret_is_nobodys_to_remove() -> None:
    """Parameters below the stage's own path go; what lies beside the one that `jwtSecret` names
    stays, as do those of a stage whose name begins the same.
    """
    ssm = boto3.client("ssm", region_name="eu-west-1")
    own = ["/jobplane/dev/jwt-secret", "/jobplane/dev/webhooks/url"]
    for name in (*own, "/shared/signing", "/shared/database", "/jobplane/dev-2/jwt-secret"):
        ssm.put_parameter(Name=name, Value="x", Type="SecureString")
    stage = Mock(names=Names("jobplane", "dev"))
    stage.client = {"ssm": ssm}.__getitem__
    assert sorted(teardown._parameters(stage)) == own
