"""The pipeline users call: a condition in, complete crystals out, checked and written.

Sampling needs torch, numpy, pyarrow and safetensors only. These names load torch, so they are imported when they are
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nucleate.generation.condition import Condition
    from nucleate.generation.generator import Generation, Generator, load

_LATE = {
    "Condition": "nucleate.generation.condition",
    "Generation": "nucleate.generation.generator",
    "Generator": "nucleate.generation.generator",
    "load": "nucleate.generation.generator",
}

__all__ = ["Condition", "Generation", "Generator", "load"]


def __getattr__(name: str) -> Any:
    """Names that load torch, imported on first use."""
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
