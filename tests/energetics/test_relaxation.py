from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from potentials import Counting, Faulty, bundled, chgnet, emt, lennard_jones, rattled

from nucleate.crystal import Crystal, UnitCell, encode
from nucleate.energetics.ase_potential import ASEPotential
from nucleate.energetics.batched_relaxation import relax, relax_stream
from nucleate.energetics.cache import ResultCache
from nucleate.energetics.potential import Evaluation
from nucleate.energetics.records import crystal_digest, relaxation_from_json, relaxation_to_json
from nucleate.energetics.relaxation import RelaxationPath, RelaxationSettings, closest_contact
from nucleate.energetics.stiffness import model_hessian
from nucleate.energetics.symmetric_coordinates import SymmetricCoordinates
from nucleate.errors import ConfigError

TIGHT = RelaxationSettings(fmax=0.005)


def p1_alloy(rng: np.random.Generator) -> Crystal:
    """Cu3Au pulled out of every symmetry."""
    cell = bundled("cu3au").unit_cell()
    coords = cell.frac_coords + 0.02 * rng.normal(size=cell.frac_coords.shape)
    strain = np.eye(3) + 0.02 * rng.normal(size=(3, 3))
    return encode(UnitCell(cell.lattice @ strain, coords, cell.atomic_numbers)).crystal


def ase_bfgs(crystal: Crystal, *, fmax: float) -> tuple[float, float, int]:
    """(energy, volume, evaluations) of ASE's relaxation from the same primitive cell."""
    atoms = crystal.to_atoms("primitive")
    atoms.calc = EMT()
    atoms.set_constraint(FixSymmetry(atoms, symprec=1e-3))
    optimiser = BFGS(FrechetCellFilter(atoms), logfile=None)
    assert optimiser.run(fmax=fmax, steps=500)
    return atoms.get_potential_energy(), atoms.get_volume(), optimiser.nsteps + 1


@pytest.mark.parametrize("name", ["cu", "cu3au", "cuau", "p1"])
def test_it_finds_what_ase_finds_in_fewer_evaluations(name: str, rng: np.random.Generator) -> None:
    crystal = p1_alloy(rng) if name == "p1" else rattled(bundled(name), rng, strain=0.04)
    result = relax([crystal], emt(), settings=TIGHT)[0]
    energy, volume, evaluations = ase_bfgs(crystal, fmax=0.005)
    assert result.converged
    assert result.reason == "converged"
    assert result.energy == pytest.approx(energy, abs=1e-3 * crystal.num_atoms_primitive)
    assert result.crystal.volume_per_atom * crystal.num_atoms_primitive == pytest.approx(volume, rel=5e-3)
    assert result.evaluations <= evaluations + 2
    assert result.energy < result.initial_energy
    assert max(result.max_force, result.max_cell_force) < 0.005


def test_group_and_positions_stay_exactly(rng: np.random.Generator) -> None:
    crystal = rattled(bundled("hfo2-hafnia"), rng)
    result = relax([crystal], lennard_jones(), settings=TIGHT)[0].crystal
    assert result.space_group_number == crystal.space_group_number
    np.testing.assert_array_equal(result.wyckoff_indices, crystal.wyckoff_indices)
    np.testing.assert_array_equal(result.atomic_numbers, crystal.atomic_numbers)


def test_free_coordinates_that_become_special_are_said(rng: np.random.Generator) -> None:
    # a low group relaxes to a more symmetric place; its description stays, and what it became is named
    cell = bundled("cuau").unit_cell()
    coords = cell.frac_coords + 0.01 * rng.normal(size=cell.frac_coords.shape)
    crystal = encode(UnitCell(cell.lattice, coords, cell.atomic_numbers)).crystal
    assert crystal.space_group_number < 10
    settings = RelaxationSettings(fmax=0.001, symprec=0.02)
    result = relax([crystal], emt(), settings=settings)[0]
    assert result.converged
    assert result.crystal.space_group_number == crystal.space_group_number
    assert result.space_group_found == 123
    assert result.has_higher_symmetry


def test_pressure_is_the_slope_of_the_energy(rng: np.random.Generator) -> None:
    crystal = bundled("cu")
    free, pressed = (
        relax([crystal], emt(), settings=RelaxationSettings(fmax=1e-4, pressure=p))[0] for p in (0.0, 10.0)
    )
    assert pressed.volume_change < free.volume_change
    stress = emt().evaluate([pressed.crystal.unit_cell("primitive")])[0].stress
    np.testing.assert_allclose(stress * 160.21766208, -10.0 * np.eye(3), atol=0.01)
    assert pressed.energy > free.energy


def test_a_held_cell_is_held(rng: np.random.Generator) -> None:
    crystal = p1_alloy(rng)
    result = relax([crystal], emt(), settings=RelaxationSettings(fmax=0.01, relax_cell=False))[0]
    assert result.converged
    np.testing.assert_array_equal(result.crystal.lattice_params, crystal.lattice_params)
    assert result.max_cell_force == 0.0
    fixed = relax([bundled("cu")], emt(), settings=RelaxationSettings(relax_cell=False))[0]
    assert fixed.converged
    assert fixed.evaluations == 1


def test_many_share_calls_and_none_depends_on_the_others(rng: np.random.Generator) -> None:
    crystals = [rattled(bundled(name), rng) for name in ("cu", "cu3au", "cuau", "ni")] + [p1_alloy(rng)]
    potential = Counting(emt())
    together = relax(crystals, potential, settings=TIGHT)
    alone = [relax([c], emt(), settings=TIGHT)[0] for c in crystals]
    assert potential.cells == sum(r.evaluations for r in together)
    assert potential.calls == max(r.evaluations for r in together)
    for a, b in zip(together, alone):
        assert a.evaluations == b.evaluations
        assert a.energy == pytest.approx(b.energy, abs=1e-10)


def test_a_stream_is_read_only_as_far_as_there_is_room(rng: np.random.Generator) -> None:
    read = []

    def source():
        for index in range(20):
            read.append(index)
            yield rattled(bundled("cu"), rng)

    stream = relax_stream(source(), emt(), batch_atoms=3)
    next(stream)
    assert len(read) < 8
    assert (
        sorted(index for index, _ in stream) == [i for i in range(20) if i not in read[:1]] or len(read) == 20
    )


@pytest.mark.parametrize("how", ["raise", "nan"])
def test_a_failing_potential_stops_only_its_crystal(how: str, rng: np.random.Generator) -> None:
    crystals = [rattled(bundled(name), rng) for name in ("cu", "pt-platinum", "ni")]
    results = relax(crystals, Faulty(emt(), element=78, how=how))
    assert [r.converged for r in results] == [True, False, True]
    assert "potential failed" in results[1].reason
    assert np.isnan(results[1].energy)
    assert results[1].space_group_found is None


def test_an_exploding_crystal_is_flagged_and_stalls_nobody(rng: np.random.Generator) -> None:
    class Repulsion:
        name = identity = "repulsion"
        corrections = "none"

        def evaluate(self, cells):
            results = []
            for cell, truth in zip(cells, emt().evaluate(cells)):
                if (cell.atomic_numbers == 28).any():  # everything flies apart
                    truth = Evaluation(-cell.volume, np.zeros((cell.num_atoms, 3)), -np.eye(3))
                results.append(truth)
            return results

    results = relax([bundled("ni"), rattled(bundled("cu"), rng)], Repulsion())
    assert not results[0].converged
    assert "exploded" in results[0].reason
    assert results[0].evaluations < 60
    assert results[1].converged


def test_collapsed_orbits_and_colliding_atoms_never_reach_the_potential() -> None:
    pyrite = bundled("fes2-pyrite")
    for free, word in ((0.0, "collapsed"), (0.49, "collide")):
        free_coords = np.where(pyrite.free_coords != 0, free, 0.0)
        crystal = dataclasses.replace(pyrite, free_coords=free_coords)
        potential = Counting(lennard_jones())
        result = relax([crystal], potential)[0]
        assert not result.converged
        assert word in result.reason
        assert potential.cells == 0
        assert result.evaluations == 0


def test_atoms_that_begin_too_near_move_apart() -> None:
    # generated crystals often start like this: forces of 40 eV/Å and contacts no real crystal has
    cell = bundled("cu3au").unit_cell()
    coords = cell.frac_coords.copy()
    first, second = 1, 2
    toward = (coords[second] - coords[first] + 0.5) % 1 - 0.5
    coords[first] += 0.62 * toward
    crystal = encode(UnitCell(cell.lattice, coords, cell.atomic_numbers)).crystal
    assert closest_contact(crystal).ratio < 0.5
    result = relax([crystal], emt(), settings=RelaxationSettings(fmax=0.02))[0]
    assert result.converged
    assert closest_contact(result.crystal).ratio > 0.9
    assert result.initial_max_force > 10


def test_a_step_the_potential_cannot_take_is_shortened(rng: np.random.Generator) -> None:
    class Narrow(Counting):
        """Fails where copper is compressed below its start: the first long step lands there."""

        failures = 0

        def evaluate(self, cells):
            results = super().evaluate(cells)
            for i, cell in enumerate(cells):
                if cell.volume / cell.num_atoms < 11.3:
                    self.failures += 1
                    results[i] = Evaluation.failed(cell, "outside my range")
            return results

    crystal = rattled(bundled("cu"), rng, strain=0.0)
    stretched = dataclasses.replace(crystal, lattice_params=crystal.lattice_params + 0.12)
    potential = Narrow(emt())
    path = RelaxationPath(stretched, TIGHT)
    while path.pending is not None:
        path.observe(potential.evaluate([path.pending.unit_cell("primitive")])[0])
    assert path.result().converged


def test_too_few_evaluations_are_said(rng: np.random.Generator) -> None:
    result = relax([p1_alloy(rng)], emt(), settings=RelaxationSettings(fmax=1e-3, max_evaluations=3))[0]
    assert not result.converged
    assert "not converged after 3 evaluations" in result.reason
    assert result.evaluations == 3
    assert result.energy <= result.initial_energy


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, rng: np.random.Generator) -> None:
    crystals = [rattled(bundled(name), rng) for name in ("cu", "cu3au", "cuau", "ni")]
    stream = relax_stream(crystals, emt(), cache=ResultCache(tmp_path), batch_atoms=1)
    first = dict(next(stream) for _ in range(2))
    stream.close()
    potential = Counting(emt())
    again = relax(crystals, potential, cache=ResultCache(tmp_path), batch_atoms=1)
    assert potential.cells == sum(r.evaluations for i, r in enumerate(again) if i not in first)
    for index, relaxation in first.items():
        assert relaxation_to_json(again[index]) == relaxation_to_json(relaxation)
    repeated = Counting(emt())
    relax(crystals, repeated, cache=ResultCache(tmp_path))
    assert repeated.cells == 0


def test_other_settings_potentials_and_crystals_have_other_keys(tmp_path: Path) -> None:
    cache, potential = ResultCache(tmp_path), Counting(emt())
    relax([bundled("cu")], potential, cache=cache)
    known = potential.cells
    relax([bundled("cu")], potential, cache=cache, settings=RelaxationSettings(fmax=0.02))
    assert potential.cells > known
    known = potential.cells
    relax([bundled("cu")], Counting(ASEPotential(EMT(), identity="another")), cache=cache)
    cu = bundled("cu")
    nudged = dataclasses.replace(cu, lattice_params=np.nextafter(cu.lattice_params, 1.0))
    assert crystal_digest(nudged) != crystal_digest(cu)
    assert crystal_digest(dataclasses.replace(cu)) == crystal_digest(cu)
    assert len(cache) == 3


def test_failed_relaxations_come_back_from_json_too() -> None:
    result = relax([bundled("po-alpha-polonium")], emt())[0]
    again = relaxation_from_json(relaxation_to_json(result))
    assert again.reason == result.reason
    assert np.isnan(again.energy)
    assert crystal_digest(again.crystal) == crystal_digest(result.crystal)


@pytest.mark.parametrize("name", ["hfo2-hafnia", "hg-alpha-mercury", "fes2-pyrite-refined-in-p1"])
def test_the_model_of_the_stiffness_is_positive_and_symmetric(name: str) -> None:
    crystal = bundled(name)
    hessian = model_hessian(SymmetricCoordinates(crystal), crystal)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-8)
    assert np.linalg.eigvalsh(hessian).min() > 0


def test_the_model_knows_nothing_of_origins(rng: np.random.Generator) -> None:
    # springs do not feel a shift of a polar crystal along its axis, only the floor does
    from nucleate.energetics.stiffness import SpringNetwork

    crystal = bundled("aln-aluminium-nitride")
    coordinates = SymmetricCoordinates(crystal)
    shift = np.zeros(coordinates.num_variables)
    shift[coordinates.num_lattice :] = 1.0
    hessian = SpringNetwork(coordinates, crystal).hessian()
    assert abs(shift @ hessian @ shift) < 1e-8 * np.abs(hessian).max()


def test_settings_that_cannot_be_are_refused() -> None:
    for options in (
        {"fmax": 0.0},
        {"fmax": float("nan")},
        {"max_evaluations": 0},
        {"pressure": float("inf")},
    ):
        with pytest.raises(ConfigError):
            RelaxationSettings(**options)


@pytest.mark.parametrize("name", ["nacl-rock-salt", "aln-aluminium-nitride"])
def test_chgnet_relaxes_as_its_own_optimiser_does(name: str, rng: np.random.Generator) -> None:
    from chgnet.model import StructOptimizer

    crystal = rattled(bundled(name), rng)
    result = relax([crystal], chgnet(), settings=RelaxationSettings(fmax=0.01))[0]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model = copy.deepcopy(chgnet()._model)  # the optimiser sets options on the model it is given
        optimiser = StructOptimizer(model=model, use_device="cpu", on_isolated_atoms="ignore")
        theirs = optimiser.relax(
            crystal.to_structure("primitive"), fmax=0.01, verbose=False, assign_magmoms=False
        )
    assert result.converged
    energy = theirs["trajectory"].energies[-1] / crystal.num_atoms_primitive
    assert result.energy_per_atom == pytest.approx(energy, abs=1e-3)
    assert result.evaluations < len(theirs["trajectory"].energies) / 2
