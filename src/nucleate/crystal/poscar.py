"""POSCAR text (VASP 5) as a unit cell and back."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from nucleate.crystal.cell_checks import check_lattice, check_num_atoms, checked_unit_cell
from nucleate.crystal.species import Species, element_symbol, parse_species
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import InvalidStructureError, ParseError, StructureTooLargeError

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d{1,3})?", re.ASCII)
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_LINE_END = re.compile(r"\r\n|\r|\n")
_FLAGS = {
    "T": True,
    "F": False,
    ".T.": True,
    ".F.": False,
    ".TRUE.": True,
    ".FALSE.": False,
    "TRUE": True,
    "FALSE": False,
}
_HYDROGEN_SYMBOLS = {2: "D", 3: "T"}


def unit_cell_from_poscar(text: str, *, name: str = "POSCAR", max_atoms: int = 1000) -> UnitCell:
    """Unit cell of a POSCAR or CONTCAR with element symbols in line 6.

    Symbols may carry the name of a potential (``Fe_pv``, ``O/0f2a``). A negative scale factor is the volume;
    three factors scale the x, y and z components. Selective dynamics becomes the site property
    ``selective_dynamics`` (True is free). What follows the coordinates (velocities of a run) is not part of
    the crystal and is not read.

    Args:
        text: the whole file.
        name: what to call it in an error.
        max_atoms: largest number of atoms accepted, checked on the counts of line 7.

    Raises:
        ParseError: a line that is missing or does not parse, with its number; VASP 4 files without symbols.
        InvalidStructureError: no crystal.
        StructureTooLargeError: more than ``max_atoms``.
    """
    # Not more lines than a structure of this size can need: a huge file is refused on its counts.
    lines = _Lines(_LINE_END.split(text, maxsplit=max_atoms + 16), name)
    lines.next("the comment")
    factors = _scale_factors(lines)
    vectors = np.array([lines.numbers(3, "a lattice vector") for _ in range(3)])
    species, counts = _species_and_counts(lines)
    num_atoms = sum(counts)
    if num_atoms > max_atoms:
        raise StructureTooLargeError(
            f"{name} has {num_atoms} atoms, the limit is {max_atoms}; raise max_atoms to read it"
        )
    check_num_atoms(num_atoms, max_atoms=max_atoms, name=name)
    mode = lines.next("Direct or Cartesian").strip()
    is_selective = mode[:1] in ("S", "s")
    if is_selective:
        mode = lines.next("Direct or Cartesian").strip()
    if mode[:1] not in tuple("DdCcKk"):
        raise ParseError(f"{lines.here}: expected Direct or Cartesian, got {mode[:40]!r}")
    if len(factors) == 1 and factors[0] < 0:
        check_lattice(vectors, name=name)
        factors = [(-factors[0] / abs(float(np.linalg.det(vectors)))) ** (1 / 3)]
    with np.errstate(over="ignore"):  # numbers too large are named by the check below
        lattice = vectors * np.array(factors)
    reciprocal = check_lattice(lattice, name=name)
    coords = np.empty((num_atoms, 3))
    free = np.ones((num_atoms, 3), dtype=bool)
    for atom in range(num_atoms):
        coords[atom] = lines.numbers(3, f"coordinates of atom {atom + 1} of {num_atoms}")
        if is_selective:
            free[atom] = lines.flags()
    if mode[0] not in "Dd":
        with np.errstate(over="ignore", invalid="ignore"):
            coords = coords * np.array(factors) @ reciprocal
    per_atom = [one for one, count in zip(species, counts) for _ in range(count)]
    properties: dict[str, np.ndarray] = {}
    if is_selective:
        properties["selective_dynamics"] = free
    if any(one.mass_number for one in species):
        properties["mass_number"] = np.array([one.mass_number for one in per_atom], dtype=np.int64)
    if any(one.oxidation_state is not None for one in species):
        properties["oxidation_state"] = np.array(
            [np.nan if one.oxidation_state is None else one.oxidation_state for one in per_atom]
        )
    return checked_unit_cell(
        lattice,
        coords,
        atomic_numbers=np.array([one.atomic_number for one in per_atom], dtype=np.int64),
        site_properties=properties,
        name=name,
        max_atoms=max_atoms,
    )


def write_poscar(cell: UnitCell, *, comment: str | None = None) -> str:
    """POSCAR text (VASP 5, direct coordinates, 16 digits) of a unit cell, its atoms in their order.

    An element that occurs in several runs is listed once per run, which VASP allows. Deuterium and tritium
    are written D and T; other isotopes, moments and oxidation states have no place in this format. The site
    property ``selective_dynamics`` is written.

    Args:
        cell: the atoms.
        comment: first line; the formula in the order of the atoms if not given.
    """
    mass_numbers = cell.site_properties.get("mass_number", np.zeros(cell.num_atoms, dtype=np.int64))
    symbols = [
        _HYDROGEN_SYMBOLS.get(int(mass), "H") if number == 1 else element_symbol(int(number))
        for number, mass in zip(cell.atomic_numbers, mass_numbers)
    ]
    runs = [(symbol, len(list(group))) for symbol, group in itertools.groupby(symbols)]
    title = comment if comment is not None else "".join(f"{symbol}{count}" for symbol, count in runs)
    lines = [" ".join(title.split()), "1.0"]
    lines += ["".join(f"{value:22.15f}" for value in vector) for vector in cell.lattice.tolist()]
    lines += [" ".join(symbol for symbol, _ in runs), " ".join(str(count) for _, count in runs)]
    free = cell.site_properties.get("selective_dynamics")
    if free is not None:
        lines.append("Selective dynamics")
    lines.append("Direct")
    for index, site in enumerate(cell.frac_coords.tolist()):
        flags = "" if free is None else "".join("  T" if flag else "  F" for flag in free[index])
        lines.append("".join(f"{value:20.16f}" for value in site) + flags)
    return "\n".join(lines) + "\n"


class _Lines:
    """Lines of the file in order, with the number of the current one for errors."""

    def __init__(self, lines: Sequence[str], name: str) -> None:
        self._lines = lines
        self._name = name
        self._count = 0
        self._tokens: list[str] = []

    @property
    def here(self) -> str:
        """Name of the file and number of the line read last."""
        return f"{self._name}, line {self._count}"

    def next(self, what: str) -> str:
        """Next line; ``what`` is expected there."""
        if self._count >= len(self._lines):
            raise ParseError(f"{self._name} ends after line {self._count}, where {what} should follow")
        self._count += 1
        return self._lines[self._count - 1]

    def numbers(self, count: int, what: str) -> list[float]:
        """Numbers at the beginning of the next line."""
        self._tokens = self.next(what).split()
        found = self._tokens[:count]
        if len(found) < count or not all(_NUMBER.fullmatch(token) for token in found):
            line = " ".join(self._tokens)[:60]
            raise ParseError(f"{self.here}: expected {what} ({count} numbers), got {line!r}")
        return [float(token.replace("d", "e").replace("D", "e")) for token in found]

    def flags(self) -> list[bool]:
        """Three T or F behind the coordinates of the line read last."""
        found = [_FLAGS.get(token.upper()) for token in self._tokens[3:6]]
        if len(found) < 3 or any(flag is None for flag in found):
            raise ParseError(f"{self.here}: selective dynamics needs three T or F behind the coordinates")
        return [bool(flag) for flag in found]


def _scale_factors(lines: _Lines) -> list[float]:
    tokens = lines.next("the scale factor").split("!")[0].split("#")[0].split()
    if len(tokens) not in (1, 3) or not all(_NUMBER.fullmatch(token) for token in tokens):
        raise ParseError(f"{lines.here}: expected one scale factor or three, got {' '.join(tokens)[:60]!r}")
    factors = [float(token.replace("d", "e").replace("D", "e")) for token in tokens]
    if not all(np.isfinite(factors)) or 0.0 in factors or (len(factors) == 3 and min(factors) < 0):
        raise ParseError(
            f"{lines.here}: scale factors {factors} must be finite and not zero, three of them positive"
        )
    return factors


def _species_and_counts(lines: _Lines) -> tuple[list[Species], list[int]]:
    symbols = lines.next("the element symbols").split("!")[0].split("#")[0].split()
    if not symbols:
        raise ParseError(f"{lines.here}: expected element symbols, got an empty line")
    if all(_COUNT.fullmatch(token) for token in symbols):
        raise ParseError(
            f"{lines.here}: atom counts where element symbols are expected: a VASP 4 file does not say which "
            "elements it holds; insert a line of symbols before this one"
        )
    species = []
    for symbol in symbols:
        try:
            species.append(parse_species(re.split("[_/]", symbol, maxsplit=1)[0]))
        except InvalidStructureError as error:
            raise InvalidStructureError(f"{lines.here}: {error}") from error
    tokens = lines.next("the atom counts").split("!")[0].split("#")[0].split()
    if not all(_COUNT.fullmatch(token) for token in tokens):
        raise ParseError(f"{lines.here}: expected atom counts, got {' '.join(tokens)[:60]!r}")
    counts = [int(token) for token in tokens]
    if len(counts) != len(species) or min(counts) < 1:
        raise ParseError(
            f"{lines.here}: {len(species)} element symbols and the counts {counts[:20]}; "
            "one positive count each is needed"
        )
    return species, counts
