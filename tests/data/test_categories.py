"""What is left out is counted by why, wherever it was noticed: while reading or while encoding."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from nucleate.data import build_store
from nucleate.data.categories import UNREADABLE, category_of
from nucleate.errors import DisorderedStructureError, InvalidStructureError, StructureTooLargeError

CELL = "".join(f"_cell_length_{x} 4\n" for x in "abc")
CELL += "".join(f"_cell_angle_{x} 90\n" for x in ("alpha", "beta", "gamma"))
LOOP = "loop_\n" + "".join(
    f"_atom_site_{x}\n" for x in ("type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
)


def cif(sites: str) -> str:
    return f"data_x\n_space_group_IT_number 1\n{CELL}{LOOP}{sites}\n"


def test_reasons_noticed_while_reading_are_told_apart(tmp_path: Path) -> None:
    sites = {
        "good": "Cs 0 0 0 1\nCl .5 .5 .5 1",
        "mixed": "Fe 0 0 0 0.5\nMn 0 0 0 0.5",
        "large": "Cs 0 0 0 1\nCl .5 .5 .5 1\nO .5 .5 0 1",
        "twice": "Cs 0 0 0 1\nCl 0 0 0 1",
        "words": "Cs zero 0 0 1",
    }
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["material_id", "cif"], *((name, cif(s)) for name, s in sites.items())])
    build_store(str(tmp_path / "table.csv"), str(tmp_path / "store"), max_atoms=2)
    with (tmp_path / "store" / "rejected.csv").open(newline="") as stream:
        found = {row["id"]: row["category"] for row in csv.DictReader(stream)}
    assert found == {
        "mixed": "disordered",
        "large": "too large",
        "twice": "not a crystal",
        "words": "unreadable",
    }


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (DisorderedStructureError("x"), "disordered"),
        (StructureTooLargeError("x"), "too large"),
        (InvalidStructureError("x"), "not a crystal"),
        (KeyError("x"), UNREADABLE),
    ],
)
def test_the_narrowest_kind_counts(error: Exception, category: str) -> None:
    assert category_of(error) == category
