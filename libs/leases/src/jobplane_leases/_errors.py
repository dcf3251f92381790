"""The error of a worker that has lost its lease."""


class LeaseLostError(Exception):
    """Another worker has the request or the assembly: write and send nothing more for it."""
