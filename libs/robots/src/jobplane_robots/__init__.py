"""Streaming file-processing steps: hash, compress, validate, convert, split, resize."""
