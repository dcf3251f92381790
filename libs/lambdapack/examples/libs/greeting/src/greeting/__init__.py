"""A lib of the workspace."""


def greeting(name: str) -> str:
    """The text of a greeting."""
    return f"Hello, {name}!"
