"""What the rules must know of a pipeline: its places, lifetimes and limits."""

from dataclasses import dataclass

from jobplane_keys.tracking import DEFAULT_STATUS_SHARDS


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Where a pipeline keeps its files, for how long, and when they count as given up."""

    input_bucket: str
    output_bucket: str
    input_prefix: str = "pipeline/input/"
    output_prefix: str = "pipeline/output/"
    input_days: float = 7
    """After so many days the input bucket deletes an object."""
    manifest_days: float = 3
    """After so many days the manifest bucket deletes an object."""
    abandoned_minutes: float = 15
    """After so many minutes a builder's claim, or a completed manifest's file, is given up."""
    max_resets: int = 3
    """So often a file is reset before it is failed."""
    shards: int = DEFAULT_STATUS_SHARDS
    """How many shards a status may be in."""

    @property
    def input_root(self) -> str:
        """The URI under which all input lies."""
        return f"s3://{self.input_bucket}/{self.input_prefix}"

    def outputs_of(self, day: str = "") -> str:
        """The prefix of a date's output; without a date, what all such prefixes begin with."""
        return f"{self.output_prefix}merged-parquet-{day}" + ("/" if day else "")
