"""Whether a predictor of a property is right, and whether its error bars are, told where the value is stated."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
from ase.io import write
from fourteen_atoms import real_atoms

from nucleate.crystal import Crystal
from nucleate.data import build_store
from nucleate.evaluation import PropertyTarget, evaluate
from nucleate.evaluation.predictor_quality import Predictions, predictor_metrics
from nucleate.evaluation.summary import summary_schema


def _predictions(rng: np.random.Generator, stated_over_true: float, n: int = 3000) -> Predictions:
    """Normal errors of known deviation, which the predictor states wrong by a factor."""
    deviation = rng.uniform(0.5, 2.0, n)
    mean = rng.normal(size=n)
    return Predictions.of(mean, mean + deviation * rng.normal(size=n), stated_over_true * deviation)


def test_error_bars_that_are_too_small_are_found(rng: np.random.Generator) -> None:
    right, small = (_predictions(rng, factor) for factor in (1.0, 0.5))
    metrics = {m.name: m for m in predictor_metrics("gap", small, right)}
    # With half the deviation the central interval of probability p holds 2 Phi(Phi^-1((1 + p)/2) / 2) - 1.
    p = np.linspace(0, 1, 20001)[1:-1]
    held = 2 * scipy.stats.norm.cdf(scipy.stats.norm.ppf((1 + p) / 2) / 2) - 1
    area = np.trapezoid(np.abs(held - p), p)
    found = metrics["gap_miscalibration"]
    assert found.value == pytest.approx(area, abs=0.01)
    assert found.ci95 is not None
    assert found.ci95[0] < area < found.ci95[1]
    assert found.reference is not None
    assert found.reference < 0.02
    assert metrics["gap_ence"].value == pytest.approx(1.0, abs=0.1)  # |s/2 - s| / (s/2)
    assert metrics["gap_ence"].reference == pytest.approx(0.0, abs=0.1)
    assert metrics["gap_predictor_mae"].value == pytest.approx(
        np.mean(np.abs(small.predicted - small.observed))
    )


def test_without_error_bars_or_values_less_is_said() -> None:
    nothing = Predictions(np.empty(0), np.empty(0), None)
    assert predictor_metrics("gap", nothing, nothing) == []
    few = Predictions.of(np.zeros(4), np.array([1.0, np.nan, 3.0, -2.0]), None)
    (mae,) = predictor_metrics("gap", few, nothing)
    assert (mae.value, mae.n, mae.reference) == (2.0, 3, None)
    barred = Predictions.of(np.zeros(4), np.ones(4), np.array([1.0, 0.0, np.nan, 2.0]))
    assert len(barred) == 2  # an error bar of 0 or none is none
    area = predictor_metrics("gap", barred, nothing)[1]
    assert area.value is None
    assert "needs 10 crystals" in area.note


def test_a_report_judges_the_predictor_on_the_set_and_on_the_reference(tmp_path: Path) -> None:
    (tmp_path / "cifs").mkdir()
    rows: list[dict[str, object]] = []
    for i, atoms in enumerate(real_atoms() * 2):
        atoms.set_cell(atoms.cell * (1 + 0.002 * i), scale_atoms=True)
        write(tmp_path / "cifs" / f"r{i:02d}.cif", atoms)
        rows.append({"id": f"r{i:02d}", "cif": (tmp_path / "cifs" / f"r{i:02d}.cif").read_text()})
        rows[-1]["room"] = atoms.get_volume() / len(atoms) + 1.0
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "stated.parquet")
    build_store(tmp_path / "stated.parquet", tmp_path / "store", fractions=(0.5, 0.0, 0.5))

    def room(crystals: list[Crystal]) -> list[float]:
        return [crystal.volume_per_atom for crystal in crystals]

    target = PropertyTarget("room", room, "Å³", uncertainty=lambda crystals: [1.0] * len(crystals))
    report = evaluate(
        tmp_path / "cifs",
        tmp_path / "store",
        metrics=["condition"],
        properties=[target],
        cache=tmp_path / "cache",
    )
    mae = report["room_predictor_mae"]
    assert mae.value is None  # the files of the set state nothing
    assert mae.reference == pytest.approx(1.0, rel=1e-3)  # every prediction is 1 too small
    assert report["room_miscalibration"].reference_n == mae.reference_n > 9
    assert report.table.column("room_deviation").to_pylist() == [1.0] * 28
    jsonschema.validate(report.to_json(), summary_schema())
