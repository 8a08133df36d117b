"""nucleate grows crystals: symmetry, composition and known physics are exact in the encoding."""

from __future__ import annotations

from typing import Any

from nucleate.late import late_name

__version__ = "0.1.0"

_LATE = {"Condition": "generation.condition", "load": "generation.generator"}


def __getattr__(name: str) -> Any:
    """``load`` and ``Condition``: they load torch, so they are imported when they are first used."""
    return late_name(__name__, _LATE, name)
