"""botocore's data cut to what a function's own IAM statements grant.

An artifact carries the service models, operations, shapes and endpoints that the role may use.
Asking for another operation gives an error that names the statement to add.
"""

import ast
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from lambdapack.errors import BuildError
from lambdapack.thinning import cut_notice, iam
from lambdapack.thinning.iam import ALSO_ALLOWED
from lambdapack.workspace import Function

# Operations that botocore itself calls: following a bucket to its region, directory buckets. It
# takes the address of a form that it signs from CreateBucket.
CALLED_BY_BOTOCORE = {"s3": ("CreateBucket", "CreateSession", "HeadBucket")}

KEPT_TOP_LEVEL = ("partitions.json", "_retry.json", "sdk-default-configuration.json")
ENDPOINT_RULES = "endpoint-rule-set-1"
DOCUMENTATION = frozenset({"documentation", "documentationUrl", "examples", "smithy.example"})

# Events whose second part is the service.
SERVICE_EVENTS = frozenset(
    {
        "after-call", "before-call", "before-endpoint-resolution", "before-parameter-build",
        "before-parse", "before-sign", "choose-signer", "creating-client-class", "getattr",
        "needs-retry", "request-created",
    }
)  # fmt: skip

HOOK = """

from botocore import cut_notice

BUILTIN_HANDLERS.append(("getattr", cut_notice.explain_cut_operation))
"""
EXCEPTIONS_HOOK = """

UnknownServiceError.fmt += (
    " (this artifact carries the services of its function's IAM statements; name others in "
    "{settings_in}.sdk of its pyproject.toml and build again)"
)
UnknownClientMethodError.fmt += " (or its operation was cut: no IAM statement grants it)"
"""


class UncuttableError(Exception):
    """This version of botocore has other files or lists than those that are cut."""


@dataclass(frozen=True)
class Grants:
    """The `service:Action` patterns of a function's statements, and its settings for the SDK."""

    function: str
    actions: tuple[str, ...]
    named: tuple[str, ...] = ()
    """Services that ship with all operations, regardless of the statements."""
    asks_for_all: bool = False
    statements_in: str = "its IAM statements"
    settings_in: str = "its settings"

    @property
    def whole(self) -> bool:
        """Nothing is cut."""
        return self.asks_for_all or not {"*", "*:*"}.isdisjoint(self.actions)

    @classmethod
    def of(cls, function: Function) -> "Grants":
        """Read its statements, and `sdk` of its settings.

        Raises:
            BuildError: a statement or a name is invalid.
        """
        wanted, where = function.settings.get("sdk", ()), function.statements_in
        actions: set[str] = set()
        asks_for_all = wanted == "whole" or function.statements is None
        statements = function.statements or []
        if not isinstance(statements, list):
            raise BuildError(f"{where} must be a list of statements")
        for number, statement in enumerate(statements, 1):
            if not isinstance(statement, dict) or "Effect" not in statement:
                raise BuildError(f"{where}: statement {number} has no Effect: write Allow or Deny")
            if statement["Effect"] != "Allow":
                continue
            if "NotAction" in statement:
                asks_for_all = True
                continue
            action = statement.get("Action")
            found = [action] if isinstance(action, str) else action
            if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
                raise BuildError(
                    f"{where}: statement {number} needs an Action: a text such as s3:GetObject, or "
                    "a list of them"
                )
            actions.update(found)
        return cls(
            function.name,
            tuple(sorted(actions)),
            _named(function),
            asks_for_all,
            where,
            function.settings_in,
        )

    def services(self, available: Iterable[str]) -> dict[str, str]:
        """botocore's service folder → IAM prefix, for every service that ships.

        An action without an operation, such as `rds-db:connect`, adds its service, whose client may
        sign for it. Actions of services that botocore does not know are ignored.
        """
        everything = sorted(available)
        by_prefix: dict[str, list[str]] = {}
        for service in everything:
            for prefix in iam.prefixes_of(service):
                by_prefix.setdefault(prefix, []).append(service)
        found = set(everything if self.whole else self.named)
        for action in self.actions:
            prefix = action.partition(":")[0].lower()
            services = by_prefix.get(prefix, [])
            alone = replace(self, actions=(action,))
            having = [each for each in services if alone._granted(each, iam.operations_of(each))]
            found.update(having or [each for each in services if each == prefix] or services)
        return {service: iam.prefix_of(service) for service in everything if service in found}

    def operations(self, service: str, prefix: str, available: Iterable[str]) -> set[str]:
        """The operations of a service that the statements allow, and those botocore needs."""
        names = set(available)
        if self.whole or service in self.named:
            return names
        return self._granted(service, names) | (set(CALLED_BY_BOTOCORE.get(service, ())) & names)

    def _granted(self, service: str, available: Iterable[str]) -> set[str]:
        prefixes = iam.prefixes_of(service)
        patterns = [
            action.lower() for action in self.actions
            if action == "*" or action.partition(":")[0].lower() in prefixes
        ]  # fmt: skip

        def granted(action: str) -> bool:
            return any(fnmatchcase(action.lower(), pattern) for pattern in patterns)

        also = {
            operation
            for action, operations in ALSO_ALLOWED.items()
            if granted(action)
            for operation in operations
        }
        methods = iam.operations_of(service) if service in iam.BY_METHOD else {}
        return {
            name
            for name in available
            if name in also
            or any(
                granted(f"{prefix}:{action}")
                for prefix in prefixes
                for action in (name, *_parts(name), *filter(None, [methods.get(name)]))
            )
        }


def _parts(operation: str) -> list[str]:
    """The action for a single item of a batch operation, as most services name it."""
    forms = (
        operation.removeprefix("Batch"),
        operation.removesuffix("Batch"),
        operation.removesuffix("s"),
    )
    return [form for form in forms if form != operation]


def _named(function: Function) -> tuple[str, ...]:
    wanted = function.settings.get("sdk", ())
    where = f"{(PurePosixPath(function.folder) / 'pyproject.toml')}: {function.settings_in}.sdk"
    if wanted == "whole":
        return ()
    names = list(wanted) if isinstance(wanted, list | tuple) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise BuildError(
            f'{where} must be "whole", or a list of botocore\'s services such as '
            '["bedrock-runtime"]'
        )
    known = iam.services()
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, 3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise BuildError(
                f"{where}: unknown service {name!r}{hint}: write it as boto3.client takes it"
            )
    return tuple(sorted(names))


@cache
def clients(source: bytes) -> tuple[tuple[int, str], ...]:
    """The services of AWS that a module makes clients of by their written names, with the line."""
    return tuple(_clients(source))


def _clients(source: bytes) -> Iterator[tuple[int, str]]:
    known = set(iam.services())
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called)):
                pass
            case _:
                continue
        named = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "service_name")]
        if called.endswith("client") or called == "resource":
            for value in named:
                if isinstance(value, ast.Constant) and value.value in known:
                    yield node.lineno, value.value


def cut_botocore(
    root: Path, installed: Mapping[str, Path], grants: Grants
) -> dict[str, Path | bytes]:
    """botocore's files for an artifact, by path: sources as they are, data cut.

    Args:
        root: the folder that holds `botocore/`, installed.
        installed: all files of that folder.

    Raises:
        UncuttableError: another version of botocore has other files or lists.
    """
    package = root / "botocore"
    data = package / "data"
    if not data.is_dir() or not (package / "exceptions.py").is_file():
        raise UncuttableError("it has no data, or no exceptions.py")
    if grants.whole:
        return dict(installed)
    files: dict[str, Path | bytes] = {
        name: path for name, path in installed.items() if not name.startswith("botocore/data/")
    }
    files["botocore/cut_notice.py"] = Path(cut_notice.__file__).read_bytes()
    files["botocore/exceptions.py"] = (
        package / "exceptions.py"
    ).read_bytes() + EXCEPTIONS_HOOK.replace("{settings_in}", grants.settings_in).encode()
    for name in KEPT_TOP_LEVEL:
        files[f"botocore/data/{name}"] = compact(read_json(data / name))
    available = sorted(path.name for path in data.iterdir() if path.is_dir())
    services = grants.services(available)
    endpoint_names: set[str] = set()
    event_names: set[str] = set()
    cut: dict[str, Any] = {}
    for service, prefix in services.items():
        version = max(path for path in (data / service).iterdir() if path.is_dir())
        target = f"botocore/data/{service}/{version.name}"
        model = read_json(version / "service-2.json")
        extras = read_json(version / "service-2.sdk-extras.json", missing_ok=True) or {}
        model = merged(model, extras.get("merge", {}))
        kept = grants.operations(service, prefix, model["operations"])
        operations = model["operations"]
        kept |= {name for name, body in operations.items() if body.get("endpointoperation")}
        cut[service] = {
            name: _needed(service, prefix, name) for name in sorted(operations.keys() - kept)
        }
        endpoint_names |= {model["metadata"]["endpointPrefix"], service}
        event_names |= {model["metadata"]["serviceId"].lower().replace(" ", "-"), service}
        files[f"{target}/service-2.json"] = compact(cut_model(model, kept))
        files[f"{target}/{ENDPOINT_RULES}.json"] = compact(
            read_json(version / f"{ENDPOINT_RULES}.json")
        )
        for name, value in _helpers(version, kept).items():
            files[f"{target}/{name}"] = compact(value)
    handlers = cut_handlers((package / "handlers.py").read_text(), event_names)
    files["botocore/handlers.py"] = handlers.encode() + HOOK.encode()
    aliases = cut_aliases((package / "utils.py").read_text(), event_names)
    files["botocore/utils.py"] = aliases.encode()
    files["botocore/data/endpoints.json"] = compact(
        cut_endpoints(read_json(data / "endpoints.json"), endpoint_names)
    )
    files["botocore/data/cut.json"] = compact(
        {"statements_in": grants.statements_in, "services": cut}
    )
    return files


def cut_handlers(source: str, names: set[str]) -> str:
    """botocore's handlers without those of other services' events, and of documentation's.

    Args:
        names: of the services kept, as events have them.

    Raises:
        UncuttableError: BUILTIN_HANDLERS is not a list any more.
    """

    def is_kept(entry: ast.expr) -> bool:
        match entry:
            case ast.Tuple(elts=[ast.Constant(value=str() as event), *_]):
                kind, _, rest = event.partition(".")
                of = rest.partition(".")[0]
                if kind == "docs":
                    return False
                return kind not in SERVICE_EVENTS or of in {"", "*", *names}
        return True

    line, value = _assignment(source, "BUILTIN_HANDLERS")
    if not isinstance(value, ast.List):
        raise UncuttableError("botocore.handlers has no list BUILTIN_HANDLERS")
    value.elts = [entry for entry in value.elts if is_kept(entry)]
    return source.replace(line, f"BUILTIN_HANDLERS = {ast.unparse(value)}\n")


def cut_aliases(source: str, names: set[str]) -> str:
    """botocore's utils with the event aliases of the kept services alone.

    Raises:
        UncuttableError: EVENT_ALIASES is not a dict any more.
    """
    line, value = _assignment(source, "EVENT_ALIASES")
    if not isinstance(value, ast.Dict):
        raise UncuttableError("botocore.utils has no dict EVENT_ALIASES")
    kept = {old: new for old, new in ast.literal_eval(value).items() if new in names}
    return source.replace(line, f"EVENT_ALIASES = {kept!r}\n")


def _assignment(source: str, name: str) -> tuple[str, ast.expr | None]:
    """The line that gives a name its value, in a module that was written by `ast.unparse`."""
    for line in source.splitlines(keepends=True):
        if line.startswith(f"{name} = "):
            (node,) = ast.parse(line).body
            return line, node.value if isinstance(node, ast.Assign) else None
    return "", None


def cut_boto3(
    installed: Mapping[str, Path], grants: Grants, services: Iterable[str]
) -> dict[str, Path | bytes]:
    """boto3's files for an artifact: its resource models reduced to the granted services."""
    kept, data = set(services), "boto3/data/"

    def is_kept(name: str) -> bool:
        return not name.startswith(data) or name.removeprefix(data).partition("/")[0] in kept

    return {name: path for name, path in installed.items() if grants.whole or is_kept(name)}


def _needed(service: str, prefix: str, operation: str) -> list[str]:
    """The actions to grant so that an operation ships."""
    return list(iam.ACTIONS.get(service, {}).get(operation) or [f"{prefix}:{operation}"])


def _helpers(version: Path, kept: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, key in (("paginators-1.json", "pagination"), ("waiters-2.json", "waiters")):
        document = read_json(version / name, missing_ok=True)
        if document is None:
            continue
        extras_name = name.replace(".json", ".sdk-extras.json")
        extras = read_json(version / extras_name, missing_ok=True) or {}
        document = merged(document, extras.get("merge", {}))
        entries = {
            entry: value
            for entry, value in document[key].items()
            if value.get("operation", entry) in kept
        }
        if entries:
            found[name] = {**document, key: entries}
    return found


def cut_model(model: Mapping[str, Any], kept: set[str]) -> dict[str, Any]:
    """A service model with the kept operations and their shapes, without documentation."""
    operations = {name: body for name, body in model["operations"].items() if name in kept}
    shapes: dict[str, Any] = {}
    pending = [name for body in operations.values() for name in _shape_references(body)]
    while pending:
        name = pending.pop()
        if name not in shapes:
            shapes[name] = model["shapes"][name]
            pending.extend(_shape_references(shapes[name]))
    undocumented: dict[str, Any] = _without_documentation(
        {
            **{key: value for key, value in model.items() if key not in ("operations", "shapes")},
            "operations": operations,
            "shapes": dict(sorted(shapes.items())),
        }
    )
    # botocore reads this one documentation field when it makes a client.
    for parameter in undocumented.get("clientContextParams", {}).values():
        parameter["documentation"] = ""
    return undocumented


def merged(base: Any, extra: Any) -> Any:
    """botocore's deep merge of `sdk-extras` into a model: extra wins at the leaves."""
    if isinstance(base, dict) and isinstance(extra, dict):
        both = {key: merged(base[key], extra[key]) for key in extra if key in base}
        return {**base, **extra, **both}
    return extra


def _shape_references(node: Any) -> list[str]:
    found: list[str] = []
    if isinstance(node, dict):
        shape = node.get("shape")
        if isinstance(shape, str):
            found.append(shape)
        for value in node.values():
            found.extend(_shape_references(value))
    elif isinstance(node, list):
        for value in node:
            found.extend(_shape_references(value))
    return found


def _without_documentation(node: Any, *, names: bool = False) -> Any:
    """Remove documentation; keys below `members`, `shapes` and `operations` are names."""
    if isinstance(node, dict):
        return {
            key: _without_documentation(
                value, names=not names and key in ("members", "shapes", "operations")
            )
            for key, value in node.items()
            if names or key not in DOCUMENTATION
        }
    if isinstance(node, list):
        return [_without_documentation(value) for value in node]
    return node


def cut_endpoints(endpoints: Mapping[str, Any], services: set[str]) -> dict[str, Any]:
    """endpoints.json with the entries of these services alone, in every partition."""
    partitions = [
        {
            **partition,
            "services": {
                name: value for name, value in partition["services"].items() if name in services
            },
        }
        for partition in endpoints["partitions"]
    ]
    return {**endpoints, "partitions": partitions}


@cache
def read_json(path: Path, *, missing_ok: bool = False) -> Any:
    """A data file as botocore would find it: plain, or gzipped beside that name.

    It is cached: do not change it.
    """
    if path.is_file():
        return json.loads(path.read_bytes())
    packed = path.with_name(path.name + ".gz")
    if not packed.is_file():
        if missing_ok:
            return None
        raise UncuttableError(f"it has no {path.name}")
    return json.loads(gzip.decompress(packed.read_bytes()))


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
