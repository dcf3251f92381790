"""JSON with the same text in Python and in JavaScript."""

import json
import re
from typing import Any


def compact_json(value: Any) -> str:
    """JSON exactly as JavaScript's JSON.stringify would write it: key order, numbers, no spaces.

    Receivers depend on it that verify a signature over `JSON.stringify` of the parsed body.
    """
    if isinstance(value, dict):
        ordered = sorted(value, key=lambda key: (0, int(key)) if _is_array_index(key) else (1, 0))
        pairs = (
            f"{json.dumps(key, ensure_ascii=False)}:{compact_json(value[key])}" for key in ordered
        )
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(compact_json, value))}]"
    if isinstance(value, float):
        return _compact_number(value)
    return json.dumps(value, ensure_ascii=False)


def _is_array_index(key: str) -> bool:
    """Whether JavaScript moves the key to the front of its object."""
    return re.fullmatch(r"0|[1-9][0-9]{0,9}", key) is not None and int(key) < 2**32 - 1


def _compact_number(number: float) -> str:
    """A finite number in JavaScript's shortest form: `5`, `0.00001`, `1e-7`."""
    if number.is_integer() and abs(number) < 1e21:
        return str(int(number))
    from decimal import Decimal  # imported here, as few bodies have such a number

    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    text = "".join(map(str, digits))
    point = len(text) + int(exponent)
    if -6 < point <= 0:
        plain = f"0.{'0' * -point}{text}"
    elif 0 < point <= 21:
        plain = f"{text[:point]}.{text[point:]}"
    else:
        fraction = f".{text[1:]}" if text[1:] else ""
        plain = f"{text[0]}{fraction}e{point - 1:+d}"
    return f"-{plain}" if sign else plain
