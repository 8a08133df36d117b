from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase.calculators.emt import EMT
from potentials import Counting, Faulty, bundled, chgnet, emt, rattled

from nucleate.crystal import UnitCell
from nucleate.energetics.named_potentials import load_potential
from nucleate.energetics.potential import GPA, Evaluation, Potential, evaluate_each
from nucleate.errors import PotentialError


def cells_of(*names: str) -> list[UnitCell]:
    return [bundled(name).unit_cell("primitive") for name in names]


def test_ase_potential_gives_what_the_calculator_gives(rng: np.random.Generator) -> None:
    crystal = rattled(bundled("cu"), rng)
    result = emt().evaluate([crystal.unit_cell("primitive")])[0]
    atoms = crystal.to_atoms("primitive")
    atoms.calc = EMT()
    assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    np.testing.assert_allclose(result.forces, atoms.get_forces(), atol=1e-12)
    np.testing.assert_allclose(result.stress, atoms.get_stress(voigt=False), atol=1e-12)


def test_chgnet_equals_its_own_predictions_one_by_one(rng: np.random.Generator) -> None:
    from nucleate.crystal.convert import unit_cell_to_pymatgen

    names = ["nacl-rock-salt", "aln-aluminium-nitride", "tio2-rutile"]
    cells = [rattled(bundled(name), rng).unit_cell("primitive") for name in names]
    results = chgnet().evaluate(cells)
    for cell, result in zip(cells, results):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = chgnet()._model.predict_structure(unit_cell_to_pymatgen(cell))
        assert result.energy == pytest.approx(float(theirs["e"]) * cell.num_atoms, abs=1e-4)
        np.testing.assert_allclose(result.forces, theirs["f"], atol=2e-4)
        np.testing.assert_allclose(result.stress / GPA, theirs["s"], atol=2e-3)
        assert np.abs(result.forces).max() > 0.01 or cell.num_atoms == 2


def test_chgnet_names_elements_it_never_saw() -> None:
    results = chgnet().evaluate(cells_of("po-alpha-polonium", "cu"))
    assert "84" in results[0].problem
    assert np.isnan(results[0].energy)
    assert not results[1].problem


def test_an_atom_alone_is_named_and_takes_no_other_with_it() -> None:
    alone = UnitCell(10.0 * np.eye(3), np.zeros((1, 3)), np.array([29]))
    good = cells_of("cu", "al-aluminium")
    results = evaluate_each(chgnet(), [good[0], alone, good[1]])
    assert [bool(r.problem) for r in results] == [False, True, False]
    assert "isolated" in results[1].problem


@pytest.mark.parametrize("how", ["raise", "nan"])
def test_one_bad_cell_of_many_is_found(how: str) -> None:
    cells = cells_of("cu", "al-aluminium", "pt-platinum", "cu", "ni")
    potential = Faulty(emt(), element=78, how=how)
    results = evaluate_each(potential, cells)
    assert [bool(r.problem) for r in results] == [False, False, True, False, False]
    assert results[3].energy == results[0].energy


def test_batches_hold_their_atoms_and_large_cells_go_alone() -> None:
    potential = Counting(emt())
    cells = cells_of(*["cu"] * 5, "cu3au", "cu")
    assert len(evaluate_each(potential, cells, batch_atoms=2)) == 7
    assert potential.calls == 5  # 2 + 2 + 1 | 4 alone | 1
    assert potential.cells == 7


def test_wrong_shapes_and_counts_are_refused() -> None:
    class Short(Counting):
        def evaluate(self, cells):
            return [Evaluation(0.0, np.zeros((7, 3)), np.zeros((3, 3)))]

    assert "shapes" in evaluate_each(Short(emt()), cells_of("cu"))[0].problem
    with pytest.raises(PotentialError, match="1 evaluations for 2 cells"):
        evaluate_each(Short(emt()), cells_of("cu", "cu"))


def test_potentials_by_name() -> None:
    potential = load_potential("ase.calculators.emt:EMT")
    assert isinstance(potential, Potential)
    assert "ase" in potential.identity
    assert potential.identity != load_potential("ase.calculators.lj:LennardJones").identity
    cell = cells_of("cu")
    assert potential.evaluate(cell)[0].energy == emt().evaluate(cell)[0].energy
    assert load_potential("chgnet").corrections == "MP2020"
    assert load_potential("chgnet").identity == chgnet().identity
    for name in ("nothing", "no.such.module:Thing", "ase.calculators.emt:Nothing", "chgnet:9.9"):
        with pytest.raises(PotentialError):
            load_potential(name)


@pytest.mark.parametrize("name", ["mace", "orb", "sevennet", "mattersim"])
def test_models_that_are_not_installed_say_how_to_get_them(name: str) -> None:
    package = {"mace": "mace", "orb": "orb_models", "sevennet": "sevenn", "mattersim": "mattersim"}[name]
    import importlib.util

    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed here")
    with pytest.raises(PotentialError, match="pip install"):
        load_potential(name)
