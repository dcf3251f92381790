"""Structured logs, embedded metrics and traces for a Lambda function.

Writes one JSON object per line to standard output. The log keys are those of Powertools for AWS
Lambda, so its dashboards and queries work; metrics use CloudWatch's Embedded Metric Format. The
X-Ray SDK is imported only by the first sampled invocation.
"""

from jobplane_telemetry._telemetry import Telemetry

__all__ = ["Telemetry"]
