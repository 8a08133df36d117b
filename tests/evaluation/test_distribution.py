"""The family ``distribution`` on small sets: every average against a direct computation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ase.build import bulk
from ase.io import write
from scipy.stats import wasserstein_distance

from nucleate.data import Store, build_store
from nucleate.evaluation.candidate_store import CandidateStore
from nucleate.evaluation.context import Context
from nucleate.evaluation.distribution import family, table_fingerprints
from nucleate.evaluation.distribution_reference import element_presence, part_numbers, sample_rows
from nucleate.evaluation.family import MetricFamily, load_family
from nucleate.evaluation.fingerprints import structure_fingerprint
from nucleate.evaluation.reading import store_candidates
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.scoring import Score, score
from nucleate.evaluation.settings import Settings
from nucleate.evaluation.workers import Workers

SETTINGS = Settings(resamples=100)


@pytest.fixture(scope="module")
def stored(crystal_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> CandidateStore:
    folder = tmp_path_factory.mktemp("distribution")
    return store_candidates(crystal_folder, str(folder / "candidates")).candidates


def _score(candidates: CandidateStore, folder: Path, store: Store | None) -> Score:
    return score(
        candidates,
        ["distribution"],
        folder=folder / "work",
        settings=SETTINGS,
        seed=0,
        reference=None if store is None else Reference.open(store.location, folder / "cache"),
        cache_folder=folder / "cache",
        workers=Workers(1),
    )


@pytest.fixture(scope="module")
def scored(stored: CandidateStore, reference_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Score:
    return _score(stored, tmp_path_factory.mktemp("scored"), reference_store)


def test_it_is_a_family():
    assert isinstance(load_family("distribution"), MetricFamily)


def test_wasserstein_distances_are_those_of_scipy(scored: Score, reference_store: Store):
    assert not scored.problems
    metrics = {metric.name: metric for metric in scored.metrics["distribution"]}
    held_out = [record.crystal for record in reference_store.iter_records(split="test")]
    own = [v for v in scored.table.column("density").to_pylist() if v is not None]
    assert metrics["w_density"].value == pytest.approx(
        wasserstein_distance(own, [c.density for c in held_out])
    )
    assert metrics["w_density"].n == len(own) == 14
    assert "2 crystals have no value" in metrics["w_density"].note
    train = [record.crystal.density for record in reference_store.iter_records(split="train")]
    ceiling = metrics["w_density"]
    assert ceiling.reference_n == min(16, len(train))
    chosen = np.array(train)[sample_rows(len(train), 16, seed=0)]
    assert ceiling.reference == pytest.approx(wasserstein_distance(chosen, [c.density for c in held_out]))
    elements = [len(c.composition) for c in held_out]
    assert metrics["w_num_elements"].value == pytest.approx(
        wasserstein_distance([1] * 12 + [2] * 2, elements)
    )
    # What a comparison of two sets resamples gives the same number.
    assert metrics["w_density"].statistic(np.array(own)) == pytest.approx(metrics["w_density"].value)
    low, high = metrics["w_density"].ci95
    assert low <= metrics["w_density"].value <= high


def test_unreadable_crystals_count_against_precision(scored: Score):
    metrics = {metric.name: metric for metric in scored.metrics["distribution"]}
    near = scored.table.column("near_reference").to_pylist()
    assert metrics["cov_precision"].n == len(near) == 16
    assert metrics["cov_precision"].value == pytest.approx(sum(near) / 16)
    unreadable = [not read for read in scored.table.column("is_read").to_pylist()]
    assert not any(value for value, bad in zip(near, unreadable) if bad)
    # Strained copies of the same crystals: the whole reference is reached.
    assert sum(near) >= 8
    assert metrics["cov_recall"].value == 1.0


def test_rows_hold_the_fingerprints(scored: Score, stored: CandidateStore):
    structure, composition = table_fingerprints(scored.table)
    assert np.allclose(structure[3], structure_fingerprint(stored[3].crystal), atol=1e-6)
    assert composition.shape == (16, 132)
    assert np.isnan(structure[14]).all()


def test_kinds_and_features(scored: Score, reference_store: Store):
    metrics = {metric.name: metric for metric in scored.metrics["distribution"]}
    wanted = {z for r in reference_store.iter_records(split="test") for z in r.crystal.composition}
    own = {z for row in scored.table.column("elements").to_pylist() if row for z in row}
    assert metrics["element_coverage"].value == pytest.approx(len(wanted & own) / len(wanted))
    assert 1 < metrics["effective_space_groups"].value < 14
    # An fcc metal is one prototype whatever the element: far fewer than 14.
    assert metrics["effective_prototypes"].value < 9
    assert 1 < metrics["vendi_structure"].value < 14
    assert metrics["frechet_structure"].value > metrics["frechet_structure_extrapolated"].value
    assert metrics["frechet_structure"].reference_n > 0


def test_without_a_reference_there_is_diversity_and_a_reason(stored: CandidateStore, tmp_path: Path):
    result = _score(stored, tmp_path, None)
    assert not result.problems
    metrics = {metric.name: metric for metric in result.metrics["distribution"]}
    assert metrics["cov_recall"].value is None
    assert "--reference" in metrics["w_density"].note
    assert metrics["effective_elements"].value > 5
    assert metrics["structure_diversity"].reference is None


def test_valid_crystals_alone_where_validity_is_known(scored: Score, reference_store: Store, tmp_path: Path):
    keep = [row < 5 for row in range(16)]
    table = scored.table.append_column("structurally_valid", pa.array(keep)).append_column(
        "compositionally_valid", pa.array([True] * 15 + [None])
    )
    context = Context(Reference.open(reference_store.location, tmp_path), SETTINGS, cache=tmp_path)
    metrics = {metric.name: metric for metric in family().summary(table, context)}
    assert metrics["w_density_valid"].n == 5
    assert metrics["w_density"].n == 14


def test_sources_are_compared_one_by_one(
    stored: CandidateStore, reference_store: Store, tmp_path: Path, monkeypatch
):
    from nucleate.evaluation import distribution_metrics

    context = Context(Reference.open(reference_store.location, tmp_path), SETTINGS, cache=tmp_path)
    numbers = part_numbers(context, "held_out")
    assert len(numbers.sources) == 1
    half = np.arange(len(numbers)) % 2
    mixed = replace(numbers, source=np.where(half, "a", "b"))
    monkeypatch.setattr(distribution_metrics, "part_numbers", lambda *args, **options: mixed)
    monkeypatch.setattr(distribution_metrics, "FEW_OF_A_SOURCE", 1)
    metrics = {m.name: m for m in distribution_metrics.number_metrics(stored.base_table(), context)}
    own = [v for v in stored.base_table().column("density").to_pylist() if v is not None]
    assert metrics["w_density@a"].value == pytest.approx(
        wasserstein_distance(own, numbers.density[half == 1])
    )
    assert metrics["w_density@a"].reference == 0.0


def test_properties_that_both_sides_state_are_compared(stored: CandidateStore, tmp_path: Path):
    from nucleate.evaluation.distribution_metrics import number_metrics

    energies = [-0.5 * i for i in range(10)]
    atoms = [bulk("Cu") for _ in energies]
    for one, energy in zip(atoms, energies):
        one.info["energy_per_atom"] = energy
        one.info["label"] = "x"
    write(tmp_path / "set.extxyz", atoms, format="extxyz")
    build_store(tmp_path / "set.extxyz", tmp_path / "store", fractions=(0.5, 0.0, 0.5))
    reference = Reference.open(tmp_path / "store", tmp_path)
    values = [1.0] * 14 + [None, None]
    table = stored.base_table().append_column("given.energy_per_atom", pa.array(values))
    table = table.append_column("given.label", pa.array(["x"] * 16))
    metrics = {m.name: m for m in number_metrics(table, Context(reference, SETTINGS, cache=tmp_path))}
    assert set(metrics) == {"w_density", "w_num_elements", "w_num_atoms", "w_energy_per_atom"}
    held_out = [r.properties["energy_per_atom"] for r in reference.held_out]
    assert metrics["w_energy_per_atom"].value == pytest.approx(1.0 - np.mean(held_out))
    assert metrics["w_energy_per_atom"].n == 14


def test_presence_of_elements():
    column = pa.chunked_array(
        [pa.array([[1, 8, 8], None], pa.list_(pa.uint8())), pa.array([[118]], pa.list_(pa.uint8()))]
    )
    present = element_presence(column.slice(0, 3))
    assert [np.flatnonzero(row).tolist() for row in present] == [[0, 7], [], [117]]
    assert np.array_equal(element_presence(column.slice(1, 2)), present[1:])
