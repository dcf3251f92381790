"""`--set path=value` with paths `a.b`, `list[0].c`, `map["a.b"]`, also inside strings of JSON."""

import json
import re
from typing import Any

STEP = re.compile(r"""\.?(?P<name>[^.\[\]"]+)|\[(?P<index>\d+)\]|\["(?P<quoted>[^"]+)"\]""")


class OverrideError(ValueError):
    """An override is malformed, or its path does not exist."""


def override(event: Any, text: str, *, add: bool = False) -> Any:
    """Change one value (JSON, or else a text) of an event in place; the event, or a new text."""
    path, separator, value = text.partition("=")
    if not separator:
        raise OverrideError(f"invalid override {text!r}: use path=value")
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
            raise OverrideError(f'invalid path {path!r}: use a.b, list[0].c or map["a.b"]')
        steps.append(int(match["index"]) if match["index"] else match["name"] or match["quoted"])
        position = match.end()
    if not steps:
        raise OverrideError("the path of an override is empty: use path=value")
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
        listed = f"a list: [0] to [{len(node) - 1}]" if isinstance(node, list) else json.dumps(node)
        raise OverrideError(f"{path}: {step!r} needs an object, but found {listed}")
    if step not in node and not add:
        known = ", ".join(map(str, node)) or "nothing"
        raise OverrideError(
            f"{path}: {step!r} does not exist, known are {known}; pass --add to create it"
        )
    node[step] = _changed(node.get(step, {}), rest, value, add, path)
    return node


def _changed_text(text: str, steps: list[str | int], value: Any, add: bool, path: str) -> str:
    try:
        document = json.loads(text)
    except ValueError:
        raise OverrideError(
            f"{path}: {steps[0]!r} is inside a text that is not valid JSON"
        ) from None
    return json.dumps(_changed(document, steps, value, add, path))
