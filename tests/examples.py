"""How many examples a property is tried with: all with --everything, a fifth in the short set."""

from hypothesis import settings

ALL = settings().max_examples
settings.register_profile("short", max_examples=ALL // 5)


def try_fewer() -> None:
    settings.load_profile("short")


def examples(most: int) -> int:
    """`most`, for a property that needs another number than the rest, or a fifth of it."""
    return most * settings().max_examples // ALL
