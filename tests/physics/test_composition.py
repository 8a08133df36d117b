"""Compositions from mappings, pymatgen and atomic numbers; what is not one is refused."""

from __future__ import annotations

import numpy as np
import pytest

from nucleate.errors import InvalidStructureError
from nucleate.physics import composition_counts
from nucleate.physics.composition import reduced_counts


def test_all_forms_give_the_same_counts():
    from pymatgen.core import Composition

    wanted = {8: 4, 26: 3}
    assert composition_counts({"Fe": 3, "O": 4}) == wanted
    assert composition_counts({26: 3, 8: 4.0}) == wanted
    assert composition_counts(Composition("Fe3O4")) == wanted
    assert composition_counts(Composition({"Fe2+": 1, "Fe3+": 2, "O2-": 4})) == wanted
    assert composition_counts(np.array([26, 8, 26, 8, 8, 26, 8])) == wanted
    assert reduced_counts({"Fe": 6, "O": 8}) == wanted


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        [],
        {"Fe": 0.5},
        {"Fe": -1},
        {"Fe": float("nan")},
        {"Xx": 1},
        {110: 1},
        [1.5],
        np.zeros((2, 2), dtype=int),
        [0],
        "Fe2O3",
        7,
    ],
)
def test_what_is_no_composition_is_refused(wrong):
    with pytest.raises(InvalidStructureError):
        composition_counts(wrong)
