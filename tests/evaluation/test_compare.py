"""Two sets under one protocol: who is better, by how much, and where nobody can tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from fourteen_atoms import real_atoms

from nucleate.evaluation.compare import Comparison, compare_reports
from nucleate.evaluation.differences import holm, interval_of_difference
from nucleate.evaluation.metric import Metric
from nucleate.evaluation.report import Report
from nucleate.evaluation.run import evaluate_two
from nucleate.evaluation.statistics import mean_metric, proportion, wilson_interval


def _report(metrics: list[Metric], **columns: Any) -> Report:
    about = {
        "crystals": {"source": "set"},
        "reference": None,
        "settings": {},
        "seed": 0,
        "warnings": [],
        "sample_efficiency": {"samples": [], "curves": {}, "seconds_per_sample": None},
    }
    keys = tuple(m.name for m in metrics)
    return Report(pa.table(columns), {m.name: m for m in metrics}, {"test": keys}, {}, {}, (), None, about)


def _share(flags: np.ndarray, **changes: Any) -> Metric:
    n, hits = len(flags), int(flags.sum())
    options: dict[str, Any] = {"unit": "share", "better": "higher", "column": "ok", **changes}
    return Metric("share", hits / n, n, wilson_interval(hits, n), "p", **options)


def test_a_real_difference_is_found_and_fishers_test_agrees() -> None:
    a, b = np.arange(400) < 340, np.arange(300) < 180
    found = compare_reports(_report([_share(a)], ok=a), _report([_share(b)], ok=b))
    compared = found.metrics["share"]
    assert compared.difference is not None
    assert compared.difference.value == pytest.approx(340 / 400 - 180 / 300)
    assert compared.better == "first"
    c, d = np.arange(100) < 60, np.arange(100) < 52
    near = compare_reports(_report([_share(c)], ok=c), _report([_share(d)], ok=d))
    exact = scipy.stats.fisher_exact([[60, 40], [52, 48]]).pvalue
    assert near.metrics["share"].difference is not None
    assert near.metrics["share"].difference.p_value == pytest.approx(exact, rel=1e-9)
    assert near.metrics["share"].better == ""


def test_lower_is_better_where_the_metric_says_so(rng: np.random.Generator) -> None:
    a, b = rng.normal(0.0, 0.1, 200), rng.normal(1.0, 0.1, 200)
    metrics = [Metric("rmse", float(v.mean()), 200, None, "p", better="lower", column="d") for v in (a, b)]
    found = compare_reports(_report([metrics[0]], d=a), _report([metrics[1]], d=b))
    assert found.metrics["rmse"].better == "first"


def test_answers_to_the_same_questions_are_compared_pair_by_pair(rng: np.random.Generator) -> None:
    hard = rng.normal(0, 5, 60)
    a, b = hard + rng.normal(0.3, 0.3, 60), hard + rng.normal(0, 0.3, 60)
    order = rng.permutation(60)

    def metric(values: np.ndarray, answers: dict[Any, float] | None) -> Metric:
        return mean_metric("error", values, protocol="p", column="e", answers=answers)

    first = _report([metric(a, {f"t{i}": a[i] for i in range(60)})], e=a)
    second = _report([metric(b, {f"t{i}": b[i] for i in order})], e=b[order])
    paired = compare_reports(first, second).metrics["error"].difference
    assert paired is not None
    assert paired.paired
    assert paired.p_value is not None
    assert paired.p_value < 0.01
    fewer = metric(b, {f"t{i}": b[i] for i in range(40)})
    some = compare_reports(first, _report([fewer], e=b)).metrics["error"]
    assert some.note == "on the 40 questions both answer"
    alone = (
        compare_reports(_report([metric(a, None)], e=a), _report([metric(b, None)], e=b))
        .metrics["error"]
        .difference
    )
    assert alone is not None
    assert not alone.paired
    assert alone.p_value is not None
    assert alone.p_value > 0.3


def test_other_protocols_are_not_compared() -> None:
    a = np.arange(100) < 60
    other = _share(a)
    changed = Metric("share", 0.5, 100, None, "another threshold", column="ok")
    found = compare_reports(_report([other], ok=a), _report([changed], ok=a))
    assert found.metrics["share"].difference is None
    assert "protocols differ" in found.metrics["share"].note


def test_a_metric_of_no_column_has_an_interval_but_no_test() -> None:
    metrics = [Metric("frechet", v, 100, (v - 1, v + 1), "p", better="lower") for v in (3.0, 8.0)]
    found = compare_reports(_report([metrics[0]]), _report([metrics[1]])).metrics["frechet"]
    assert found.difference is not None
    assert found.difference.p_value is None
    assert found.difference.ci95 == pytest.approx((-5 - 2**0.5, -5 + 2**0.5))


def test_a_share_of_flags_needs_no_column() -> None:
    metrics = [proportion("stable", np.arange(200) < k, protocol="p") for k in (150, 90)]
    found = compare_reports(_report([metrics[0]]), _report([metrics[1]])).metrics["stable"]
    assert found.difference is not None
    assert found.difference.p_value is not None
    assert found.difference.p_value < 0.01
    assert found.better == "first"


def test_the_interval_of_two_shares_is_newcombes() -> None:
    # Table II of Newcombe (1998), method 10: 56/70 - 48/80 has the interval 0.0524 to 0.3339.
    ends = [wilson_interval(56, 70), wilson_interval(48, 80)]
    assert ends[0] is not None
    assert ends[1] is not None
    found = interval_of_difference(56 / 70, 48 / 80, ends[0], ends[1])
    assert found == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_holm_is_scipys_step_down_by_hand() -> None:
    # Holm (1979): the smallest of m times m, the next times m - 1, never decreasing, at most 1.
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_two_sets_end_to_end(nearest_calls: list[int], crystal_folder: Path, tmp_path: Path) -> None:
    atoms = real_atoms()
    for a in atoms:
        a.set_cell(a.cell * 1.2, scale_atoms=True)
    seen: list[str] = []
    found = evaluate_two(
        crystal_folder,
        atoms,
        out=tmp_path / "both",
        metrics=["nearest"],
        cache=tmp_path / "cache",
        on_progress=lambda p: seen.append(p.stage),
    )
    assert isinstance(found, Comparison)
    density = found.metrics["mean_density"].difference
    assert density is not None
    assert density.value > 0
    content = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert content["metrics"]["far_enough"]["difference"]["value"] == pytest.approx(14 / 16 - 1)
    assert {"first: reading", "second: nearest"} <= set(seen)
    for name in ("first", "second"):
        assert (tmp_path / "both" / name / "summary.json").exists()
    assert (tmp_path / "both" / "plots" / "nearest_shares.png").exists()
    same = compare_reports(found.first, found.first)
    assert all(c.difference is not None and c.difference.value == 0 for c in same.metrics.values())
    assert not any(c.better for c in same.metrics.values())
