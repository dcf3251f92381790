"""The errors of a worker whose write another worker has forestalled."""


class LeaseLostError(Exception):
    """Another worker has the request or the assembly: write and send nothing more for it."""


class DocumentChangedError(Exception):
    """Another worker has written the assembly's document since it was read: read it again."""
