"""The modules of functions, imported by their files."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from jobplane.tree.repository import Function


@contextmanager
def imported(function: Function) -> Iterator[ModuleType]:
    """A function's module, imported once more; in `sys.modules` as long as the context is open.

    The libraries that it is the first to import stay there: a second copy of one would raise
    exceptions that the users of the first do not catch.
    """
    spec = importlib.util.spec_from_file_location(function.module, function.source)
    if spec is None or spec.loader is None:
        raise ImportError(f"{function.source} can't be imported")
    module = importlib.util.module_from_spec(spec)
    replaced = sys.modules.get(function.module)
    sys.modules[function.module] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.modules.pop(function.module, None)
        if replaced is not None:
            sys.modules[function.module] = replaced
