"""From many candidates to the few worth a DFT run: one row per candidate and a reason for every one that leaves."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "BatchStep": "step",
    "Resources": "step",
    "ScreeningReport": "funnel",
    "ScreeningSettings": "settings",
    "Step": "step",
    "StepCount": "funnel_state",
    "StepItem": "step",
    "StepResult": "step",
    "batch_cluster": "cluster",
    "screen": "funnel",
    "shared_potential": "potentials",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Loads what a screening needs only when something of it is used."""
    if name in _HOMES:
        value = getattr(import_module(f"nucleate.screening.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
