"""nucleate grows crystals: symmetry, composition and known physics are exact in the encoding."""

from __future__ import annotations

__version__ = "0.1.0"

_LATE = {"Condition": "nucleate.generation.condition", "load": "nucleate.generation.generator"}


def __getattr__(name: str) -> object:
    """``load`` and ``Condition``: they load torch, so they are imported when they are first used."""
    if name in _LATE:
        import importlib  # noqa: PLC0415  (importing nucleate loads nothing else)

        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
