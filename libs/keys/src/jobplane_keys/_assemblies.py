"""Assembly ids, object prefixes, and the public fields of an assembly."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeGuard, get_args

from jobplane_keys._json import json_object, json_objects

ASSEMBLY_ID_PATTERN = r"[A-Za-z0-9_-]{1,128}"

type AssemblyIdForm = Literal["canonical", "concat", "colon"]
ASSEMBLY_ID_FORMS: tuple[str, ...] = get_args(AssemblyIdForm.__value__)

# The fields that clients may read; all other fields of a row are internal.
PUBLIC_ASSEMBLY_FIELDS = (
    "assembly_id",
    "ok",
    "error",
    "message",
    "uploads",
    "results",
    "bytes_expected",
    "bytes_received",
    "bytes_usage",
    "execution_duration",
    "execution_start",
    "last_job_completed",
    "template_id",
    "branch",
    "user",
    "created_at",
    "updated_at",
    "progress_pct",
    "steps_total",
    "steps_completed",
    "current_step",
    "warnings",
    "webhook",
    "request_id",
    "execution",
)

# Where an assembly's document and a report have the keys of objects.
LINK_PATHS = ("results/*/*/key", "url_key")
_HEX_MD5 = re.compile(r"[0-9a-f]{32}")
_ASSEMBLY_ID = re.compile(ASSEMBLY_ID_PATTERN)


class InvalidMd5Error(ValueError):
    """The text is neither 32 hex digits nor a base64 Content-MD5."""

    def __init__(self, text: str) -> None:
        super().__init__("not an MD5: expected 32 hex digits or a base64 Content-MD5")
        self.text = text


def normalise_md5(text: str) -> str:
    """The 32 lower-case hex digits of an MD5 in hex (any case, with spaces) or as Content-MD5.

    Raises InvalidMd5Error for anything else.
    """
    compact = "".join(text.split())
    if _HEX_MD5.fullmatch(compact.lower()):
        return compact.lower()
    try:
        digest = base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidMd5Error(text) from None
    if len(digest) != 16:
        raise InvalidMd5Error(text)
    return digest.hex()


def assembly_id(
    md5s: Sequence[str],
    template_id: str,
    user_id: str,
    *,
    form: AssemblyIdForm = "canonical",
    branch: str = "main",
    fields: Mapping[str, Any] | None = None,
) -> str:
    """The id of an assembly: 64 lower-case hex digits of a SHA-256.

    The same files (in any order), template and user give the same id. The form `canonical` is the
    hash of a JSON array, which also contains branch and fields; `concat` and `colon` are two older
    forms, kept for callers that compute ids themselves. Raises InvalidMd5Error for a malformed
    md5, and ValueError for an unknown form.
    """
    digests = sorted(normalise_md5(md5) for md5 in md5s)
    if form == "concat":
        text = "".join(digests) + template_id + user_id
    elif form == "colon":
        text = f"{','.join(digests)}:{template_id}:{user_id}"
    elif form == "canonical":
        text = _canonical_json(
            ["jobplane:1", branch, template_id, user_id, digests, _fields_digest(fields or {})]
        )
    else:
        raise ValueError(
            f"unknown assembly id form {form!r}; known: {', '.join(ASSEMBLY_ID_FORMS)}"
        )
    return hashlib.sha256(text.encode()).hexdigest()


def is_assembly_id(value: object) -> TypeGuard[str]:
    """Whether the value has the form of an assembly's id."""
    return isinstance(value, str) and _ASSEMBLY_ID.fullmatch(value) is not None


def is_terminal_assembly(document: Mapping[str, Any]) -> bool:
    """Whether the job has ended: completed, cancelled or failed."""
    return bool(document.get("error")) or document.get("ok") in {
        "ASSEMBLY_COMPLETED",
        "ASSEMBLY_CANCELED",
    }


def is_executing_assembly(document: Mapping[str, Any]) -> bool:
    """Whether a job that has not ended is running, not waiting for its files."""
    return bool(document.get("execution_start") or document.get("current_step"))


def is_past(value: Any, now: float) -> bool:
    """Whether the value is a time in epoch seconds that is not after `now`.

    DynamoDB deletes expired rows late: treat a row whose `ttl` is past as deleted.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= now


def assembly_document(
    item: Mapping[str, Any], now: float, *, extended_codes: bool = False
) -> dict[str, Any]:
    """The public document of an assembly's row, consistent even if the row is not.

    It never has both `ok` and `error`. A job that has not ended has neither, and the code of a
    cancelled one is its `error`, unless `extended_codes` is set: then `ok` is the code of both. A
    document that has not ended has `stalled` if the job's lease has ended by `now` (epoch seconds).
    """
    document = public_assembly(item)
    if item.get("error"):
        document.pop("ok", None)
        return document
    document.pop("error", None)
    if not is_terminal_assembly(item):
        document.pop("ok", None)
        if extended_codes:
            executing = is_executing_assembly(item)
            document["ok"] = "ASSEMBLY_EXECUTING" if executing else "ASSEMBLY_UPLOADING"
        if is_past(item.get("lease_until"), now):
            document["stalled"] = True
    elif document["ok"] == "ASSEMBLY_CANCELED" and not extended_codes:
        document["error"] = document.pop("ok")
    return document


def public_assembly(item: Mapping[str, Any]) -> dict[str, Any]:
    """The public fields of an assembly's row; uploads and results are without storage keys.

    Malformed values are left out: nulls, and files that are not objects.
    """
    document = {name: item[name] for name in PUBLIC_ASSEMBLY_FIELDS if item.get(name) is not None}
    if "uploads" in document:
        document["uploads"] = _public_files(document["uploads"])
    if "results" in document:
        document["results"] = {
            step: _public_files(files) for step, files in json_object(document["results"]).items()
        }
    if "user" in document:
        document["user"] = {"userId": json_object(document["user"]).get("userId")}
    return document


def sign_links(value: Any, sign: Callable[[str], str], paths: Iterable[str] = LINK_PATHS) -> Any:
    """A stored result with links in place of its object keys.

    `sign` returns the URL of an object key. Each path leads to a key by the names of its members;
    `*` stands for every member of an object or list. A member `key` becomes `ssl_url`, and one such
    as `url_key` becomes `url`. Nothing else changes.
    """
    for path in paths:
        value = _with_links(value, path.split("/"), sign)
    return value


def _with_links(value: Any, path: list[str], sign: Callable[[str], str]) -> Any:
    name, *rest = path
    if name == "*":
        if isinstance(value, list):
            return [_with_links(part, rest, sign) for part in value]
        if isinstance(value, Mapping):
            return {each: _with_links(part, rest, sign) for each, part in value.items()}
        return value
    if not isinstance(value, Mapping) or name not in value:
        return value
    if rest:
        return {**value, name: _with_links(value[name], rest, sign)}
    others = {each: part for each, part in value.items() if each != name}
    link = "ssl_url" if name == "key" else name.removesuffix("_key")
    return others | ({link: sign(value[name])} if value[name] else {})


def unknown_template(template_id: str, known: Collection[str]) -> str:
    """What to say of an id that no template has: which one may be meant."""
    from difflib import get_close_matches  # of no use to valid requests

    near = get_close_matches(template_id, known, n=1, cutoff=0)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"There is no template {template_id!r}{hint}"


def upload_prefix(owner: str) -> str:
    """Prefix of an owner's uploads: `uploads/<digest of the owner>/`."""
    return f"uploads/{hashlib.sha256(owner.encode()).hexdigest()[:32]}/"


def result_prefix(assembly_id: str, step: str, attempt: str = "") -> str:
    """Prefix of the objects that a step of an assembly creates.

    `attempt` keeps those of one attempt apart from those of any other.
    """
    return (
        f"results/{assembly_id}/{attempt}/{step}/" if attempt else f"results/{assembly_id}/{step}/"
    )


def _public_files(files: Any) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in file.items() if name != "key"}
        for file in json_objects(files)
    ]


def _fields_digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical_json(fields).encode()).hexdigest()


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
