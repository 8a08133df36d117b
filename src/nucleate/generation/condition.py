"""What is given of the crystals wanted, checked at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.lattice_parameters import lattice_from_parameters, parameters_from_lattice
from nucleate.crystal.space_group import space_group
from nucleate.crystal.tables import group_names
from nucleate.errors import ConditionError, InvalidStructureError
from nucleate.generation.formula import format_counts, parse_element, parse_elements, parse_formula
from nucleate.generation.property_targets import Asked, PropertyTarget, property_targets
from nucleate.generation.template_notation import GivenTemplate, check_places, parse_template, template_text
from nucleate.models.template_transformer import MAX_UNITS
from nucleate.physics.elements import element_symbol
from nucleate.physics.volume import volume_per_atom
from nucleate.processes.template_constraints import (
    MAX_ATOMS,
    TemplateConstraint,
    allowed_groups,
    template_constraint,
)
from nucleate.processes.template_lookahead import Lookahead
from nucleate.processes.template_process import impossible_reason
from nucleate.shapes import Float

PARTS = ("elements", "coords", "lattice", "orbits")
"""What can be open of a parent crystal."""

LATTICE_STRAIN = 1e-3
"""How far a given cell may be from the shape its group asks for, the nearest cell of which replaces it (largest
principal strain)."""

MOST_ATOMS = 500
"""Most atoms per primitive cell that can be asked for, eight times as many as the networks were trained on; the
searches for templates go as deep as there are orbits."""

VOLUME_FACTOR = 1.6
"""How far (as a factor) the volume per atom of a given cell may be from what its composition takes up."""

MIN_VOLUME_PER_ATOM, MAX_VOLUME_PER_ATOM = 3.0, 80.0
"""Å^3; how many atoms a given cell can hold where the composition is open."""


@dataclass(frozen=True)
class Condition:
    """Any part of a crystal that is given; the rest is sampled. Atom counts are per primitive cell.

    Attributes:
        formula: reduced formula; every number of formula units that fits is considered.
        elements: elements that must occur; others may.
        allowed: the only elements that may occur.
        excluded: elements that may not occur.
        chemical_system: ``Li-Fe-O``: exactly these elements, each of them.
        num_atoms: (fewest, most) atoms, or one number, which then is both.
        space_groups: numbers of the groups it may have.
        crystal_system: triclinic, monoclinic, orthorhombic, tetragonal, trigonal, hexagonal or cubic.
        template: all orbits by Wyckoff letter, such as ``a b c`` or ``Sr:1a Ti:1b O:3c``, with the free coordinates
            that are given, such as ``Ti:2a O:4f(0.305)``; ``...`` at the end lets other orbits come. Needs one group.
        lattice: conventional cell a, b, c in Å and alpha, beta, gamma in degrees, in the standard setting. It may be a
            strain of ``LATTICE_STRAIN`` off the shape its group asks for; the nearest cell of that shape is taken.
        neutral: only compositions that can be charge neutral.
        properties: values and ranges of properties as the weights read them, such as ``{"band_gap": (1, 2)}``, with
            None for an open end. Unlike the rest they are not obeyed exactly: of several candidates with a template
            each, the first that has them is kept, or the nearest.
        source: data set whose character the crystals should have; by default all of them.

    Raises:
        ConditionError: the parts contradict each other or nothing can be as asked, and why.
    """

    formula: str | None = None
    elements: tuple[str, ...] = ()
    allowed: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    chemical_system: str | None = None
    num_atoms: tuple[int, int] | int | None = None
    space_groups: tuple[int, ...] = ()
    crystal_system: str | None = None
    template: str | None = None
    lattice: tuple[float, float, float, float, float, float] | None = None
    neutral: bool = False
    properties: Mapping[str, Asked] | tuple[PropertyTarget, ...] = ()
    source: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "properties", self.targets)
        object.__setattr__(self, "num_atoms", self.atom_range)
        if self.formula is not None and self.chemical_system is not None:
            raise ConditionError("A formula says its chemical system already: give one of the two.")
        if self.allowed is not None and self.chemical_system is not None:
            raise ConditionError(
                "A chemical system says which elements are allowed already: give one of the two."
            )
        if self.atom_range is not None and not 1 <= self.atom_range[0] <= self.atom_range[1]:
            raise ConditionError(
                f"The range of atoms per primitive cell, {self.atom_range[0]} to {self.atom_range[1]}, is empty."
            )
        most = max(self.atom_range[1] if self.atom_range else 0, sum((self.formula_counts or {}).values()))
        if most > MOST_ATOMS:
            raise ConditionError(
                f"Cells of up to {MOST_ATOMS} atoms per primitive cell can be asked for, got {most}: ask for fewer."
            )
        if not self._possible_groups():
            raise ConditionError(self._no_group_fits())
        # The first constraint that can be met is enough here; generation asks for all of them.
        constraints = self._constraints()
        if not any(Lookahead(constraint).groups().any() for constraint in constraints):
            raise ConditionError(self._nothing_possible(constraints))
        if self.template is not None:
            check_places(self.given_template, self.space_groups[0], self.cell)

    # ---- what is given, as numbers -----------------------------------------------------------------------------

    @property
    def atom_range(self) -> tuple[int, int] | None:
        """(fewest, most) atoms."""
        asked = self.num_atoms
        return (asked, asked) if isinstance(asked, int) else asked

    @property
    def targets(self) -> tuple[PropertyTarget, ...]:
        """The properties asked for."""
        return property_targets(self.properties)

    @cached_property
    def formula_counts(self) -> dict[int, int] | None:
        """Atoms of each element of a formula unit."""
        return None if self.formula is None else parse_formula(self.formula)

    @cached_property
    def given_template(self) -> GivenTemplate:
        """The orbits of the template."""
        if self.template is None:
            return GivenTemplate()
        if len(self.space_groups) != 1:
            raise ConditionError(
                f"A template names Wyckoff letters of one space group, got {len(self.space_groups)} groups: "
                "add the space group."
            )
        return parse_template(self.template, self.space_groups[0])

    @cached_property
    def cell(self) -> Float[np.ndarray, "3 3"] | None:
        """The given conventional cell, rows in Å."""
        if self.lattice is None:
            return None
        try:
            return lattice_from_parameters(self.lattice, name="the lattice")
        except InvalidStructureError as error:
            raise ConditionError(str(error)) from error

    def lattice_params(self, number: int, *, num_atoms: int) -> Float[np.ndarray, "k"] | None:
        """Free lattice parameters of the given cell in a group, with the atoms of the conventional cell."""
        if self.cell is None:
            return None
        return space_group(number).lattice_subspace.fit(self.cell, num_atoms=num_atoms).params

    @cached_property
    def judges_templates(self) -> bool:
        """Whether atoms are given, by free coordinates or by a cell they are in, that have a say in what is open.

        What is open are elements or further orbits. A cell alone has no say.
        """
        given = self.given_template
        placed = self.lattice is not None and given.knows_coords
        return given.is_open and (placed or given.has_coords)

    @cached_property
    def constraints(self) -> tuple[TemplateConstraint, ...]:
        """What can be met: one per number of formula units, or a single one."""
        return tuple(c for c in self._constraints() if Lookahead(c).groups().any())

    @classmethod
    def from_parent(cls, parent: Crystal, opened: Iterable[str], **others: Any) -> Condition:
        """The condition that everything of a crystal is given but for what is opened.

        Args:
            parent: its group, orbits with elements and coordinates, and cell are given.
            opened: ``elements`` or the symbols of those that may be exchanged, ``coords``, ``lattice``, ``orbits``
                (others may come).
            **others: further parts of the condition; another lattice where that is opened.

        Raises:
            ConditionError: nothing is opened, a part is unknown, or given twice.
        """
        wanted, present = set(opened), {element_symbol(z): z for z in parent.composition}
        parts = f"{', '.join(PARTS)}, or elements of it ({', '.join(present)})"
        if unknown := sorted(wanted - set(PARTS) - set(present)):
            raise ConditionError(
                f"{unknown[0]!r} is no part of the parent {parent.formula} that can be open: {parts}."
            )
        if not wanted:
            raise ConditionError(
                f"Everything of the parent {parent.formula} is given, say what is open: {parts}."
            )
        for name in ("space_groups", "crystal_system", "template", "lattice"):
            if others.get(name) and not (name == "lattice" and "lattice" in wanted):
                raise ConditionError(
                    f"A parent says the {name.replace('_', ' ').rstrip('s')} already: give one of the two."
                )
        exchanged = {z for symbol, z in present.items() if wanted & {"elements", symbol}}
        template = template_text(
            parent, open_elements=exchanged, coords="coords" not in wanted, complete="orbits" not in wanted
        )
        cell = others.get("lattice") if "lattice" in wanted else parameters_from_lattice(parent.lattice)
        given = {"space_groups": (parent.space_group_number,), "template": template, "lattice": cell}
        return cls(**{**others, **given})

    def to_dict(self) -> dict[str, Any]:
        """The parts that are given, as JSON takes them."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        given["properties"] = {target.name: target.to_json() for target in self.targets}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
            if value not in (None, (), False, {})
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Condition:
        """The condition that ``to_dict`` wrote."""
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**given)

    # ---- how it is asked ---------------------------------------------------------------------------------------

    def _possible_groups(self) -> frozenset[int]:
        asked = allowed_groups(self.space_groups or None, self.crystal_system)
        if self.cell is None:
            return asked
        fitting = self._lattice_systems_of_cell()
        return frozenset(g for g in asked if group_names()[g - 1]["lattice_system"] in fitting)

    def _lattice_systems_of_cell(self) -> list[str]:
        return [system for system in _example_groups() if self._strain(system) <= LATTICE_STRAIN]

    def _strain(self, lattice_system: str) -> float:
        assert self.cell is not None
        subspace = space_group(_example_groups()[lattice_system]).lattice_subspace
        return subspace.fit(self.cell, num_atoms=1).strain

    def _no_group_fits(self) -> str:
        assert self.lattice is not None
        asked = sorted(allowed_groups(self.space_groups or None, self.crystal_system))
        system_of = {g: group_names()[g - 1]["lattice_system"] for g in asked}
        strains = {system: self._strain(system) for system in dict.fromkeys(system_of.values())}
        least = min(strains.values())
        nearest = [system for system, strain in strains.items() if strain == least]
        if self.space_groups:
            number = next(g for g in asked if system_of[g] in nearest)
            where, other = f"as space group {number} needs it", "group"
        else:
            where, other = f"as {self.crystal_system} crystals need it", "crystal system"
        cell, fitting = ", ".join(f"{x:g}" for x in self.lattice), ", ".join(self._lattice_systems_of_cell())
        return (
            f"The cell {cell} is no {' or '.join(nearest)} cell in the standard setting (strain {least:.2g}, at most "
            f"{LATTICE_STRAIN:g}), {where}. It fits these lattices: {fitting}; give another cell or another {other}."
        )

    def _constraints(self) -> list[TemplateConstraint]:
        """One constraint per number of formula units, or a single one; contradictions are refused here."""
        low, high = self.atom_range or (1, self._default_most_atoms())
        common: dict[str, Any] = {
            "space_groups": self._possible_groups(),
            "required": frozenset(map(parse_element, self.elements)),
            "excluded": frozenset(map(parse_element, self.excluded)),
            "allowed": None if self.allowed is None else frozenset(map(parse_element, self.allowed)),
            "neutral": self.neutral,
            "orbits": [(orbit.position, orbit.element) for orbit in self.given_template.orbits],
            "complete": self.given_template.complete,
        }
        if self.chemical_system is not None:
            system = frozenset(map(parse_element, parse_elements(self.chemical_system)))
            if extra := sorted(common["required"] - system):
                raise ConditionError(
                    f"{format_counts(dict.fromkeys(extra, 1))} is not in {self.chemical_system}."
                )
            common |= {"required": system, "allowed": system}
        if self.formula_counts is None:
            constraint = template_constraint(
                **common, min_atoms=low, max_atoms=high, cell_atoms=self._cell_atoms()
            )
            if all(fewest > most for fewest, most in map(constraint.atom_bounds, constraint.space_groups)):
                raise ConditionError(self._no_room_for_atoms())
            return [constraint]
        self._check_formula(common)
        per_unit = sum(self.formula_counts.values())
        units = range(max(1, -(-low // per_unit)), max(1, min(high // per_unit, MAX_UNITS)) + 1)
        if self.num_atoms is not None:
            units = range(-(-low // per_unit), min(high // per_unit, MAX_UNITS) + 1)
        if not units:
            raise ConditionError(
                f"No number of {self.formula} units ({per_unit} atoms each, at most {MAX_UNITS}) gives {low} to {high} "
                "atoms per primitive cell."
            )
        least = -(-self._num_given_atoms() // per_unit)  # what a cell holds already it has room for
        groups = {
            k: self._possible_groups() if k == least else self._groups_with_room(k * per_unit) for k in units
        }
        if not any(groups.values()):
            raise ConditionError(self._no_room(units, per_unit))
        return [
            template_constraint(
                **{**common, "space_groups": groups[k]},
                composition={z: n * k for z, n in self.formula_counts.items()},
                max_atoms=max(MAX_ATOMS, per_unit * k),
            )
            for k in units
            if groups[k]
        ]

    def _default_most_atoms(self) -> int:
        """``MAX_ATOMS``, or as many as the given orbits have, and as many again where others may come."""
        return max(MAX_ATOMS, self._num_given_atoms() * (1 if self.given_template.complete else 2))

    def _num_given_atoms(self) -> int:
        """Atoms per primitive cell in the orbits of the template."""
        given = self.given_template.orbits
        positions = space_group(self.space_groups[0]).wyckoff_positions if given else ()
        return sum(positions[orbit.position].multiplicity_primitive for orbit in given)

    def _nothing_possible(self, constraints: list[TemplateConstraint]) -> str:
        if self.formula is None:
            return impossible_reason(constraints[0])
        sizes = [c.max_atoms for c in constraints]
        cells = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        groups = sorted(self._possible_groups())
        where = f"Space group {groups[0]}" if len(groups) == 1 else f"None of {len(groups)} space groups"
        verb = "has no template" if len(groups) == 1 else "has a template"
        reason = f"{where} {verb} that holds {self.formula} with {cells} atoms per primitive cell"
        reason += " and the orbits given" if self.template is not None else ""
        reason += " without necessarily having a higher group"
        if self.template is not None:
            return f"{reason}; ask for other orbits or another formula."
        if self.num_atoms is None:
            return (
                f"{reason}; ask for another group (`nucleate feasible --formula {self.formula}` lists them)."
            )
        try:
            others = [c.max_atoms for c in replace(self, num_atoms=None).constraints]
        except ConditionError:
            return f"{reason}, nor with other numbers of atoms; ask for another group."
        return f"{reason}; it fits with {', '.join(map(str, others))}."

    def _check_formula(self, common: Mapping[str, Any]) -> None:
        present = set(self.formula_counts or ())
        for z in sorted(common["excluded"] & present):
            raise ConditionError(
                f"{format_counts({z: 1})} is part of {self.formula} and at the same time excluded."
            )
        if common["allowed"] is not None and (extra := sorted(present - common["allowed"])):
            raise ConditionError(
                f"{self.formula} holds {format_counts(dict.fromkeys(extra, 1))}, not among the allowed elements."
            )

    def _cell_atoms(self) -> tuple[int, int] | None:
        """(fewest, most) atoms that a given conventional cell has room for; None where its orbits say how many."""
        if self.cell is None or self.given_template.complete:
            return None
        volume = abs(float(np.linalg.det(self.cell)))
        return int(np.ceil(volume / MAX_VOLUME_PER_ATOM)), int(volume / MIN_VOLUME_PER_ATOM)

    def _no_room_for_atoms(self) -> str:
        sizes, volumes = self._primitive_volumes()
        fewest, most = int(np.ceil(volumes[0] / MAX_VOLUME_PER_ATOM)), int(volumes[-1] / MIN_VOLUME_PER_ATOM)
        each = f"({MIN_VOLUME_PER_ATOM:g} to {MAX_VOLUME_PER_ATOM:g} Å³ each)"
        if most == 0:
            return f"The primitive cell has {sizes} Å³, no room for an atom {each}; give a larger cell."
        reason = f"The primitive cell has {sizes} Å³, room for {fewest} to {most} atoms {each}"
        if self.atom_range is not None:
            return f"{reason}, asked are {self.atom_range[0]} to {self.atom_range[1]}."
        return f"{reason}, and more than {MAX_ATOMS} only where num_atoms asks for them."

    def _primitive_volume(self, number: int) -> float:
        assert self.cell is not None
        return abs(float(np.linalg.det(self.cell))) / space_group(number).num_centrings

    def _primitive_volumes(self) -> tuple[str, list[float]]:
        """(as text, ascending) volumes that the primitive cell may have."""
        volumes = sorted({self._primitive_volume(g) for g in self._possible_groups()})
        text = f"{volumes[0]:.0f} to {volumes[-1]:.0f}" if len(volumes) > 1 else f"{volumes[0]:.0f}"
        return text, volumes

    def _groups_with_room(self, num_atoms: int) -> frozenset[int]:
        """Groups in which the given cell gives so many atoms a believable volume; all where no cell is given."""
        groups = self._possible_groups()
        if self.cell is None:
            return groups
        assert self.formula_counts is not None
        expected = volume_per_atom(self.formula_counts).mean * num_atoms
        factor = {g: self._primitive_volume(g) / expected for g in groups}
        return frozenset(g for g in groups if 1 / VOLUME_FACTOR < factor[g] < VOLUME_FACTOR)

    def _no_room(self, units: range, per_unit: int) -> str:
        assert self.formula_counts is not None
        sizes, _ = self._primitive_volumes()
        each = volume_per_atom(self.formula_counts).mean * per_unit
        return (
            f"The primitive cell has {sizes} Å³, and {self.formula} takes up about {each:.0f} Å³ per formula unit: no "
            f"number of units from {units.start} to {units.stop - 1} fits within a factor {VOLUME_FACTOR:g}."
        )


def _example_groups() -> dict[str, int]:
    """A group of each lattice system."""
    return {
        entry["lattice_system"]: number for number, entry in reversed(list(enumerate(group_names(), start=1)))
    }
