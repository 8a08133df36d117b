"""How a crystal is shown: coordinates as formulas, cell parameters, and what JSON holds."""

from __future__ import annotations

import io
import json
from fractions import Fraction

import numpy as np
import pytest
from ase.geometry import cell_to_cellpar
from rich.console import Console

from nucleate.cli.crystal_view import cell_parameters, coordinate_formula, crystal_panel, crystal_values
from nucleate.crystal import Crystal, space_group


@pytest.mark.parametrize("number", range(1, 231))
def test_formulas_give_the_representatives(number: int, rng: np.random.Generator) -> None:
    for position in space_group(number).wyckoff_positions:
        free = rng.random(position.num_free)
        shown = coordinate_formula(position)
        names = dict(zip("uvw", free))
        # 3/4, 1/2u and 2u as Python: fractions first, then the product
        values = [_evaluate(part, names) for part in shown.split(", ")]
        np.testing.assert_allclose(values, position.coords(free), atol=1e-12, err_msg=shown)


def _evaluate(formula: str, names: dict[str, float]) -> float:
    total, sign = 0.0, 1
    for word in formula.replace("-u", "- u").replace("-v", "- v").replace("-w", "- w").split():
        if word in "+-":
            sign = 1 if word == "+" else -1
        else:
            letter = word[-1] if word[-1] in names else ""
            number = word.removesuffix(letter) or "1"
            total += sign * float(Fraction(number)) * names.get(letter, 1.0)
            sign = 1
    return total


def _quartz() -> Crystal:
    return Crystal(
        space_group_number=152,
        lattice_params=np.array([1.46, 0.05]),
        wyckoff_indices=np.array([0, 2]),
        atomic_numbers=np.array([14, 8]),
        free_coords=np.array([[0.47, 0, 0], [0.41, 0.27, 0.12]]),
    )


def test_cell_parameters_are_those_of_ase() -> None:
    crystal = _quartz()
    np.testing.assert_allclose(cell_parameters(crystal), cell_to_cellpar(crystal.lattice), atol=1e-10)


def test_values_are_json_and_complete() -> None:
    values = json.loads(json.dumps(crystal_values(_quartz()), allow_nan=False))
    rebuilt = Crystal(
        space_group_number=values["space_group_number"],
        lattice_params=np.array(values["lattice_params"]),
        wyckoff_indices=np.array([ord(o["wyckoff_letter"]) - ord("a") for o in values["orbits"]]),
        atomic_numbers=np.array([o["atomic_number"] for o in values["orbits"]]),
        free_coords=np.array(
            [o["free_coords"] + [0.0] * (3 - len(o["free_coords"])) for o in values["orbits"]]
        ),
    )
    for field in ("lattice_params", "wyckoff_indices", "atomic_numbers", "free_coords"):
        np.testing.assert_array_equal(getattr(rebuilt, field), getattr(_quartz(), field))


def test_panel_shows_handedness_of_chiral_groups_only() -> None:
    def shown(crystal: Crystal) -> str:
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(crystal_panel(crystal, title="[a name]"))
        return console.export_text()

    salt = Crystal(225, np.array([1.8]), np.array([0, 1]), np.array([11, 17]), np.zeros((2, 3)))
    assert "handedness" in shown(_quartz())
    assert "handedness" not in shown(salt)
    assert "[a name]" in shown(salt)
