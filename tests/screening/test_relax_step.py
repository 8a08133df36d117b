"""The step ``relax``: symmetry that survives and symmetry that does not, pressure, explosions, what goes on."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from faulty_emt import metals

from nucleate.crystal import Crystal
from nucleate.energetics.potential import GPA
from nucleate.errors import ConfigError
from nucleate.screening.relax_step import Settings, make_step
from nucleate.screening.step import Resources, StepItem, StepResult
from nucleate.screening.symmetry_survival import displaced, group_at

EMT_RESOURCES = Resources(potential="ase.calculators.emt:EMT")


def _relaxed(crystal: Crystal, **settings: object) -> StepResult:
    return make_step(Settings(**settings), EMT_RESOURCES).run("x", crystal, {})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def body_centred_copper() -> Crystal:
    """A maximum of EMT's energy along Bain's path: held in place by symmetry alone."""
    return Crystal.from_structure(bulk("Cu", "bcc", a=2.88)).crystal


def test_a_displaced_crystal_has_no_symmetry_left_and_is_the_same_every_time() -> None:
    (crystal,) = metals("Cu-Au")
    moved = displaced(crystal, displacement=0.05, strain=0.02)
    assert moved.space_group_number == 1
    assert moved.composition == crystal.composition
    assert group_at(moved, 0.001) in (1, 2)  # few atoms keep an inversion whatever is done to them
    assert group_at(moved, 0.5) == group_at(crystal, 0.01)
    again = displaced(crystal, displacement=0.05, strain=0.02)
    assert np.array_equal(moved.free_coords, again.free_coords)


def test_face_centred_copper_keeps_its_group() -> None:
    result = _relaxed(metals("Cu")[0])
    assert result.status == "passed"
    assert result.columns["symmetry_survived"] is True
    assert abs(float(result.columns["symmetry_energy_change"] or 0)) < 1e-4
    assert result.columns["symmetry_check"] == "225 at 0.01 Å, 225 at 0.05 Å, 225 at 0.1 Å"


def test_body_centred_copper_does_not(body_centred_copper: Crystal) -> None:
    flagged = _relaxed(body_centred_copper)
    assert flagged.columns["symmetry_survived"] is False
    assert float(flagged.columns["symmetry_energy_change"] or 0) < -0.005
    assert flagged.crystal.space_group_number == 229  # kept, and said
    out = _relaxed(body_centred_copper, broken="leave")
    assert out.status == "left"
    assert "229 to " in out.reason
    followed = _relaxed(body_centred_copper, broken="follow")
    assert followed.status == "passed"
    assert group_at(followed.crystal, 0.05) == 225  # Bain's path ends in the face-centred cell
    energy = float(followed.columns["energy_per_atom"] or 0)
    assert energy == pytest.approx(float(_relaxed(metals("Cu")[0]).columns["energy_per_atom"] or 0), abs=1e-3)


def test_under_pressure_the_cell_is_where_ases_stress_is_that_pressure() -> None:
    pressure = 10.0
    result = _relaxed(metals("Cu")[0], pressure=pressure, fmax=1e-4, check=False)
    atoms = result.crystal.to_atoms("primitive")
    atoms.calc = EMT()
    stress = atoms.get_stress(voigt=False)
    assert np.allclose(stress, -pressure * GPA * np.eye(3), atol=2e-4)
    enthalpy = float(result.columns["energy_per_atom"] or 0) + pressure * GPA * atoms.get_volume()
    assert result.columns["enthalpy_per_atom"] == pytest.approx(enthalpy)


def test_what_collides_or_does_not_converge_leaves_with_numbers_and_stops_no_other() -> None:
    crowded = Crystal.from_structure(bulk("Cu", "fcc", a=0.5)).crystal
    step = make_step(Settings(max_evaluations=2, fmax=1e-5), EMT_RESOURCES)
    (short,) = metals("Cu-Au", strain=0.04)
    items = [StepItem("crowded", crowded), StepItem("short", short)]
    found = {items[place].candidate_id: result for place, result in step.run_many(items)}
    assert found["crowded"].status == "left"
    assert "atoms collide: Cu and Cu are 0.354 Å apart" in found["crowded"].reason
    assert found["short"].reason.startswith("not converged after 2 evaluations")


def test_an_element_the_potential_does_not_know_is_a_failure() -> None:
    result = _relaxed(Crystal.from_structure(bulk("Si")).crystal)
    assert result.status == "failed"
    assert "EMT" in result.reason


@pytest.mark.parametrize(
    "setting", [{"broken": "ignore"}, {"symprecs": ()}, {"displacement": 0.0}, {"fmax": -1.0}]
)
def test_settings_that_cannot_be_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Settings(**setting)  # type: ignore[arg-type]
