"""The buckets, lifetimes and limits of a pipeline."""

from dataclasses import dataclass

from jobplane_keys.tracking import DEFAULT_STATUS_SHARDS


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Where a pipeline keeps its files, for how long, and when they count as abandoned."""

    input_bucket: str
    output_bucket: str
    input_prefix: str = "pipeline/input/"
    output_prefix: str = "pipeline/output/"
    input_days: float = 7
    """After so many days the input bucket deletes an object."""
    manifest_days: float = 3
    """After so many days the manifest bucket deletes an object."""
    abandoned_minutes: float = 15
    """After so many minutes a claim is abandoned, and the file of a completed manifest lags."""
    max_resets: int = 3
    """A file that was reset so often fails at the next reset."""
    shards: int = DEFAULT_STATUS_SHARDS
    """The number of shards of a status."""

    @property
    def input_root(self) -> str:
        """The URI of all input."""
        return f"s3://{self.input_bucket}/{self.input_prefix}"

    def outputs_of(self, day: str = "") -> str:
        """The prefix of a date's output; without a date, the common begin of all these prefixes."""
        return f"{self.output_prefix}merged-parquet-{day}" + ("/" if day else "")
