"""Names of a package that are imported when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def late_name(package: str, homes: Mapping[str, str], name: str) -> Any:
    """What the module ``__getattr__`` of a package returns (PEP 562); the package knows the name from then on.

    Args:
        package: its ``__name__``.
        homes: module of each late name, relative to the package.
        name: the name asked for.

    Raises:
        AttributeError: there is no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    value = getattr(import_module(f"{package}.{homes[name]}"), name)
    setattr(sys.modules[package], name, value)
    return value
