"""Structured logs, EMF metrics and X-Ray annotations for Lambda functions, on the standard library."""
