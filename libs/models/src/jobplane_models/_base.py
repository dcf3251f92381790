"""Base classes of the models: how strict they are."""

from enum import Enum
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from jobplane_keys import (
    ASSEMBLY_ID_PATTERN,
    REQUEST_ID_PATTERN,
    WORKSPACE_ID_PATTERN,
    InvalidMd5Error,
    normalise_md5,
)


class Strict(BaseModel):
    """Input from clients: unknown keys are refused, and values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Input(BaseModel):
    """Input of a function: unknown keys are ignored, and values are not converted."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Open(BaseModel):
    """Output of the service: fields that a later version adds are ignored.

    A default is for readers of older outputs. The JSON Schema describes what is sent: constants
    and fields marked ALWAYS are required. A field with the default None is left out when it is
    None, unless it is marked OR_NULL: then it may be null.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        described = handler(core_schema)
        inner = handler.resolve_ref_schema(described)
        for name, field in cls.model_fields.items():
            key = field.alias or name
            if ALWAYS in field.metadata or get_args(field.annotation) == (field.default,):
                inner["required"] = [*inner.get("required", []), key]
            if field.default is None and OR_NULL not in field.metadata:
                inner["properties"][key] = _without_null(inner["properties"][key])
        return described


class Presence(Enum):
    """How a field with a default appears in what is sent."""

    ALWAYS = "always"
    OR_NULL = "or-null"


ALWAYS = Presence.ALWAYS
OR_NULL = Presence.OR_NULL

CAMEL = ConfigDict(alias_generator=to_camel)
"""Keys in camelCase, as Step Functions and the workers write them."""


def _without_null(described: dict[str, Any]) -> dict[str, Any]:
    kept = [choice for choice in described.get("anyOf", ()) if choice != {"type": "null"}]
    if not kept:
        return described
    rest = {name: value for name, value in described.items() if name not in ("anyOf", "default")}
    return {**kept[0], **rest} if len(kept) == 1 else {"anyOf": kept, **rest}


def _md5(text: str) -> str:
    try:
        return normalise_md5(text)
    except InvalidMd5Error as error:
        raise ValueError(str(error)) from error


def _whole(value: Any) -> Any:
    # JSON has one type of number, and Step Functions may write 60 as 60.0.
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The largest object of S3.
MAX_OBJECT_BYTES = 5 * 1024**4

# Spaces are allowed anywhere.
_HEX_OR_BASE64 = r"^\s*(([0-9A-Fa-f]\s*){32}|([A-Za-z0-9+/]\s*){22}=\s*=\s*)$"

WHOLE = BeforeValidator(_whole)
Md5 = Annotated[str, AfterValidator(_md5), Field(json_schema_extra={"pattern": _HEX_OR_BASE64})]
RequestId = Annotated[str, StringConstraints(pattern=f"^{REQUEST_ID_PATTERN}$")]
TemplateId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
# ASCII, because the type is sent in a signed header.
MimeType = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+$", max_length=127)
]
Bytes = Annotated[int, Field(ge=0, le=MAX_OBJECT_BYTES), WHOLE]
WorkspaceId = Annotated[str, StringConstraints(pattern=f"^{WORKSPACE_ID_PATTERN}$")]
WorkspaceKey = Annotated[
    str, StringConstraints(pattern=f"^{WORKSPACE_ID_PATTERN}#{WORKSPACE_ID_PATTERN}$")
]
AssemblyId = Annotated[str, StringConstraints(pattern=f"^{ASSEMBLY_ID_PATTERN}$")]
IsoTime = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
