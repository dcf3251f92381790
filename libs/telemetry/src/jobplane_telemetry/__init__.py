"""Structured logs, embedded metrics and traces for a Lambda function.

One JSON object a line on standard output. Log keys are those of Powertools for AWS Lambda, so its
dashboards and queries work; metrics use CloudWatch's Embedded Metric Format. The X-Ray SDK is
imported by the first sampled invocation and by no other.
"""

from jobplane_telemetry._telemetry import Telemetry

__all__ = ["Telemetry"]
