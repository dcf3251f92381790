"""Strictness shared by every model."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from jobplane_keys import REQUEST_ID_PATTERN, InvalidMd5Error, normalise_md5


class Strict(BaseModel):
    """Input from outside: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Open(BaseModel):
    """Output of ours: fields that a later version adds are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _md5(text: str) -> str:
    try:
        return normalise_md5(text)
    except InvalidMd5Error as error:
        raise ValueError(str(error)) from error


Md5 = Annotated[str, AfterValidator(_md5)]
RequestId = Annotated[str, StringConstraints(pattern=f"^{REQUEST_ID_PATTERN}$")]
TemplateId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
# ASCII: the type travels in a signed header.
MimeType = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+$", max_length=127)
]
Bytes = Annotated[int, Field(ge=0)]
