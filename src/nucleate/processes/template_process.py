"""Sampling templates: the group, then one orbit after the other, each choice from the possible ones only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.tables import group_arrays
from nucleate.errors import ConditionError
from nucleate.physics.elements import element_symbol
from nucleate.processes.template_constraints import TemplateConstraint
from nucleate.processes.template_lookahead import Lookahead, Orbit, Orbits
from nucleate.shapes import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class TemplateState:
    """Unfinished templates of a batch.

    Attributes:
        crystals: which of the crystals asked for each row is.
        space_group_number: group of each, 0 while it is open.
        positions: row of each orbit's position among all 1,731, -1 for padding.
        elements: atomic number of each orbit, 0 for padding.
    """

    crystals: Int[Tensor, "n"]
    space_group_number: Int[Tensor, "n"]
    positions: Int[Tensor, "n orbits"]
    elements: Int[Tensor, "n orbits"]


@runtime_checkable
class NextOrbitModel(Protocol):
    """Log odds of what comes next; any function of the *set* of orbits will do."""

    def group_logits(self, state: TemplateState) -> Float[Tensor, "n 230"]:
        """Log odds of each space group."""

    def position_logits(self, state: TemplateState) -> Float[Tensor, "n choices"]:
        """Log odds of the end (column 0) and of each Wyckoff position (column 1 + index)."""

    def element_logits(
        self, state: TemplateState, positions: Int[Tensor, "n"]
    ) -> Float[Tensor, "n elements"]:
        """Log odds of each element (column z - 1) on the given positions (rows among all 1,731).

        Called after ``position_logits`` with the same state, or with some of its rows.
        """


@dataclass(frozen=True)
class TemplateTemperature:
    """What the log odds of each kind of choice are divided by: 1 samples from the model, lower is more typical.

    Attributes:
        group: of the space group.
        positions: of the Wyckoff positions and of where the template ends, and so of how many atoms there are.
        elements: of the elements.

    Raises:
        ConditionError: one of them is not above 0.
    """

    group: float = 1.0
    positions: float = 1.0
    elements: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise ConditionError(f"The temperature of the {name} must be above 0 and finite, got {value}")

    def __str__(self) -> str:
        """As the command line takes it."""
        return f"{self.group:g},{self.positions:g},{self.elements:g}"

    @classmethod
    def of(cls, value: TemplateTemperature | float) -> TemplateTemperature:
        """One number is the temperature of every choice."""
        return value if isinstance(value, TemplateTemperature) else cls(value, value, value)


@dataclass(frozen=True, eq=False)
class SampledTemplate:
    """One finished template.

    Attributes:
        space_group_number: 1 to 230.
        wyckoff_indices: position of each orbit, in the order they came.
        atomic_numbers: element of each orbit.
        log_prob: log probability of the choices made on this path, given the constraint and the temperature; choices
            that were given or forced count 0.
    """

    space_group_number: int
    wyckoff_indices: Int[np.ndarray, "orbits"]
    atomic_numbers: Int[np.ndarray, "orbits"]
    log_prob: float


@dataclass
class _Growing:
    """One crystal on its way.

    ``witness`` holds orbits known to finish it, looked up only where the bound of the look-ahead's search left no other
    choice, and kept while they come.
    """

    lookahead: Lookahead
    generator: np.random.Generator
    number: int = 0
    orbits: Orbits = ()
    witness: Orbits = ()
    log_prob: float = 0.0
    ended: bool = False

    def next_on_witness(self) -> Orbits:
        """Orbits that may come next on the known completion: the slot's own while slots are open, then any."""
        open_slots = len(self.orbits) < len(self.lookahead.constraint.slots)
        return self.witness[:1] if open_slots else self.witness

    def place(self, orbit: Orbit) -> None:
        """Add an orbit; the completion stays one as long as its orbits come."""
        if orbit in self.next_on_witness():
            at = self.witness.index(orbit)
            self.witness = self.witness[:at] + self.witness[at + 1 :]
        else:
            self.witness = ()
        self.orbits = (*self.orbits, orbit)


def sample_templates(
    model: NextOrbitModel,
    constraints: Sequence[TemplateConstraint],
    generators: Sequence[np.random.Generator],
    *,
    temperature: TemplateTemperature | float = 1.0,
) -> list[SampledTemplate]:
    """One template for each constraint, all of them as asked.

    Each choice is drawn from the model's probabilities over the possible choices (``Lookahead``), so nothing is ever
    rejected. Crystal i draws from its own generator only: it is the same in any batch, as far as the model's numbers
    are.

    Args:
        model: log odds of the next choice.
        constraints: what is asked of each crystal; equal ones share their look-ahead.
        generators: one per crystal, such as those of ``crystal_generators``.
        temperature: logits are divided by it; one number for all choices, or one of each kind.

    Raises:
        ConditionError: a temperature is not above 0, or no template of any group is as asked.
    """
    if len(constraints) != len(generators):
        raise ValueError(f"{len(constraints)} constraints need as many generators, got {len(generators)}")
    temperature = TemplateTemperature.of(temperature)
    lookaheads = {c: Lookahead(c) for c in dict.fromkeys(constraints)}
    for lookahead in lookaheads.values():
        if not lookahead.groups().any():
            raise ConditionError(impossible_reason(lookahead.constraint))
    crystals = [_Growing(lookaheads[c], g) for c, g in zip(constraints, generators)]
    _draw_groups(model, crystals, temperature.group)
    active = list(range(len(crystals)))
    while active:
        state = _state(crystals, active)
        _draw_orbits(model, state, [crystals[i] for i in active], temperature)
        active = [i for i in active if not crystals[i].ended]
    return [
        SampledTemplate(
            c.number,
            np.array([p for p, _ in c.orbits], dtype=np.int64),
            np.array([z for _, z in c.orbits], dtype=np.int64),
            c.log_prob,
        )
        for c in crystals
    ]


def crystal_generators(seed: int, count: int, *, first: int = 0) -> list[np.random.Generator]:
    """One random stream per crystal, that of crystal ``first`` first."""
    return [np.random.default_rng([seed, first + i]) for i in range(count)]


def impossible_reason(constraint: TemplateConstraint) -> str:
    """Why no template is as asked, for people."""
    c = constraint
    one = len(c.space_groups) == 1
    where = f"space group {min(c.space_groups)}" if one else f"any of {len(c.space_groups)} space groups"
    if c.counts is not None:
        what = "".join(f"{element_symbol(z)}{n}" for z, n in c.counts) + " per primitive cell"
    else:
        bounds = [(low, high) for low, high in map(c.atom_bounds, c.space_groups) if low <= high]
        low = min((low for low, _ in bounds), default=c.min_atoms)
        what = f"{low} to {max((high for _, high in bounds), default=c.max_atoms)} atoms per primitive cell"
        if c.required:
            what += " with " + ", ".join(element_symbol(z) for z in sorted(c.required))
    extra = " and the orbits given" if c.slots else ""
    neutral = c.neutral and c.counts is None
    kind, way_out = ("charge-neutral template", ", or leave neutrality out") if neutral else ("template", "")
    return (
        f"No {kind} of {where} holds {what}{extra} without having a higher group; "
        f"ask for another cell or group{way_out}."
    )


def _state(crystals: list[_Growing], active: list[int]) -> TemplateState:
    start = group_arrays()["position_start"]
    most = max(len(crystals[i].orbits) for i in active)
    positions, elements = np.full((len(active), most), -1), np.zeros((len(active), most), dtype=np.int64)
    for row, i in enumerate(active):
        crystal = crystals[i]
        for k, (p, z) in enumerate(crystal.orbits):
            positions[row, k] = start[crystal.number - 1] + p
            elements[row, k] = z
    numbers = np.array([crystals[i].number for i in active], dtype=np.int64)
    return TemplateState(*(torch.as_tensor(x) for x in (np.array(active), numbers, positions, elements)))


def _draw_groups(model: NextOrbitModel, crystals: list[_Growing], temperature: float) -> None:
    allowed = np.stack([c.lookahead.groups() for c in crystals])
    for crystal, row in zip(crystals, allowed):
        if row.sum() == 1:
            crystal.number = int(np.flatnonzero(row)[0]) + 1
    rows = [i for i, crystal in enumerate(crystals) if crystal.number == 0]
    if rows:
        logits = _numpy(model.group_logits(_state(crystals, rows)))
        chosen, log_probs = _draw(logits, allowed[rows], [crystals[i] for i in rows], temperature)
        for i, group, log_prob in zip(rows, chosen, log_probs):
            crystals[i].number = int(group) + 1
            crystals[i].log_prob += log_prob


def _draw_orbits(
    model: NextOrbitModel, state: TemplateState, crystals: list[_Growing], temperature: TemplateTemperature
) -> None:
    """The next orbit of each crystal, or its end."""
    logits = _numpy(model.position_logits(state))
    allowed = np.zeros(logits.shape, dtype=bool)
    for row, crystal in zip(allowed, crystals):
        possible = crystal.lookahead.next_orbit(crystal.number, crystal.orbits)
        row[0] = possible.end
        row[1 : 1 + len(possible.positions)] = possible.positions
        if not row.any() and not crystal.witness:
            crystal.witness = crystal.lookahead.completion(crystal.number, crystal.orbits) or ()
        for p, _ in crystal.next_on_witness():
            row[1 + p] = True
    chosen, log_probs = _draw(logits, allowed, crystals, temperature.positions)
    rows = np.flatnonzero(chosen > 0)
    for crystal, choice, log_prob in zip(crystals, chosen, log_probs):
        crystal.log_prob += log_prob
        crystal.ended = bool(choice == 0)
    if not len(rows):
        return
    start = group_arrays()["position_start"][state.space_group_number.numpy()[rows] - 1]
    index = torch.as_tensor(rows)
    some = TemplateState(
        state.crystals[index], state.space_group_number[index], state.positions[index], state.elements[index]
    )
    logits = _numpy(model.element_logits(some, torch.as_tensor(start + chosen[rows] - 1)))
    going_on = [crystals[i] for i in rows]
    positions = (chosen[rows] - 1).tolist()
    allowed = np.stack([c.lookahead.elements(c.number, c.orbits, p) for c, p in zip(going_on, positions)])
    for row, crystal, position in zip(allowed, going_on, positions):
        for p, z in crystal.next_on_witness():
            row[z - 1] |= p == position
    elements, log_probs = _draw(logits, allowed, going_on, temperature.elements)
    for crystal, position, element, log_prob in zip(going_on, positions, elements, log_probs):
        crystal.log_prob += log_prob
        crystal.place((position, int(element) + 1))


def _numpy(logits: Tensor) -> Float[np.ndarray, "n choices"]:
    return logits.detach().cpu().double().numpy()


def _draw(
    logits: Float[np.ndarray, "n choices"],
    allowed: Bool[np.ndarray, "n choices"],
    crystals: list[_Growing],
    temperature: float,
) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """One allowed choice per row, with its log probability, by the inverse of the distribution function."""
    assert allowed.any(axis=1).all(), "a partial template has no possible continuation"
    scaled = np.where(allowed, logits / temperature, -np.inf)
    scaled -= scaled.max(axis=1, keepdims=True)
    weights = np.exp(scaled)
    cumulative = weights.cumsum(axis=1)
    total = cumulative[:, -1]
    level = np.array([c.generator.random() for c in crystals]) * total
    chosen = (cumulative <= level[:, None]).sum(axis=1)
    rows = np.arange(len(chosen))
    return chosen, scaled[rows, chosen] - np.log(total)
