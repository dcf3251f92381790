"""How many examples a property is tried with: all with --everything, a fifth in the short set."""

from hypothesis import HealthCheck, settings

ALL = settings().max_examples
settings.register_profile("short", max_examples=ALL // 5)


def try_fewer() -> None:
    settings.load_profile("short")


def examples(most: int) -> int:
    """`most`, for a property that needs another number than the rest, or a fifth of it."""
    return most * settings().max_examples // ALL


def with_fixtures(most: int) -> settings:
    """Settings of a property whose fixtures stay the same for all of its examples."""
    kept = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=most, deadline=None, suppress_health_check=kept)
