"""Atom sites of a CIF block: elements, coordinates, oxidation states, or why they are no ordered crystal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nucleate.crystal.cell_checks import check_num_atoms
from nucleate.crystal.cif_block import NULL_VALUES, CifTags, parse_number, unquoted
from nucleate.crystal.species import Species, parse_site_label, parse_species
from nucleate.errors import DisorderedStructureError, InvalidStructureError, ParseError
from nucleate.shapes import Float

OCCUPANCY_TOLERANCE = 1e-3
"""An occupancy nearer than this to 1 is full."""

_AXES = ("fract_x", "fract_y", "fract_z")
_TRAILING_SITE_NUMBER = re.compile(r"[A-Za-z]{1,2}\d+[A-Za-z]?", re.ASCII)
_ELEMENT_TABLE_TAGS = ("_atom_type_symbol", "_atom_type.symbol")
_OXIDATION_TAGS = ("_atom_type_oxidation_number", "_atom_type.oxidation_number")


@dataclass(frozen=True, eq=False)
class CifSites:
    """Sites of a block as listed, before symmetry.

    Attributes:
        labels: site labels; element and row number where the block has none.
        species: element, isotope and oxidation state of each site.
        frac_coords: coordinates as written.
        raw_coords: their text, one list per axis.
    """

    labels: Sequence[str]
    species: Sequence[Species]
    frac_coords: Float[np.ndarray, "sites 3"]
    raw_coords: Sequence[Sequence[str]]

    def rounding(self) -> Float[np.ndarray, "sites 3"]:
        """One unit in the last digit of each coordinate, trailing zeros not counted, at most 0.01."""
        return np.array([[_last_digit(value) for value in column] for column in self.raw_coords]).T


def read_sites(tags: CifTags, *, max_atoms: int) -> CifSites:
    """Sites of a block.

    Occupancies ``?`` and ``.`` are 1, the default of the CIF dictionary. Displacement parameters are not
    read.

    Raises:
        ParseError: no sites, coordinates or elements that do not parse.
        DisorderedStructureError: partial occupancy, mixed sites, or alternative groups of sites; lists the
            sites.
        InvalidStructureError: unknown element, dummy sites, hydrogen atoms counted but not placed.
        StructureTooLargeError: more than ``max_atoms`` rows.
    """
    columns = tags.sites_loop()
    if not columns:
        raise ParseError(f"{tags.where} {_why_no_sites(tags)}")
    num_sites = len(columns["fract_x"])
    check_num_atoms(num_sites, max_atoms=max_atoms, name=tags.where)
    missing = [axis for axis in _AXES if axis not in columns]
    if missing:
        raise ParseError(f"{tags.where} has no _atom_site_{missing[0]}")
    types, raw_labels = columns.get("type_symbol"), columns.get("label")
    if types is None and raw_labels is None:
        raise ParseError(
            f"{tags.where} names no elements: neither _atom_site_type_symbol nor _atom_site_label"
        )
    labels = (
        [unquoted(label) for label in raw_labels]
        if raw_labels is not None
        else [f"{symbol}{row}" for row, symbol in enumerate(types or (), start=1)]
    )
    _refuse_dummies(columns, labels, where=tags.where)
    species = _read_species(types, labels, where=tags.where)
    _refuse_disorder(columns, labels, types or labels, where=tags.where)
    oxidation = _oxidation_numbers(tags)
    if oxidation and types is not None:
        species = [
            Species(
                one.atomic_number,
                one.mass_number,
                oxidation.get(unquoted(symbol).strip(), one.oxidation_state),
            )
            for one, symbol in zip(species, types)
        ]
    coords = _read_coords(columns, labels, where=tags.where)
    return CifSites(labels, species, coords, [columns[axis] for axis in _AXES])


def _last_digit(value: str) -> float:
    mantissa, _, exponent = unquoted(value).strip().lower().partition("(")[0].partition("e")
    digits = len(mantissa.partition(".")[2].rstrip("0"))
    return 10.0 ** (min(-max(digits, 2) + int(exponent or 0), -2))


def _why_no_sites(tags: CifTags) -> str:
    if tags.column("_atom_site_Cartn_x", "_atom_site.Cartn_x") is not None:
        return (
            "gives its sites in Cartesian coordinates only (mmCIF?); fractional _atom_site_fract_x is needed"
        )
    if tags.column("_atom_site_label", "_atom_site.label", "_atom_site_type_symbol") is not None:
        return "lists sites without coordinates (_atom_site_fract_x)"
    return "has no atom sites (_atom_site_fract_x)"


def _refuse_dummies(columns: Mapping[str, list[str]], labels: Sequence[str], *, where: str) -> None:
    flags = columns.get("calc_flag", ())
    dummies = [label for label, flag in zip(labels, flags) if unquoted(flag).lower() == "dum"]
    if dummies:
        raise InvalidStructureError(
            f"{where}: {_listed(dummies)} marked as dummy (calc_flag dum), no atom; remove the row"
        )
    attached = columns.get("attached_hydrogens", ())
    counted = [
        f"{label} ({n})"
        for label, n in zip(labels, attached)
        if n not in NULL_VALUES and n.strip("0+.") != ""
    ]
    if counted:
        raise InvalidStructureError(
            f"{where}: hydrogen atoms are counted but not placed (_atom_site_attached_hydrogens) at "
            f"{_listed(counted)}"
        )


def _read_species(types: Sequence[str] | None, labels: Sequence[str], *, where: str) -> list[Species]:
    species: list[Species] = []
    seen: dict[str, Species] = {}
    for row, label in enumerate(labels):
        raw = text = types[row] if types is not None else "?"
        if text in seen:
            species.append(seen[text])
            continue
        try:
            if text in NULL_VALUES:
                species.append(parse_site_label(label))
                continue
            text = unquoted(text).strip()
            # "O12" as a type symbol is a site label in the wrong column; an ion always has its sign.
            parse = parse_site_label if _TRAILING_SITE_NUMBER.fullmatch(text) else parse_species
            seen[raw] = parse(text)
            species.append(seen[raw])
        except InvalidStructureError as error:
            parts = re.findall(r"[A-Z][a-z]?(?![a-z])", text)
            if len(parts) > 1 and re.search(r"[,/+ ]", text):
                raise DisorderedStructureError(
                    f"{where}: site {label} is shared by several species: {text!r}"
                ) from error
            raise InvalidStructureError(f"{where}: site {label}: {error}") from error
    return species


def _refuse_disorder(
    columns: Mapping[str, list[str]], labels: Sequence[str], symbols: Sequence[str], *, where: str
) -> None:
    partial = []
    for row, text in enumerate(columns.get("occupancy", ())):
        if text in ("1", "1.0", "1.00", "1.0000", *NULL_VALUES):
            continue
        occupancy = parse_number(text, what=f"{where}: occupancy of site {labels[row]}")
        if occupancy < 0 or occupancy > 1 + OCCUPANCY_TOLERANCE:
            raise InvalidStructureError(
                f"{where}: site {labels[row]} has occupancy {occupancy:g}, outside 0..1"
            )
        if occupancy < 1 - OCCUPANCY_TOLERANCE:
            partial.append(f"{labels[row]} ({unquoted(symbols[row])}, occupancy {occupancy:g})")
    if partial:
        raise DisorderedStructureError.at(
            where, f"{len(partial)} partially occupied site{'s' * (len(partial) > 1)}: {_listed(partial)}"
        )
    groups = columns.get("disorder_group", ())
    in_group = [(label, unquoted(g)) for label, g in zip(labels, groups) if g not in (*NULL_VALUES, "0")]
    if len({group for _, group in in_group}) > 1 or any(group.startswith("-") for _, group in in_group):
        sites = [f"{label} (group {group})" for label, group in in_group]
        raise DisorderedStructureError.at(where, f"alternative groups of sites: {_listed(sites)}")


def _oxidation_numbers(tags: CifTags) -> dict[str, float]:
    numbers = tags.column(*_OXIDATION_TAGS)
    symbols = tags.column(*_ELEMENT_TABLE_TAGS)
    if numbers is None or symbols is None or len(numbers) != len(symbols):
        return {}
    return {
        unquoted(symbol).strip(): parse_number(number, what=f"{tags.where}: oxidation number of {symbol}")
        for symbol, number in zip(symbols, numbers)
        if number not in NULL_VALUES
    }


def _read_coords(
    columns: Mapping[str, list[str]], labels: Sequence[str], *, where: str
) -> Float[np.ndarray, "sites 3"]:
    from gemmi import cif  # noqa: PLC0415  foreign readers load late

    coords = np.array([[cif.as_number(value) for value in columns[axis]] for axis in _AXES]).T
    if np.isnan(coords).any():
        row, axis = np.argwhere(np.isnan(coords))[0]
        value = columns[_AXES[axis]][row]
        if value in NULL_VALUES:
            raise ParseError(f"{where}: site {labels[row]} has no coordinates ({_AXES[axis]} is {value!r})")
        # gemmi reads neither quoted numbers, read here, nor overflowing ones, refused here.
        coords = np.array(
            [
                [
                    parse_number(v, what=f"{where}: {axis} of site {label}")
                    for v, label in zip(columns[axis], labels)
                ]
                for axis in _AXES
            ]
        ).T
    return np.ascontiguousarray(coords)


def _listed(items: Sequence[str], *, shown: int = 8) -> str:
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more
