"""The steps phonon and elastic: verdicts, columns and files, one crystal at a time and together."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from ase.build import bulk

from nucleate.crystal import Crystal, encode
from nucleate.crystal.convert import unit_cell_from_ase
from nucleate.errors import ConfigError
from nucleate.screening.elastic_step import Settings as ElasticSettings
from nucleate.screening.phonon_step import Settings as PhononSettings
from nucleate.screening.step import Resources, Step, StepItem, make_step

RESOURCES = Resources(potential="ase.calculators.emt:EMT")
PHONON = PhononSettings(min_length=7.0, screen_length=4.0, mesh_length=25.0, fmax=0.002)


def crystals() -> list[Crystal]:
    made = [
        bulk("Cu", cubic=True, a=3.7),
        bulk("Cu", "bcc", a=2.86, cubic=True),
        bulk("Si", cubic=True),  # which EMT does not have
        bulk("Au", cubic=True, a=4.1),
    ]
    return [encode(unit_cell_from_ase(atoms)).crystal for atoms in made]


def test_phonons_decide_who_goes_on_together_as_one_by_one() -> None:
    step = make_step("phonon", PHONON, RESOURCES)
    assert isinstance(step, Step)
    items = [StepItem(str(i), crystal) for i, crystal in enumerate(crystals())]
    together = dict(step.run_many(items))
    assert sorted(together) == [0, 1, 2, 3]
    assert [together[i].status for i in range(4)] == ["passed", "left", "failed", "passed"]
    assert "imaginary" in together[1].reason
    assert "No EMT-potential" in together[2].reason
    names = {column.name for column in step.columns}
    for place in (0, 1, 3):
        found = together[place]
        assert set(found.columns) <= names
        assert found.files["phonons.png"].startswith(b"\x89PNG")
        assert all(
            v is None or isinstance(v, (str, bool, int)) or np.isfinite(v) for v in found.columns.values()
        )
    single = step.run("gold", items[3].crystal, {})
    assert dict(together[3].columns) == pytest.approx(dict(single.columns), abs=1e-6)
    # it is the relaxed crystal that goes on
    assert together[0].crystal.lattice[0, 0] == pytest.approx(3.59, abs=0.02)
    assert together[0].columns["phonon_heat_capacity"] == pytest.approx(3 * 8.617e-5, rel=0.1)
    assert together[1].columns["phonon_lowest_frequency"] < -0.5


def test_steps_are_pickled_and_their_digests_follow_settings_and_potential() -> None:
    for name, first, second in (
        ("phonon", PHONON, PhononSettings(min_length=8.0)),
        ("elastic", ElasticSettings(), ElasticSettings(strain=0.01)),
    ):
        step = make_step(name, first, RESOURCES)
        again = pickle.loads(pickle.dumps(step))
        assert again.digest() == step.digest()
        assert make_step(name, second, RESOURCES).digest() != step.digest()
        other = Resources(potential="ase.calculators.lj:LennardJones")
        assert make_step(name, first, other).digest() != step.digest()
    # how many go in a task changes no result
    fewer = PhononSettings(min_length=7.0, screen_length=4.0, mesh_length=25.0, fmax=0.002, batch_size=1)
    assert make_step("phonon", fewer, RESOURCES).digest() == make_step("phonon", PHONON, RESOURCES).digest()


def test_elastic_constants_decide_who_goes_on() -> None:
    step = make_step("elastic", ElasticSettings(), RESOURCES)
    copper, unstable, silicon, _ = crystals()
    found = step.run("cu", copper, {})
    assert found.status == "passed"
    assert set(found.columns) <= {column.name for column in step.columns}
    assert found.columns["bulk_modulus"] == pytest.approx(134.5, abs=1)
    record = json.loads(found.files["elastic.json"])
    upper = np.array(record["tensor_gpa"])[np.triu_indices(6)]
    np.testing.assert_allclose([float(x) for x in found.columns["elastic_tensor"].split()], upper, atol=1e-3)
    out = step.run("bcc", unstable, {})
    assert out.status == "left"
    assert "C11 - C12" in out.reason
    assert "bulk_modulus" not in out.columns
    failed = step.run("si", silicon, {})
    assert failed.status == "failed"
    assert "No EMT-potential" in failed.reason


def test_a_crystal_that_does_not_come_to_rest_is_not_judged() -> None:
    crushed = encode(unit_cell_from_ase(bulk("Cu", cubic=True, a=0.3))).crystal
    for name, settings in (("phonon", PHONON), ("elastic", ElasticSettings())):
        found = make_step(name, settings, RESOURCES).run("cu", crushed, {})
        assert found.status == "failed"
        assert "not at rest before" in found.reason
        assert "atoms collide" in found.reason


def test_a_crystal_is_taken_as_it_is_where_that_is_asked() -> None:
    settings = PhononSettings(min_length=7.0, screen_length=4.0, fmax=0.0, mesh_length=25.0, draw=False)
    found = make_step("phonon", settings, RESOURCES).run("cu", crystals()[0], {})
    assert found.crystal.lattice[0, 0] == pytest.approx(3.7)
    assert found.files == {}


@pytest.mark.parametrize(
    "change", [{"fmax": -1.0}, {"batch_size": 0}, {"min_length": -3.0}, {"screen_length": 40.0}]
)
def test_settings_of_the_step_phonon_that_cannot_be_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        PhononSettings(**change)
    with pytest.raises(ConfigError):
        ElasticSettings(fmax=-1.0)
