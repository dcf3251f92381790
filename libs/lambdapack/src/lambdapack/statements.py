"""IAM statements of a function, read from what deploys it.

Read are Serverless YAML, SAM and CloudFormation templates (YAML or JSON; CDK writes them), the plan
of Terraform as JSON, policy documents, and lists of statements or actions. What grants more than
the file says, such as a managed policy of AWS, makes the statements unknown: then nothing is cut.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lambdapack.errors import BuildError

LOG = logging.getLogger("lambdapack")

# Policies of AWS that allow a function to write logs and traces, and to be in a network: no client
# of botocore in its code needs them.
OF_EVERY_FUNCTION = re.compile(
    r"AWSLambda(?:BasicExecution|VPCAccessExecution)Role|AWSXRayDaemonWriteAccess"
)
ACTION = re.compile(r"\*|[\w-]+:[\w*?]+")

type Json = Any
type Found = dict[str, list[Json] | None]
"""By function: statements, or None if the file does not say all of them."""


@dataclass(frozen=True)
class Statements:
    """IAM statements, and where they are written."""

    statements: Sequence[Json]
    written_in: str

    @classmethod
    def of_actions(cls, actions: Iterable[str]) -> "Statements":
        """Statements that allow actions such as `s3:GetObject`.

        Raises:
            BuildError: a text is not an action.
        """
        names = list(actions)
        for name in names:
            if not ACTION.fullmatch(name):
                raise BuildError(
                    f"{name!r} is not an IAM action; write SERVICE:ACTION or SERVICE:*"
                )
        return cls([{"Effect": "Allow", "Action": names, "Resource": "*"}], "your list of actions")

    @classmethod
    def read(cls, path: Path, function: str | None, member: str) -> "Statements | None":
        """The statements of a function, from a file.

        Args:
            function: its name in the file; default: the one that is named as the member, or the
                only one.

        Returns:
            None if the file does not say all that the function may do.

        Raises:
            BuildError: the file can't be read, or does not say which function it is.
        """
        document = _parsed(path)
        try:
            found = _by_function(document, path)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BuildError(
                f"{path} can't be read as what its keys say, a template, a plan or a policy: "
                "correct it, or pass the actions by --allow"
            ) from error
        name = _chosen(found, function, member, path)
        statements = found[name]
        if statements is None:
            LOG.info(
                f"{path}: {name or 'it'} is granted actions that the file does not list, such as a "
                "managed policy or a variable: the SDK is not cut"
            )
            return None
        return cls(statements, path.name)


def _parsed(path: Path) -> Json:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)  # noqa: S506 - safe
    except OSError as error:
        raise BuildError(f"{path} can't be read: {error.strerror}: correct the path") from error
    except (ValueError, yaml.YAMLError) as error:
        raise BuildError(
            f"{path} is neither JSON nor YAML: correct it, or pass the actions by --allow: {error}"
        ) from error


class _Loader(yaml.SafeLoader):
    """Reads the short forms of CloudFormation's functions: `!GetAtt Role.Arn`."""


def _intrinsic(loader: _Loader, suffix: str, node: yaml.Node) -> Json:
    value: Json
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _intrinsic)


def _by_function(document: Json, path: Path) -> Found:
    if isinstance(document, list):
        return {"": _listed(document, path)}
    if isinstance(document, dict):
        if "Statement" in document:
            return {"": _list(document["Statement"])}
        if "Resources" in document:
            return _of_cloudformation(document["Resources"])
        if "planned_values" in document:
            return _of_terraform(document)
        if "functions" in document or "provider" in document:
            return _of_serverless(document)
    raise BuildError(
        f"{path} has no IAM statements that can be read: pass a serverless.yml, a SAM or "
        "CloudFormation template, `terraform show -json PLAN`, a policy, or a list of actions"
    )


def _chosen(found: Found, function: str | None, member: str, path: Path) -> str:
    if "" in found:
        return ""
    if function is None:
        same = [name for name in found if _plain(name) == _plain(member)]
        same = same or (list(found) if len(found) == 1 else [])
        if len(same) == 1:
            return same[0]
        raise BuildError(
            f"{path} does not say which function {member!r} is: name it by --function, one of "
            f"{', '.join(found) or 'none'}"
        )
    if function not in found:
        raise BuildError(
            f"{path} has no function {function!r}; it has {', '.join(found) or 'none'}"
        )
    return function


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.rpartition(".")[2].lower().removesuffix("function"))


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]


def _listed(entries: list[Json], path: Path) -> list[Json]:
    if all(isinstance(each, str) for each in entries):
        return list(Statements.of_actions(entries).statements)
    if all(isinstance(each, dict) and "Effect" in each for each in entries):
        return entries
    raise BuildError(
        f"{path}: a list must be of actions, or of statements with an Effect: remove the others"
    )


def _complete(parts: Iterable[Json]) -> list[Json] | None:
    """All statements, or None if one of them is not written out."""
    found: list[Json] = []
    for part in parts:
        if not isinstance(part, dict) or "Effect" not in part:
            return None
        if part["Effect"] == "Allow" and "NotAction" not in part:
            actions = _list(part.get("Action"))
            if not all(isinstance(each, str) and ACTION.fullmatch(each) for each in actions):
                return None
        found.append(part)
    return found


def _of_serverless(document: Json) -> Found:
    provider = document.get("provider") or {}
    iam = provider.get("iam") or {}
    role = iam.get("role") if isinstance(iam, dict) else None
    role = role if isinstance(role, dict) else ({"unknown": True} if role else {})
    shared = role.get("statements") or provider.get("iamRoleStatements") or []
    is_known = not (
        provider.get("role") or "unknown" in role or _unknown(role.get("managedPolicies"))
    )
    functions = document.get("functions") or {}
    if not isinstance(functions, dict):
        functions = {
            name: body
            for part in _list(functions)
            if isinstance(part, dict)
            for name, body in part.items()
        }
    found: Found = {}
    for name, body in functions.items():
        body = body if isinstance(body, dict) else {"role": body}
        own = body.get("iamRoleStatements")
        inherits = own is None or body.get("iamRoleStatementsInherit") is True
        parts = [*_list(own or []), *(_list(shared) if inherits else [])]
        known = (is_known or not inherits) and "role" not in body
        found[name] = _complete(parts) if known else None
    return found


def _unknown(policies: Json) -> bool:
    """Whether a managed policy grants more than every function has."""
    return any(not OF_EVERY_FUNCTION.search(json.dumps(policy)) for policy in _list(policies or []))


def _of_cloudformation(resources: Mapping[str, Json]) -> Found:
    found: Found = {}
    for name, resource in resources.items():
        properties = resource.get("Properties") or {}
        if resource.get("Type") == "AWS::Lambda::Function":
            found[name] = _of_role(properties.get("Role"), resources)
        elif resource.get("Type") == "AWS::Serverless::Function":
            if "Role" in properties:
                found[name] = _of_role(properties["Role"], resources)
                continue
            policies = _list(properties.get("Policies") or [])
            policies = [each for each in policies if not isinstance(each, str) or _unknown(each)]
            found[name] = _complete(_statements(policies))
    return found


def _statements(policies: Iterable[Json]) -> Iterator[Json]:
    """The statements of policy documents; what is not one is passed on."""
    for policy in policies:
        if isinstance(policy, dict) and "Statement" in policy:
            yield from _list(policy["Statement"])
        else:
            yield policy


def _of_role(role: Json, resources: Mapping[str, Json]) -> list[Json] | None:
    name = _referenced(role)
    if name is None or resources.get(name, {}).get("Type") != "AWS::IAM::Role":
        return None
    properties = resources[name].get("Properties") or {}
    managed = []
    for policy in _list(properties.get("ManagedPolicyArns") or []):
        own = resources.get(_referenced(policy) or "", {})
        if own.get("Type") == "AWS::IAM::ManagedPolicy":
            managed.append(own["Properties"])
        elif _unknown(policy):
            return None
    attached = [
        each["Properties"]
        for each in resources.values()
        if each.get("Type")
        in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy")
        and name in map(_referenced, _roles(each.get("Properties") or {}))
    ]
    inline = _list(properties.get("Policies") or [])
    return _complete(
        _statements(
            policy.get("PolicyDocument") if isinstance(policy, dict) else policy
            for policy in [*inline, *managed, *attached]
        )
    )


def _roles(properties: Mapping[str, Json]) -> list[Json]:
    return _list(properties.get("Roles") or properties.get("RoleName") or [])


def _referenced(value: Json) -> str | None:
    """The resource that `Ref` or `Fn::GetAtt` names."""
    match value:
        case {"Ref": str() as name}:
            return name
        case {"Fn::GetAtt": [str() as name, *_]}:
            return name
        case {"Fn::GetAtt": str() as path}:
            return path.partition(".")[0]
    return None


def _of_terraform(document: Json) -> Found:
    planned = dict(_planned(document["planned_values"].get("root_module") or {}))
    configured = dict(
        _configured((document.get("configuration") or {}).get("root_module") or {}, "")
    )
    found: Found = {}
    for address, resource in planned.items():
        if resource.get("type") == "aws_lambda_function":
            roles = _references(configured, address, "role", "aws_iam_role")
            found[address] = _of_planned_role(roles, planned, configured)
    return found


def _planned(module: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    for resource in module.get("resources") or []:
        yield resource["address"], resource
    for child in module.get("child_modules") or []:
        yield from _planned(child)


def _configured(module: Mapping[str, Json], prefix: str) -> Iterator[tuple[str, Json]]:
    for resource in module.get("resources") or []:
        yield prefix + resource["address"], resource.get("expressions") or {}
    for name, call in (module.get("module_calls") or {}).items():
        yield from _configured(call.get("module") or {}, f"{prefix}module.{name}.")


def _references(configured: Mapping[str, Json], address: str, key: str, kind: str) -> set[str]:
    """The resources of a kind that an argument of another one names."""
    plain = re.sub(r"\[[^\]]*\]", "", address)
    above = plain.rpartition(".")[0].rpartition(".")[0]
    expression = configured.get(plain, {}).get(key) or {}
    return {
        ".".join(filter(None, [above, *name.split(".")[:2]]))
        for name in expression.get("references") or []
        if name.startswith(f"{kind}.")
    }


def _of_planned_role(
    roles: set[str], planned: Mapping[str, Json], configured: Mapping[str, Json]
) -> list[Json] | None:
    documents: list[Json] = []
    for address, resource in planned.items():
        kind, values = resource.get("type"), resource.get("values") or {}
        if re.sub(r"\[[^\]]*\]", "", address) in roles:
            documents += [each.get("policy") for each in values.get("inline_policy") or []]
            documents += [None] if _unknown(values.get("managed_policy_arns")) else []
        if roles != _references(configured, address, "role", "aws_iam_role"):
            continue
        if kind == "aws_iam_role_policy":
            documents.append(values.get("policy"))
        elif kind == "aws_iam_role_policy_attachment":
            own = _references(configured, address, "policy_arn", "aws_iam_policy")
            documents += [planned[each]["values"].get("policy") for each in own]
            documents += [None] if not own and _unknown(values.get("policy_arn") or "?") else []
    if len(roles) != 1 or not all(documents):  # known after apply
        return None
    return _complete(_statements(map(json.loads, documents)))
