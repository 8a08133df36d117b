"""The pipeline users call: a condition in, complete crystals out, checked and written.

Sampling needs torch, numpy, pyarrow and safetensors only. These names load torch, so they are imported when they are
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nucleate.late import late_name

if TYPE_CHECKING:
    from nucleate.generation.condition import Condition
    from nucleate.generation.generator import Generation, Generator, load

_LATE = {
    "Condition": "condition",
    "Generation": "generator",
    "Generator": "generator",
    "load": "generator",
}

__all__ = ["Condition", "Generation", "Generator", "load"]


def __getattr__(name: str) -> Any:
    """Names that load torch, imported on first use."""
    return late_name(__name__, _LATE, name)
