"""The state that a real NDJSON → Parquet pipeline leaves behind, made up by a seed."""
