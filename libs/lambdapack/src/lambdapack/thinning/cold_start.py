"""Ships inside artifacts: functions that changed modules call, for a shorter cold start."""

from __future__ import annotations

import _sre  # type: ignore[import-not-found]
import gc
import os
import sys
from types import FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


class _ForDataclasses:
    """What `dataclasses` takes of `inspect`, which loads the whole compiler's front end.

    A class without a docstring is documented by its name, without its parameters.
    """

    @staticmethod
    def get_annotations(cls: type) -> dict[str, Any]:
        return dict(cls.__dict__.get("__annotations__") or {})

    @staticmethod
    def signature(cls: type) -> str:
        raise ValueError("not made in an artifact")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import itself looks at a module's
            raise AttributeError(name)
        import inspect

        return getattr(inspect, name)


if not {"inspect", "dataclasses"} & sys.modules.keys():
    sys.modules["inspect"] = _ForDataclasses()  # type: ignore[assignment]
    try:
        import dataclasses  # noqa: F401 - it keeps what it has found
    finally:
        del sys.modules["inspect"]


def begin() -> None:
    """Prepare the process; a function's module calls this before its first import.

    A start makes tens of thousands of objects and next to no garbage among them: the collector
    would look through them dozens of times. And it makes dozens of dataclasses, whose methods are
    text that `dataclasses` executes: what was compiled at build time is found by that text.
    """
    gc.disable()
    import dataclasses

    from cold_start_methods import CODE  # type: ignore[import-not-found]

    def execute(text: str, namespace: dict[str, Any], made: dict[str, Any]) -> None:
        if text in CODE:
            made["__create_fn__"] = FunctionType(CODE[text], namespace)
        else:
            exec(text, namespace, made)  # noqa: S102 - what dataclasses does

    vars(dataclasses)["exec"] = execute


def end() -> None:
    """Exclude all existing objects from garbage collection; called at a function module's end.

    The collector looks at none of it again, and begins after 10,000 new objects: a first invocation
    makes some thousands, and what later ones leave in cycles comes to a megabyte before it goes.
    """
    gc.freeze()
    gc.set_threshold(10_000, *gc.get_threshold()[1:])
    gc.enable()


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


def precompiled(
    pattern: Any,
    flags: int,
    magic: int,
    code: bytes,
    compiled_flags: int,
    groups: int,
    names: dict[str, int],
    indexes: tuple[str | None, ...],
) -> Any:
    """A pattern that was compiled at build time, for the same version of Python's engine."""
    if magic != _sre.MAGIC or sys.byteorder != "little":
        import re

        return re.compile(pattern, flags)
    words = memoryview(code).cast("I").tolist()
    return _sre.compile(pattern, compiled_flags, words, groups, names, indexes)


class _Loaded(type):
    def __instancecheck__(cls, value: object) -> bool:
        decimal = sys.modules.get("decimal")
        return decimal is not None and isinstance(value, decimal.Decimal)

    def __repr__(cls) -> str:
        return "<class 'decimal.Decimal'>"


class LoadedDecimal(metaclass=_Loaded):
    """For `isinstance`: decimal.Decimal; no value has this type until the module is loaded."""


class _Platform:
    """What botocore's user agent says of `platform`, as the system and Python say it themselves."""

    @staticmethod
    def system() -> str:
        return os.uname().sysname

    @staticmethod
    def release() -> str:
        return os.uname().release

    @staticmethod
    def machine() -> str:
        return os.uname().machine

    @staticmethod
    def python_version() -> str:
        return sys.version.split()[0]

    @staticmethod
    def python_implementation() -> str:
        return {"cpython": "CPython"}.get(sys.implementation.name, sys.implementation.name)

    def __getattr__(self, name: str) -> Any:
        import platform

        return getattr(platform, name)


platform = _Platform()
