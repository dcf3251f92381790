"""Ships inside an artifact's botocore: explains that an operation was cut, and the remedy."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class OperationCutError(AttributeError):
    """The operation was cut from the artifact, because no IAM statement grants it."""


def explain_cut_operation(event_name: str, client: Any, **_: Any) -> None:
    """Answer botocore's `getattr` event, which it sends for a method that a client lacks."""
    import json
    from pathlib import Path

    from botocore import xform_name

    cut = json.loads((Path(__file__).parent / "data" / "cut.json").read_text())
    method = event_name.rpartition(".")[2]
    service = client.meta.service_model.service_name
    for operation, actions in cut["services"].get(service, {}).items():
        if xform_name(operation) == method:
            raise OperationCutError(
                f"{operation} was cut from this artifact, because no IAM statement grants it: "
                f"add {' and '.join(actions)} to {cut['statements_in']} and build again"
            )
