"""What an interatomic potential is here: unit cells in, energies, forces and stresses out, many per call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import PotentialError
from nucleate.shapes import Float

GPA = 1.0 / 160.21766208
"""One GPa in eV/Å^3."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Energy of one cell with its derivatives, or why there is none.

    Attributes:
        energy: potential energy of the cell, eV; NaN where ``problem`` is not empty.
        forces: ``-dE/dr`` of each atom in the order of the cell, eV/Å.
        stress: ``(1/V) dE/de`` for ``r -> r (1 + e)`` with symmetric e, eV/Å^3: positive under tension, as in ASE.
        problem: why the potential gave no numbers; empty as a rule.
    """

    energy: float
    forces: Float[np.ndarray, "atoms 3"]
    stress: Float[np.ndarray, "3 3"]
    problem: str = ""

    @staticmethod
    def failed(cell: UnitCell, problem: str) -> Evaluation:
        """The evaluation of a cell that could not be evaluated."""
        return Evaluation(
            float("nan"), np.full((cell.num_atoms, 3), np.nan), np.full((3, 3), np.nan), problem
        )


@runtime_checkable
class Potential(Protocol):
    """Energies of crystals from an interatomic potential.

    Attributes:
        name: short name for tables, such as ``chgnet``.
        identity: name, version and everything else that changes its numbers; part of every cache key.
        corrections: empirical corrections its energies contain, such as ``MP2020``; ``none known`` where nobody
            says.
    """

    name: str
    identity: str
    corrections: str

    def evaluate(self, cells: Sequence[UnitCell]) -> list[Evaluation]:
        """Evaluations of the cells, in order, from one call of the model where it can batch.

        May raise on a cell it cannot evaluate; ``evaluate_each`` then finds out which.
        """
        ...


def evaluate_each(
    potential: Potential, cells: Sequence[UnitCell], *, batch_atoms: int = 256
) -> list[Evaluation]:
    """Evaluations of all cells, in order; a cell that cannot be evaluated never takes others with it.

    Cells go to the potential in batches. A batch that raises is halved until the cell at fault stands alone; its
    evaluation names the error. Energies, forces or stresses that are not finite are named likewise.

    Args:
        potential: what evaluates.
        cells: any number.
        batch_atoms: most atoms in one call of the potential (a larger cell goes alone).
    """
    results: list[Evaluation] = []
    for batch in _batches(cells, batch_atoms):
        results += _evaluate_batch(potential, batch)
    return results


def _batches(cells: Sequence[UnitCell], batch_atoms: int) -> Iterator[Sequence[UnitCell]]:
    start = atoms = 0
    for index, cell in enumerate(cells):
        if index > start and atoms + cell.num_atoms > batch_atoms:
            yield cells[start:index]
            start, atoms = index, 0
        atoms += cell.num_atoms
    if start < len(cells):
        yield cells[start:]


def _evaluate_batch(potential: Potential, cells: Sequence[UnitCell]) -> list[Evaluation]:
    try:
        results = potential.evaluate(cells)
    except Exception as error:  # a foreign model may raise anything; whose fault it is must be found
        if len(cells) == 1:
            return [Evaluation.failed(cells[0], f"{type(error).__name__}: {error}")]
        half = len(cells) // 2
        return _evaluate_batch(potential, cells[:half]) + _evaluate_batch(potential, cells[half:])
    if len(results) != len(cells):
        raise PotentialError(f"{potential.name} returned {len(results)} evaluations for {len(cells)} cells")
    return [_checked(cell, result) for cell, result in zip(cells, results)]


def _checked(cell: UnitCell, result: Evaluation) -> Evaluation:
    if result.problem:
        return result
    if result.forces.shape != (cell.num_atoms, 3) or result.stress.shape != (3, 3):
        shapes = f"{result.forces.shape} and {result.stress.shape}"
        return Evaluation.failed(cell, f"forces and stress of shapes {shapes} for {cell.num_atoms} atoms")
    strange = [
        name
        for name, value in (
            ("energy", result.energy),
            ("forces", result.forces),
            ("stress", result.stress),
        )
        if not np.isfinite(value).all()
    ]
    if strange:
        return Evaluation.failed(cell, f"the potential gave {' and '.join(strange)} that are not finite")
    return result
