"""Pseudopotential files (UPF) of a folder: what they are, and which one an element gets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nucleate.errors import DFTError

DEFAULT_CUTOFF = 820.0
"""Plane waves' energy (eV, 60 Ry) where no pseudopotential suggests one."""

_HEADER_BYTES = 65536
_RYDBERG = 13.605693122994
_ATTRIBUTE = re.compile(r'(\w+)\s*=\s*"([^"]*)"')
_FUNCTIONALS = (
    # order matters: PBEsol contains PBE's letters
    ("pbesol", ("PBESOL", "PSX", "PSC")),
    ("pbe", ("PBE", "PBX", "PBC")),
    ("lda", ("PZ", "LDA", "NOGX")),
)


@dataclass(frozen=True)
class Pseudopotential:
    """What the header of a UPF file says.

    Attributes:
        file: name in its folder.
        element: symbol.
        functional: ``pbe``, ``pbesol``, ``lda``, or the words of the header for others.
        kind: ``NC``, ``US``, ``PAW`` or ``1/r``.
        valence: electrons.
        cutoff: suggested energy of the plane waves, eV; 0 where none is given.
        density_cutoff: suggested for the density, eV; 0 where none is given.
        fully_relativistic: made for spin-orbit coupling.
    """

    file: str
    element: str
    functional: str
    kind: str
    valence: float
    cutoff: float
    density_cutoff: float
    fully_relativistic: bool


def read_pseudopotential(path: Path) -> Pseudopotential:
    """The header of a UPF file of version 1 or 2.

    Raises:
        DFTError: the file is no UPF file or its header lacks what is needed.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_HEADER_BYTES).decode("utf-8", "replace")
        start = text.index("<PP_HEADER")
        info = text[:start]
        end = text.find("</PP_HEADER>", start)
        closed = text.find("/>", start)
        header = text[start : max(end, closed, start + 1) if end < 0 else end]
        attributes = {name.lower(): value.strip() for name, value in _ATTRIBUTE.findall(header)}
        if "element" in attributes:
            return _version_2(path.name, attributes, info)
        return _version_1(path.name, header)
    except (OSError, ValueError, IndexError) as error:
        raise DFTError(f"{path} is no pseudopotential in UPF format ({error})") from error


def _version_2(name: str, attributes: dict[str, str], info: str) -> Pseudopotential:
    def number(key: str) -> float:
        return float(attributes.get(key, "0").replace("d", "e").replace("D", "e") or 0)

    kind = attributes.get("pseudo_type", "NC").upper()
    return Pseudopotential(
        name,
        attributes["element"].strip(),
        _functional(attributes.get("functional", "")),
        {"USPP": "US", "SL": "NC"}.get(kind, kind),
        number("z_valence"),
        number("wfc_cutoff") * _RYDBERG,
        number("rho_cutoff") * _RYDBERG,
        attributes.get("has_so", "f").lower().strip(".").startswith("t"),
    )


def _version_1(name: str, header: str) -> Pseudopotential:
    """Header of lines: version, element, kind, core correction, functional, valence, energy, cut-offs."""
    lines = [line.split() for line in header.splitlines()[1:] if line.strip()]
    return Pseudopotential(
        name,
        lines[1][0],
        _functional(" ".join(lines[4])),
        lines[2][0].upper(),
        float(lines[5][0]),
        float(lines[7][0]) * _RYDBERG,
        float(lines[7][1]) * _RYDBERG,
        ".rel-" in name,
    )


def _functional(words: str) -> str:
    upper = words.upper()
    for name, marks in _FUNCTIONALS:
        if any(mark in upper.split() or mark == upper for mark in marks):
            return name
    return " ".join(words.split()).lower()


def choose_pseudopotentials(
    folder: str, elements: Iterable[str], functional: str
) -> dict[str, Pseudopotential]:
    """One pseudopotential of a functional for each element, the same on every machine.

    Fully relativistic files and bare Coulomb potentials are left out. Of several, those with a suggested cut-off come
    first, then PAW before ultrasoft before norm-conserving, then the last name in alphabetical order
    (``1.0.0`` after ``0.2.1``).

    Args:
        folder: folder of UPF files, named after their element (``Si.pbe-...UPF``).
        elements: symbols.
        functional: ``pbe`` or ``lda``.

    Raises:
        DFTError: the folder is not there, or elements have no such file; the message names all of them and what
            there is for them.
    """
    symbols = sorted(set(elements))
    if not folder:
        raise DFTError(
            f"pseudopotentials for {', '.join(symbols)} are needed: name their folder (dft.pseudopotentials), "
            "which is /usr/share/espresso/pseudo with Debian's quantum-espresso-data"
        )
    path = Path(folder)
    if not path.is_dir():
        raise DFTError(f"there is no folder of pseudopotentials {folder}")
    chosen, missing = {}, []
    for symbol in symbols:
        pattern = re.compile(rf"{symbol}(?![a-z]).*\.upf$", re.IGNORECASE)
        files = sorted(f for f in path.iterdir() if pattern.match(f.name) and f.name.startswith(symbol))
        found = []
        for file in files:
            try:
                found.append(read_pseudopotential(file))
            except DFTError:  # a damaged file of a big collection; it is no candidate
                continue
        fitting = [
            p
            for p in found
            if p.element == symbol
            and p.functional == functional
            and not p.fully_relativistic
            and p.kind in _RANKS
        ]
        if fitting:
            chosen[symbol] = max(fitting, key=lambda p: (p.cutoff > 0, _RANKS[p.kind], p.file))
        else:
            others = ", ".join(f"{p.file} ({p.functional}, {p.kind})" for p in found) or "nothing"
            missing.append(f"{symbol} (there is {others})")
    if missing:
        raise DFTError(
            f"no {functional.upper()} pseudopotentials in {folder} for {'; '.join(missing)}: put UPF files named after "
            "the element there, or choose another functional"
        )
    return chosen


_RANKS = {"NC": 0, "US": 1, "PAW": 2}


def cutoffs(chosen: Iterable[Pseudopotential], asked: float) -> tuple[float, float]:
    """(energy of the plane waves, energy of the density) in eV.

    The first is what was asked, otherwise the largest that is suggested, ``DEFAULT_CUTOFF`` where a file suggests none.
    The second is the largest of what is suggested, four times the first (norm-conserving) and eight times the first
    (others).
    """
    chosen = list(chosen)
    waves = asked or max(p.cutoff or DEFAULT_CUTOFF for p in chosen)
    factor = 4 if all(p.kind == "NC" for p in chosen) else 8
    return waves, max(factor * waves, *(p.density_cutoff for p in chosen))
