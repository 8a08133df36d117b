"""From many candidates to the few worth a DFT run: one row per candidate and a reason for every one that leaves."""

from __future__ import annotations

from typing import Any

from nucleate.late import late_name

_LATE = {
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

__all__ = sorted(_LATE)


def __getattr__(name: str) -> Any:
    """Loads what a screening needs only when something of it is used."""
    return late_name(__name__, _LATE, name)
