from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase.constraints import FixSymmetry
from potentials import bundled, emt, lennard_jones, rattled

from nucleate.energetics.potential import Evaluation
from nucleate.energetics.symmetric_coordinates import SymmetricCoordinates, symmetric_forces

NAMES = [
    "niti-nickel-titanium-martensite-b19",  # monoclinic, 4 lattice parameters
    "hfo2-hafnia",
    "ni4mo-nickel-molybdenum",
    "pbfcl-matlockite",
    "sio2-alpha-quartz-p3-221",
    "al4c3-aluminium-carbide",  # rhombohedral, centred
    "aln-aluminium-nitride",  # polar
    "fes2-pyrite-refined-in-p1",  # triclinic, 42 variables
    "al-aluminium",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("relax_cell", [True, False])
def test_gradient_is_that_of_finite_differences(
    name: str, relax_cell: bool, rng: np.random.Generator
) -> None:
    potential, pressure = lennard_jones(), 0.05
    crystal = rattled(bundled(name), rng)
    coordinates = SymmetricCoordinates(crystal, relax_cell=relax_cell)
    x = coordinates.vector(crystal)

    def enthalpy(vector: np.ndarray) -> float:
        moved = coordinates.crystal(vector)
        energy = potential.evaluate([moved.unit_cell("primitive")])[0].energy
        return energy + pressure * moved.volume_per_atom * moved.num_atoms_primitive

    evaluation = potential.evaluate([crystal.unit_cell("primitive")])[0]
    gradient = coordinates.gradient(crystal, evaluation, pressure=pressure)
    for direction in [*np.eye(len(x))[:4], *(rng.normal(size=(2, len(x))))]:
        step = 1e-5 * direction
        numerical = (enthalpy(x + step) - enthalpy(x - step)) / 2e-5
        assert gradient @ direction == pytest.approx(numerical, rel=1e-4, abs=1e-4)


def test_a_stress_of_the_wrong_sign_fails_that_test(rng: np.random.Generator) -> None:
    crystal = rattled(bundled("pbfcl-matlockite"), rng)
    coordinates = SymmetricCoordinates(crystal)
    evaluation = lennard_jones().evaluate([crystal.unit_cell("primitive")])[0]
    wrong = Evaluation(evaluation.energy, evaluation.forces, -evaluation.stress)
    right = coordinates.gradient(crystal, evaluation)
    assert np.abs(coordinates.gradient(crystal, wrong) - right)[: coordinates.num_lattice].max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_displacements_are_what_atoms_and_cell_do(name: str, rng: np.random.Generator) -> None:
    crystal = rattled(bundled(name), rng)
    coordinates = SymmetricCoordinates(crystal)
    x = coordinates.vector(crystal)
    step = 1e-6 * rng.normal(size=len(x))
    there = coordinates.crystal(x + step)
    moved, strain = coordinates.displacements(crystal, step)
    deformation = np.linalg.solve(crystal.lattice, there.lattice) - np.eye(3)
    np.testing.assert_allclose((deformation + deformation.T) / 2, strain, atol=1e-10)
    np.testing.assert_allclose(
        (there.image_coords() - crystal.image_coords()) @ crystal.lattice, moved, atol=1e-10
    )


def test_vector_and_crystal_are_inverse_and_keep_what_they_must() -> None:
    crystal = bundled("hfo2-hafnia")
    for relax_cell in (True, False):
        coordinates = SymmetricCoordinates(crystal, relax_cell=relax_cell)
        again = coordinates.crystal(coordinates.vector(crystal))
        for field in dataclasses.fields(crystal):
            np.testing.assert_array_equal(getattr(again, field.name), getattr(crystal, field.name))


@pytest.mark.parametrize("name", ["sio2-alpha-quartz-p3-221", "al4c3-aluminium-carbide", "hfo2-hafnia"])
def test_averaged_forces_are_those_of_ase_fix_symmetry(name: str, rng: np.random.Generator) -> None:
    crystal = bundled(name)
    cell = crystal.unit_cell("primitive")
    noisy = Evaluation(0.0, rng.normal(size=(cell.num_atoms, 3)), np.zeros((3, 3)))
    stress = rng.normal(size=(3, 3))
    noisy = dataclasses.replace(noisy, stress=stress + stress.T)
    forces, averaged = symmetric_forces(crystal, noisy)
    atoms = crystal.to_atoms("primitive")
    constraint = FixSymmetry(atoms, symprec=1e-3)
    theirs = noisy.forces.copy()
    constraint.adjust_forces(atoms, theirs)
    first = np.cumsum(crystal.multiplicities_primitive) - crystal.multiplicities_primitive
    np.testing.assert_allclose(forces, theirs[first], atol=1e-6)
    from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

    voigt = full_3x3_to_voigt_6_stress(noisy.stress)
    constraint.adjust_stress(atoms, voigt)
    np.testing.assert_allclose(averaged, voigt_6_to_full_3x3_stress(voigt), atol=1e-6)


def test_an_exact_potential_is_not_changed_by_averaging(rng: np.random.Generator) -> None:
    crystal = rattled(bundled("cu3au"), rng)
    evaluation = emt().evaluate([crystal.unit_cell("primitive")])[0]
    forces, stress = symmetric_forces(crystal, evaluation)
    first = np.cumsum(crystal.multiplicities_primitive) - crystal.multiplicities_primitive
    np.testing.assert_allclose(forces, evaluation.forces[first], atol=1e-10)
    np.testing.assert_allclose(stress, evaluation.stress, atol=1e-10)
