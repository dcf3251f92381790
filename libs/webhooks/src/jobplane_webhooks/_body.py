"""JSON with the same text in Python and in JavaScript."""

import json
import math
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def compact_json(value: Any) -> str:
    """JSON exactly as JavaScript's JSON.stringify would write it: key order, numbers, no spaces.

    Receivers depend on it that verify a signature over `JSON.stringify` of the parsed body. Whole
    numbers beyond 2**53 are the exception: an int keeps all its digits, which JavaScript would
    round when it parses them. A receiver of such numbers must verify the body as it arrived.
    NaN and infinities are null.
    """
    if isinstance(value, dict):
        ordered = sorted(value, key=lambda key: (0, int(key)) if _is_array_index(key) else (1, 0))
        pairs = (f"{_compact_string(key)}:{compact_json(value[key])}" for key in ordered)
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(compact_json, value))}]"
    if isinstance(value, float):
        return _compact_number(value)
    return _compact_string(value) if isinstance(value, str) else json.dumps(value)


def _compact_string(text: str) -> str:
    """JavaScript escapes a surrogate without its other half, so that the text is valid UTF-8."""
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if quoted.isascii() else _SURROGATE.sub(lambda m: f"\\u{ord(m[0]):04x}", quoted)


def _is_array_index(key: str) -> bool:
    """Whether JavaScript moves the key to the front of its object."""
    return re.fullmatch(r"0|[1-9][0-9]{0,9}", key) is not None and int(key) < 2**32 - 1


def _compact_number(number: float) -> str:
    """A number in JavaScript's shortest form: `5`, `0.00001`, `1e-7`, `1152921504606847000`."""
    if number.is_integer() and abs(number) <= 2**53:
        return str(int(number))
    if not math.isfinite(number):
        return "null"
    from decimal import Decimal  # imported here, as few bodies have such a number

    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    text = "".join(map(str, digits))
    point = len(text) + int(exponent)
    if -6 < point <= 0:
        plain = f"0.{'0' * -point}{text}"
    elif len(text) <= point <= 21:
        plain = text + "0" * (point - len(text))
    elif 0 < point <= 21:
        plain = f"{text[:point]}.{text[point:]}"
    else:
        fraction = f".{text[1:]}" if text[1:] else ""
        plain = f"{text[0]}{fraction}e{point - 1:+d}"
    return f"-{plain}" if sign else plain
