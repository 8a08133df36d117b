"""nucleate grows crystals: symmetry, composition and known physics are exact in the encoding."""

from __future__ import annotations

__version__ = "0.1.0"

_LATE = {"Condition": "generation.condition", "load": "generation.generator"}


def __getattr__(name: str) -> object:
    """``load`` and ``Condition``: they load torch, so they are imported when they are first used."""
    from nucleate.late import late_name  # noqa: PLC0415  (importing nucleate loads nothing else)

    return late_name(__name__, _LATE, name)
