"""Where a stage keeps the files of its pipeline, and for how long."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import click

from jobplane.stage.stages import Stage
from jobplane_keys import tracking

FUNCTION = "state-manager"


@dataclass(frozen=True)
class Layout:
    tracking_table: str = "files"
    metrics_table: str = "metrics"
    input_bucket: str = "input"
    manifest_bucket: str = "manifests"
    output_bucket: str = "output"
    quarantine_bucket: str = "quarantine"
    input_prefix: str = "pipeline/input/"
    output_prefix: str = "pipeline/output/"
    quarantine_prefix: str = "quarantine/"
    input_days: int = 7
    manifest_days: int = 3
    shards: int = tracking.DEFAULT_STATUS_SHARDS

    @classmethod
    def of(cls, stage: Stage) -> "Layout":
        client = stage.client("lambda")
        name = stage.names.of(FUNCTION)
        try:
            found = client.get_function_configuration(FunctionName=name)
        except client.exceptions.ResourceNotFoundException:
            raise click.ClickException(f"stage {stage.name!r} has no {FUNCTION}") from None
        return cls.configured(found["Environment"]["Variables"])

    @classmethod
    def configured(cls, environment: Mapping[str, str]) -> "Layout":
        given: dict[str, Any] = {}
        for field in fields(cls):
            value = environment.get(_VARIABLES.get(field.name, field.name.upper()))
            if value is not None:
                kind: Any = type(field.default)
                given[field.name] = kind(value)
        return cls(**given)

    @property
    def buckets(self) -> tuple[str, ...]:
        return (self.input_bucket, self.manifest_bucket, self.output_bucket, self.quarantine_bucket)


_VARIABLES = {
    "input_days": "INPUT_LIFECYCLE_DAYS",
    "manifest_days": "MANIFEST_LIFECYCLE_DAYS",
    "shards": "NUM_STATUS_SHARDS",
}
