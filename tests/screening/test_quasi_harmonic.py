"""Thermal expansion against phonopy's own quasi-harmonic class, fed by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from phonopy import Phonopy, PhonopyQHA
from phonopy.structure.atoms import PhonopyAtoms

from nucleate.crystal import Crystal, encode
from nucleate.crystal.convert import unit_cell_from_ase
from nucleate.energetics import ASEPotential, RelaxationSettings, relax
from nucleate.errors import ConfigError, PotentialError
from nucleate.screening.fixed_volume import at_volume, relax_at_volume
from nucleate.screening.phonons import PhononSettings
from nucleate.screening.quasi_harmonic import QuasiHarmonicSettings, quasi_harmonic

SETTINGS = QuasiHarmonicSettings(
    volumes=6,
    smallest=0.97,
    largest=1.07,
    max_temperature=500.0,
    temperature_step=50.0,
    phonons=PhononSettings(min_length=7.0, screen_length=0.0, mesh_length=30.0),
)


def emt_potential() -> ASEPotential:
    return ASEPotential(EMT(), identity="emt")


def relaxed(atoms: object) -> Crystal:
    crystal = encode(unit_cell_from_ase(atoms)).crystal
    return relax([crystal], emt_potential(), settings=RelaxationSettings(fmax=1e-4))[0].crystal


def test_expansion_of_copper_is_that_of_phonopy_by_hand() -> None:
    crystal = relaxed(bulk("Cu", cubic=True, a=3.6))
    found = quasi_harmonic(crystal, emt_potential(), SETTINGS)
    edge = crystal.lattice[0, 0]
    temperatures = np.arange(0, 551, 50.0)
    volumes, energies, free, entropies, capacities = [], [], [], [], []
    for ratio in np.linspace(0.97, 1.07, 6):
        a = edge * ratio ** (1 / 3)
        phonopy = Phonopy(
            PhonopyAtoms(
                symbols=["Cu"] * 4,
                cell=a * np.eye(3),
                scaled_positions=bulk("Cu", cubic=True).get_scaled_positions(),
            ),
            supercell_matrix=2 * np.eye(3, dtype=int),
            primitive_matrix="F",
        )
        phonopy.generate_displacements(distance=SETTINGS.phonons.displacement)
        forces = []
        for cell in phonopy.supercells_with_displacements:
            atoms = bulk("Cu", cubic=True).repeat(2)
            atoms.set_cell(cell.cell)
            atoms.set_positions(cell.positions)
            atoms.calc = EMT()
            forces.append(atoms.get_forces())
        phonopy.forces = np.array(forces)
        phonopy.produce_force_constants()
        phonopy.symmetrize_force_constants()
        phonopy.run_mesh(SETTINGS.phonons.mesh_length)
        thermal = phonopy.run_thermal_properties(temperatures=temperatures, exclude_gamma_acoustic=True)
        single = bulk("Cu", a=a)
        single.calc = EMT()
        volumes.append(a**3 / 4)
        energies.append(single.get_potential_energy())
        free.append(thermal.free_energy)
        entropies.append(thermal.entropy)
        capacities.append(thermal.heat_capacity)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = PhonopyQHA(
            volumes=volumes,
            electronic_energies=energies,
            temperatures=temperatures,
            free_energy=np.transpose(free),
            cv=np.transpose(capacities),
            entropy=np.transpose(entropies),
            eos="vinet",
            t_max=500,
        )
    count = min(len(found.temperatures), len(theirs.thermal_expansion))
    assert count >= 10
    np.testing.assert_allclose(found.volume[:count], theirs.volume_temperature[:count], rtol=2e-4)
    np.testing.assert_allclose(found.gibbs_energy[:count], theirs.gibbs_temperature[:count], atol=2e-4)
    np.testing.assert_allclose(found.thermal_expansion[2:count], theirs.thermal_expansion[2:count], rtol=0.02)
    np.testing.assert_allclose(found.bulk_modulus[:count], theirs.bulk_modulus_temperature[:count], rtol=0.01)
    # copper expands, and the edge follows the volume
    assert 3e-5 < found.thermal_expansion[6] < 9e-5
    np.testing.assert_allclose(found.lattice[:, 0] ** 3 / 4, found.volume, rtol=1e-4)
    # at constant pressure the capacity is above the harmonic limit
    assert found.heat_capacity[-1] > 3 * 8.617e-5


def test_the_shape_of_the_cell_relaxes_at_a_fixed_volume_as_ase_relaxes_it() -> None:
    atoms = bulk("Cu", cubic=True, a=3.8)
    atoms.symbols[[2, 3]] = "Au"
    crystal = relaxed(atoms)
    start = at_volume(crystal, 0.93)
    found = relax_at_volume(start, emt_potential(), fmax=1e-3)
    assert found.converged
    assert found.volume == pytest.approx(
        0.93 * crystal.volume_per_atom * crystal.num_atoms_primitive, rel=1e-9
    )
    assert found.crystal.space_group_number == crystal.space_group_number
    theirs = start.to_atoms("primitive")
    theirs.calc = EMT()
    BFGS(FrechetCellFilter(theirs, constant_volume=True), logfile=None).run(fmax=1e-4, steps=200)
    assert found.energy == pytest.approx(theirs.get_potential_energy(), abs=1e-4)
    # held shape costs energy
    held = relax_at_volume(start, emt_potential(), fmax=100.0)
    assert held.energy > found.energy + 1e-4
    # what holds it there is the slope of the energy
    further = relax_at_volume(at_volume(crystal, 0.9301), emt_potential(), fmax=1e-3)
    slope = -(further.energy - found.energy) / (further.volume - found.volume) * 160.21766
    assert found.pressure == pytest.approx(slope, rel=0.02)


def test_a_crystal_that_is_no_minimum_has_no_expansion() -> None:
    crystal = encode(unit_cell_from_ase(bulk("Cu", "bcc", a=2.86, cubic=True))).crystal
    with pytest.raises(PotentialError, match="imaginary modes"):
        quasi_harmonic(crystal, emt_potential(), SETTINGS)


def test_volumes_that_miss_the_equilibrium_are_named() -> None:
    crystal = at_volume(relaxed(bulk("Cu", cubic=True, a=3.6)), 0.85)
    with pytest.raises(PotentialError, match="is not among the volumes"):
        quasi_harmonic(crystal, emt_potential(), SETTINGS)


@pytest.mark.parametrize(
    "change",
    [
        {"volumes": 4},
        {"smallest": 1.01},
        {"temperature_step": 900.0},
        {"equation_of_state": "ideal gas"},
    ],
)
def test_quasi_harmonic_settings_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        QuasiHarmonicSettings(**change)
