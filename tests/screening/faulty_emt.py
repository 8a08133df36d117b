"""EMT that fails on purpose, by element, and keeps a diary of what it was asked."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from ase.build import bulk
from ase.calculators.emt import EMT

from nucleate.crystal import Crystal

RAISES, HANGS, NAN, DIES, DIES_ONCE = "Ag", "Pd", "Pt", "Al", "Ni"
DIARY, KILLS_AT = "FAULTY_EMT_DIARY", "FAULTY_EMT_KILLS_AT"


class FaultyEMT(EMT):
    """EMT, unless an element is one that raises, hangs, gives NaN or kills the process (always, or the first time)."""

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = ()) -> None:
        symbols = set(atoms.get_chemical_symbols())
        if DIARY in os.environ:
            note(atoms.get_chemical_formula())
        if RAISES in symbols:
            raise RuntimeError("no self-consistency")
        if HANGS in symbols:
            time.sleep(3600)
        if DIES in symbols or (DIES_ONCE in symbols and first_time()):
            os.kill(os.getpid(), signal.SIGKILL)
        super().calculate(atoms, properties, system_changes)
        if NAN in symbols:
            self.results["energy"] = float("nan")


class CountingEMT(EMT):
    """EMT that keeps the diary and, at the evaluation of a given number, kills the run that asks it (once)."""

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = ()) -> None:
        note(atoms.get_chemical_formula())
        number = len(Path(os.environ[DIARY]).read_text().splitlines())
        if number == int(os.environ.get(KILLS_AT, "-1")) and first_time():
            os.kill(os.getppid(), signal.SIGKILL)
        super().calculate(atoms, properties, system_changes)


def note(text: str) -> None:
    with Path(os.environ[DIARY]).open("a") as file:
        file.write(text + "\n")


def first_time() -> bool:
    """Whether nobody has asked before in this test."""
    try:
        Path(os.environ[DIARY] + ".once").open("x").close()
    except FileExistsError:
        return False
    return True


def metals(*symbols: str, strain: float = 0.01) -> list[Crystal]:
    """Face-centred cubic metals, or ordered alloys where a symbol is two joined by a dash (CuAu in L1_0)."""
    found = []
    for symbol in symbols:
        first, _, second = symbol.partition("-")
        atoms = bulk(first, "fcc", a=3.9 if second else None, cubic=bool(second))
        if second:
            atoms.set_chemical_symbols([first, first, second, second])
        atoms.set_cell(atoms.cell * (1 + strain), scale_atoms=True)
        found.append(Crystal.from_structure(atoms).crystal)
    return found
