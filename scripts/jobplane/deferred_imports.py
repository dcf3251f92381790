"""Ships inside an artifact: gives a module's deferred names their values when they are needed."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

type Import = tuple[str, str | None, int]
"""A module, what to take of it (None: its top-level package, "": itself), the import's level."""


def deferred(
    namespace: dict[str, Any], values: Mapping[str, str | tuple[Import, ...]]
) -> tuple[Callable[[str], Any], Callable[[str], Any]]:
    """What a changed module uses: `load(name)` binds a name for good; its `__getattr__`.

    Args:
        namespace: the module's own, in which names are bound as if they had been at the top.
        values: by name, the imports that give it a value, or the name of a function that does.
    """

    def load(name: str) -> Any:
        how = values[name]
        value: Any = None
        if isinstance(how, str):
            value = namespace[how]()
        else:
            for module, attribute, level in how:
                if not attribute:
                    value = __import__(module)
                    if attribute is not None:
                        value = sys.modules[module]
                    continue
                value = __import__(module, namespace, None, (attribute,), level)
                try:
                    value = getattr(value, attribute)
                except AttributeError:
                    text = f"cannot import name {attribute!r} from {value.__name__!r}"
                    raise ImportError(text) from None
        namespace[name] = value
        return value

    def module_getattr(name: str) -> Any:
        if name in values:
            return load(name)
        raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")

    return load, module_getattr
