"""Verification of the JWTs that Jobplane accepts."""
