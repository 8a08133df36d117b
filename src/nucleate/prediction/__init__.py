"""The pipeline users call: crystals in, properties out.

These names load torch, so they are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nucleate.late import late_name

if TYPE_CHECKING:
    from nucleate.prediction.property_reader import PropertyReader

_LATE = {"PropertyReader": "property_reader"}

__all__ = ["PropertyReader"]


def __getattr__(name: str) -> Any:
    """Names that load torch, imported on first use."""
    return late_name(__name__, _LATE, name)
