"""Species names of foreign formats: element, isotope and oxidation state of ``Fe3+``, ``D`` or ``13C``."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from nucleate.errors import InvalidStructureError

# fmt: off
SYMBOLS: tuple[str, ...] = (
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar",
    "K", "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br",
    "Kr", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te",
    "I", "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm",
    "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn",
    "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr",
    "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og",
)
# fmt: on
"""Element symbols in order of atomic number; ``SYMBOLS[0]`` is hydrogen."""

ATOMIC_NUMBER_OF: dict[str, int] = {symbol: index + 1 for index, symbol in enumerate(SYMBOLS)}
"""Atomic number of each element symbol."""

HYDROGEN_ISOTOPES = {"D": 2, "T": 3}
"""Mass numbers of the isotopes with symbols of their own."""

_VACANCIES = frozenset({"X", "Va", "Vac", "Q", "Du", "Dum", "Dummy"})

# [mass number] letters [charge], the charge as 3+, +3, +, 2.5+ or ++
_SPECIES = re.compile(
    r"(?P<mass>\d{1,3})?(?P<letters>[A-Za-z]{1,5})"
    r"(?:(?P<number_first>\d*\.?\d*)(?P<sign>[+-])|(?P<signs>\+\++|--+)"
    r"|(?P<sign_first>[+-])(?P<number>\d+\.?\d*))?",
    re.ASCII,
)
_LABEL = re.compile(r"(?P<mass>\d{1,3})?(?P<letters>[A-Za-z]+)", re.ASCII)


@dataclass(frozen=True)
class Species:
    """What a species name says.

    Attributes:
        atomic_number: 1 to 118.
        mass_number: mass number of the named isotope, 0 where none is named.
        oxidation_state: charge in e, None where none is given.
    """

    atomic_number: int
    mass_number: int = 0
    oxidation_state: float | None = None


def element_symbol(atomic_number: int) -> str:
    """Element symbol of an atomic number.

    Raises:
        InvalidStructureError: the number is outside 1..118.
    """
    if not 1 <= atomic_number <= len(SYMBOLS):
        raise InvalidStructureError(f"atomic number {atomic_number} is outside 1..{len(SYMBOLS)}")
    return SYMBOLS[atomic_number - 1]


@functools.lru_cache(maxsize=4096)
def parse_species(text: str) -> Species:
    """Species written as a type symbol: ``Fe``, ``FE``, ``Fe3+``, ``Fe+3``, ``O2-``, ``D``, ``13C``, ``2H+``.

    Raises:
        InvalidStructureError: not an element (dummy atoms and vacancies included), or no possible isotope of
            it.
    """
    match = _SPECIES.fullmatch(text.strip())
    if match is None:
        raise InvalidStructureError(f"{text!r} is not an element, isotope or ion")
    oxidation_state: float | None = None
    if match["signs"]:
        oxidation_state = len(match["signs"]) * (1.0 if match["signs"][0] == "+" else -1.0)
    elif sign := match["sign"] or match["sign_first"]:
        digits = match["number_first"] or match["number"] or "1"
        if digits == ".":
            raise InvalidStructureError(f"{text!r} is not an element, isotope or ion")
        oxidation_state = float(digits) * (1.0 if sign == "+" else -1.0) + 0.0
    return _species(text, match["letters"], match["mass"], oxidation_state)


@functools.lru_cache(maxsize=4096)
def parse_site_label(text: str) -> Species:
    """Species meant by a site label such as ``Fe1``, ``O12A`` or ``NA_2``: its leading letters, if a symbol.

    Without a type symbol the label is all there is. ``T`` alone is refused: labels use it for tetrahedral
    sites more often than for tritium.

    Raises:
        InvalidStructureError: the leading letters are no element.
    """
    match = _LABEL.match(text.strip())
    if match is None or (match["letters"] == "T" and not match["mass"]):
        raise InvalidStructureError(f"site label {text!r} does not begin with an element symbol")
    return _species(text, match["letters"], match["mass"], None)


def _species(text: str, letters: str, mass: str | None, oxidation_state: float | None) -> Species:
    symbol = letters.capitalize()
    if symbol in HYDROGEN_ISOTOPES:
        if mass is not None and int(mass) != HYDROGEN_ISOTOPES[symbol]:
            raise InvalidStructureError(
                f"{text!r}: {symbol} has mass number {HYDROGEN_ISOTOPES[symbol]}, not {mass}"
            )
        return Species(1, HYDROGEN_ISOTOPES[symbol], oxidation_state)
    atomic_number = ATOMIC_NUMBER_OF.get(symbol)
    if atomic_number is None:
        kind = "a dummy species or vacancy, not an element" if symbol in _VACANCIES else "not an element"
        raise InvalidStructureError(f"{text!r} is {kind}")
    mass_number = int(mass) if mass is not None else 0
    # From the proton alone to the most neutron-rich nuclides known (H-7, He-10, Li-12; above, less than 3 Z).
    if mass is not None and not atomic_number <= mass_number <= 3 * atomic_number + 4:
        raise InvalidStructureError(
            f"{text!r}: {symbol} (Z = {atomic_number}) has no isotope of mass {mass_number}"
        )
    return Species(atomic_number, mass_number, oxidation_state)
