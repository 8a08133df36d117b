"""What the drawings of a comparison show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nucleate.evaluation.chart import HELD_OUT, Chart, share_points

if TYPE_CHECKING:
    from nucleate.evaluation.compare import Comparison


def comparison_charts(comparison: Comparison) -> list[Chart]:
    """Shares of both sets side by side with the held-out reference, one chart per family."""
    reports = (comparison.first, comparison.second)
    names = [str(report.about["crystals"]["source"]) for report in reports]
    if names[0] == names[1]:
        names = [f"{name} ({i})" for i, name in enumerate(names, 1)]
    found = []
    for family, keys in comparison.first.families.items():
        shared = [key for key in keys if key in comparison.metrics]
        metrics = [(comparison.metrics[key].first, comparison.metrics[key].second) for key in shared]
        shown = [
            (a, b) for a, b in metrics if a.unit == "share" and a.value is not None and b.value is not None
        ]
        if not shown:
            continue
        places = [float(len(shown) - 1 - i) for i in range(len(shown))]
        series = [
            share_points(name, places, [(pair[i].value, pair[i].ci95) for pair in shown])
            for i, name in enumerate(names)
        ]
        series.append(share_points(HELD_OUT, places, [(a.reference, a.reference_ci95) for a, _ in shown]))
        found.append(
            Chart(
                name=f"{family}_shares",
                title=family.capitalize(),
                subtitle="share of crystals with 95 % intervals",
                kind="intervals",
                x_label="share (%)",
                y_label="",
                series=tuple(s for s in series if s.x),
                labels=tuple(a.name.replace("_", " ") for a, _ in reversed(shown)),
            )
        )
    return found
