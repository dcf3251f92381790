"""What a writer learns when it no longer has what it writes to."""


class LeaseLostError(Exception):
    """Another worker has the request or the assembly: write and send nothing more for it."""
