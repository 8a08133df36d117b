"""Any ASE calculator as a potential, one crystal at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nucleate.crystal.convert import unit_cell_to_ase
from nucleate.crystal.unit_cell import UnitCell
from nucleate.energetics.potential import Evaluation


class ASEPotential:
    """An ASE calculator as a potential.

    Args:
        calculator: anything with ASE's interface that gives energy, forces and stress of periodic atoms.
        identity: what names its numbers in caches and reports: program, version, weights, settings. Two
            calculators whose numbers differ must differ here.
        name: short name for tables.
        corrections: empirical corrections in its energies, if known.
    """

    def __init__(
        self, calculator: Any, *, identity: str, name: str = "ase", corrections: str = "none known"
    ) -> None:
        self._calculator = calculator
        self.identity = identity
        self.name = name
        self.corrections = corrections

    @classmethod
    def from_factory(cls, factory: Callable[[], Any], **options: Any) -> ASEPotential:
        """The potential of the calculator that ``factory`` makes."""
        return cls(factory(), **options)

    def evaluate(self, cells: Sequence[UnitCell]) -> list[Evaluation]:
        """Evaluations of the cells, one after the other; one that raises spoils only itself."""
        return [self._evaluate_one(cell) for cell in cells]

    def _evaluate_one(self, cell: UnitCell) -> Evaluation:
        atoms = unit_cell_to_ase(cell)
        atoms.calc = self._calculator
        try:
            return Evaluation(
                float(atoms.get_potential_energy()),
                np.array(atoms.get_forces(), dtype=np.float64),
                np.array(atoms.get_stress(voigt=False), dtype=np.float64),
            )
        except Exception as error:  # a foreign calculator may raise anything, and its state is then unknown
            if hasattr(self._calculator, "reset"):
                self._calculator.reset()
            return Evaluation.failed(cell, f"{type(error).__name__}: {error}")
