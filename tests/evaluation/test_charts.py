"""The numbers behind the drawings, the drawings themselves, and none where nothing was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pyarrow as pa
import pytest

from nucleate.evaluation.chart import HELD_OUT, OURS, Chart
from nucleate.evaluation.charts import charts_of
from nucleate.evaluation.drawings import write_drawings
from nucleate.evaluation.interactive import figure, page
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.report import Report
from nucleate.evaluation.statistics import wilson_interval


@pytest.fixture
def report(rng: np.random.Generator) -> Report:
    """Forty crystals that ran through every family, and thirty of a held-out sample."""

    def columns(n: int) -> dict[str, Any]:
        return {
            "space_group_number": pa.array([225, 62, None, 1] * (n // 4) + [14] * (n % 4), type=pa.int16()),
            "density": rng.normal(5, 1, n),
            "num_elements": rng.integers(1, 5, n),
            "num_atoms_primitive": rng.integers(1, 20, n),
            "energy_above_hull": pa.array([0.0, 0.05, None, 0.2] * (n // 4) + [0.6] * (n % 4)),
        }

    ours = columns(40)
    ours |= {
        "csp_target": ["t1", "t1", "t2", "t2", "t3", "t3", None, None] * 5,
        "csp_sample": pa.array([0, 1, 0, 1, 0, 1, None, None] * 5, type=pa.int32()),
        "csp_match": pa.array([False, True, True, True, False, False, None, None] * 5),
        "csp_target_atoms": pa.array([2, 2, 6, 6, 60, 60, None, None] * 5, type=pa.int32()),
        "csp_target_free_coords": pa.array([0, 0, 4, 4, 30, 30, None, None] * 5, type=pa.int32()),
        "csp_target_system": pa.array(["cubic", "cubic", *["monoclinic"] * 4, None, None] * 5),
    }
    shares = [
        Metric("structural_validity", 0.9, 40, (0.77, 0.96), "p", "share", reference=1.0, reference_n=30),
        Metric("uniqueness", 0.5, 40, (0.35, 0.65), "p", "share"),
        Metric("mean", 3.0, 40, None, "p", "g/cm³"),
        Metric("nothing", None, 0, None, "p", "share"),
    ]
    about = {
        "crystals": {"source": "forty"},
        "sample_efficiency": {
            "samples": [1, 10, 40],
            "curves": {"unique": [1.0, 9.0, 30.0]},
            "seconds_per_sample": 2.0,
        },
    }
    families = {"validity": ("structural_validity", "uniqueness", "mean", "nothing")}
    families |= dict.fromkeys(("symmetry", "distribution", "stability", "csp"), ())
    metrics = {m.name: m for m in shares}
    return Report(pa.table(ours), metrics, families, {}, {}, (), pa.table(columns(30)), about)


def _chart(report: Report, name: str) -> Chart:
    return next(chart for chart in charts_of(report) if chart.name == name)


def test_shares_stand_beside_the_held_out_sample(report: Report) -> None:
    chart = _chart(report, "validity_shares")
    assert chart.labels == ("uniqueness", "structural validity")
    ours, theirs = chart.series
    assert (ours.name, ours.y, ours.x) == (OURS, (90.0, 50.0), (1.0, 0.0))
    assert (ours.low, ours.high) == (pytest.approx((77, 35)), pytest.approx((96, 65)))
    assert (theirs.name, theirs.y, theirs.x) == (HELD_OUT, (100.0,), (1.0,))


def test_distributions_are_shares_of_the_crystals(report: Report) -> None:
    groups = _chart(report, "space_groups").series[0]
    assert groups.y[224] == pytest.approx(100 / 3)
    assert sum(groups.y) == pytest.approx(100)
    elements = _chart(report, "num_elements")
    expected = np.bincount(report.table.column("num_elements").to_numpy(), minlength=5)[1:5] / 0.4
    assert elements.series[0].y[:4] == pytest.approx(tuple(expected))
    for series in _chart(report, "density").series:
        assert len(series.x) == len(series.y) + 1


def test_what_has_no_energy_never_enters_the_cumulative_curve(report: Report) -> None:
    chart = _chart(report, "energy_above_hull")
    ours = chart.series[0]
    at = dict(zip(np.round(ours.x, 6), ours.y))
    assert at[-0.0025] == 0
    assert at[0.1] == pytest.approx(50)
    assert ours.y[-1] == pytest.approx(75)  # ten of forty have no energy
    assert "energies for 30 of 40" in chart.subtitle


def test_matches_by_kind_count_each_test_structure_once(report: Report) -> None:
    chart = _chart(report, "csp_strata")
    first, best = chart.series
    assert best.name == "best of 10"
    shares = {label: (a, b) for label, a, b in zip(reversed(chart.labels), first.y, best.y)}
    assert shares["all (n = 3)"] == pytest.approx((100 / 3, 200 / 3))
    assert shares["1 to 5 atoms (n = 1)"] == pytest.approx((0, 100))
    assert shares["53 or more atoms (n = 1)"] == pytest.approx((0, 0))
    assert shares["monoclinic (n = 2)"] == pytest.approx((50, 50))
    expected = wilson_interval(1, 3)
    assert expected is not None
    assert (first.low[0], first.high[0]) == pytest.approx((100 * expected[0], 100 * expected[1]))


def test_curves_also_stand_against_seconds(report: Report) -> None:
    compute = _chart(report, "compute_efficiency").series[0]
    assert (compute.x, compute.y) == ((2.0, 20.0, 80.0), (1.0, 9.0, 30.0))
    assert _chart(report, "sample_efficiency").series[0].y == pytest.approx((100.0, 90.0, 75.0))


def test_families_that_did_not_run_have_no_drawing(report: Report) -> None:
    about = {**report.about, "sample_efficiency": {"samples": [], "curves": {}, "seconds_per_sample": None}}
    bare = Report(report.table, {}, {}, {}, {}, (), None, about)
    assert charts_of(bare) == []


def test_every_chart_is_drawn_and_stale_ones_go(report: Report, tmp_path: Path) -> None:
    (tmp_path / "of_an_earlier_report.png").write_bytes(b"old")
    charts = charts_of(report)
    names = {path.name for path in write_drawings(charts, tmp_path, title="forty")}
    assert names == {f"{chart.name}.png" for chart in charts} | {"interactive.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    for chart in charts:
        pixels = matplotlib.image.imread(tmp_path / f"{chart.name}.png")
        assert pixels.shape[1] == 1500
        assert pixels[..., :3].std() > 0.02  # something is drawn
    assert write_drawings([], tmp_path, title="nothing") == []
    assert list(tmp_path.iterdir()) == []


def test_the_interactive_charts_show_the_same_numbers(report: Report) -> None:
    for chart in charts_of(report):
        drawn = figure(chart)
        assert len(drawn.data) == len(chart.series)
        for trace, series in zip(drawn.data, chart.series):
            values = trace.x if chart.kind == "intervals" else trace.y
            np.testing.assert_allclose(np.abs(np.asarray(values, dtype=float)), np.abs(series.y))
    text = page(charts_of(report), title="<b>forty</b>")
    assert "<h1>&lt;b&gt;forty&lt;/b&gt;</h1>" in text
    assert text.count("Plotly.newPlot(") >= len(charts_of(report))
