"""`--set path=value`: `a.b`, `list[0].c`, `map["a.b"]`; into JSON texts as well."""

import json
import re
from typing import Any

STEP = re.compile(r"""\.?(?P<name>[^.\[\]"]+)|\[(?P<index>\d+)\]|\["(?P<quoted>[^"]+)"\]""")


class OverrideError(ValueError):
    """An override that can't be made: its form, or a path that is not there."""


def override(event: Any, text: str, *, add: bool = False) -> Any:
    """The event with one value changed in place; an event that is a text is returned anew.

    The value is JSON where it is that, else the text itself.

    Raises:
        OverrideError: no `=`, or the path isn't there and `add` isn't set.
    """
    path, separator, value = text.partition("=")
    if not separator:
        raise OverrideError(f"{text!r} is no override: path=value")
    return _changed(event, _steps(path), _parsed(value), add, path)


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    position = 0
    while position < len(path):
        match = STEP.match(path, position)
        if match is None:
            raise OverrideError(f'{path!r} is no path: a.b, list[0].c or map["a.b"]')
        steps.append(int(match["index"]) if match["index"] else match["name"] or match["quoted"])
        position = match.end()
    if not steps:
        raise OverrideError("an override names a path: path=value")
    return steps


def _changed(node: Any, steps: list[str | int], value: Any, add: bool, path: str) -> Any:
    if not steps:
        return value
    if isinstance(node, str):
        return _changed_text(node, steps, value, add, path)
    step, rest = steps[0], steps[1:]
    if isinstance(node, list) and isinstance(step, int):
        if step > len(node) or (step == len(node) and not add):
            raise OverrideError(f"{path}: the list has {len(node)} entries")
        inner = node[step] if step < len(node) else {}
        node[step : step + 1] = [_changed(inner, rest, value, add, path)]
        return node
    if not isinstance(node, dict):
        raise OverrideError(f"{path}: {step!r} leads into {_described(node)}")
    if step not in node and not add:
        known = ", ".join(map(str, node)) or "nothing"
        raise OverrideError(f"{path}: there is no {step!r}, but {known}; --add makes it")
    node[step] = _changed(node.get(step, {}), rest, value, add, path)
    return node


def _described(node: Any) -> str:
    return f"a list: [0] to [{len(node) - 1}]" if isinstance(node, list) else json.dumps(node)


def _changed_text(text: str, steps: list[str | int], value: Any, add: bool, path: str) -> str:
    try:
        document = json.loads(text)
    except ValueError:
        raise OverrideError(f"{path}: {steps[0]!r} leads into a text that is no JSON") from None
    return json.dumps(_changed(document, steps, value, add, path))
