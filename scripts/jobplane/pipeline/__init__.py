"""Generated state of an NDJSON → Parquet pipeline, with faults on request."""
