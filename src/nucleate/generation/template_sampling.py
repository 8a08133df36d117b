"""Templates that meet a condition: number of formula units, group, positions and elements, by the template network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.normalizer import normalizer
from nucleate.crystal.space_group import space_group
from nucleate.generation.condition import Condition
from nucleate.models.template_transformer import TemplateBatch, TemplateStates, TemplateTransformer
from nucleate.processes.joint_process import template_batch
from nucleate.processes.template_constraints import TemplateConstraint
from nucleate.processes.template_process import (
    SampledTemplate,
    TemplateState,
    TemplateTemperature,
    sample_templates,
)
from nucleate.shapes import Float, Int

_SAME_METRIC = 1e-6
"""How far the metric of a cell may change, in units of its trace, to count as the same."""

_DRAWS = 1
"""Third number of the seeds of draws that are ranked; those of crystals have two."""


@dataclass(frozen=True, eq=False)
class _Target:
    """What the network is told of the composition asked for."""

    elements: tuple[int, ...]
    counts: tuple[int, ...]
    closed: bool
    total: int


class TemplateModel:
    """The template network as ``sample_templates`` asks it: log odds of the next choice of unfinished templates.

    Args:
        network: in evaluation mode.
        constraints: what is asked of each crystal.
        source: data source token of all.
        charge_weight: how often what charge balance says of the next element is counted where the composition is open.
    """

    def __init__(
        self,
        network: TemplateTransformer,
        constraints: Sequence[TemplateConstraint],
        *,
        source: int,
        charge_weight: float = 1.0,
    ) -> None:
        self.network = network
        self.device = network.element_table.device
        self.asked = _asked([_target(c) for c in constraints], source)
        is_open = torch.tensor([c.counts is None for c in constraints], dtype=torch.bool)
        self._charge_weights = torch.where(is_open, charge_weight, 1.0)
        self._states: TemplateStates | None = None
        self._batch: TemplateBatch | None = None
        self._row_of: dict[int, int] = {}

    def _batch_of(self, state: TemplateState) -> TemplateBatch:
        rows, asked = state.crystals, self.asked
        return TemplateBatch(
            state.space_group_number,
            asked.source[rows],
            asked.target_elements[rows],
            asked.target_counts[rows],
            asked.elements_closed[rows],
            asked.total_atoms[rows],
            state.positions,
            state.elements,
        ).to(self.device)

    @torch.no_grad()
    def group_logits(self, state: TemplateState) -> Float[Tensor, "n 230"]:
        """Log odds of each space group."""
        return self.network.group_logits(self._batch_of(state)).float().cpu()

    @torch.no_grad()
    def position_logits(self, state: TemplateState) -> Float[Tensor, "n choices"]:
        """Log odds of the end (column 0) and of each Wyckoff position (column 1 + index)."""
        batch = self._batch_of(state)
        states = self.network(batch, batch.num_orbits[:, None])
        self._states, self._batch = states, batch
        self._row_of = {crystal: row for row, crystal in enumerate(state.crystals.tolist())}
        return self.network.position_logits(states, batch.space_group_number)[:, 0].float().cpu()

    @torch.no_grad()
    def element_logits(
        self, state: TemplateState, positions: Int[Tensor, "n"]
    ) -> Float[Tensor, "n elements"]:
        """Log odds of each element on the given positions, for rows of the last ``position_logits``."""
        assert self._states is not None
        assert self._batch is not None
        rows = torch.tensor([self._row_of[c] for c in state.crystals.tolist()], device=self.device)
        logits = self.network.element_logits(
            self._states,
            self._batch,
            crystals=rows,
            steps=torch.zeros_like(rows),
            positions=positions.to(self.device),
            charge_weights=self._charge_weights[state.crystals].to(self.device),
        )
        return logits.float().cpu()


def draw_templates(
    network: TemplateTransformer,
    condition: Condition,
    generators: Sequence[np.random.Generator],
    *,
    source: int = 0,
    temperature: TemplateTemperature | float = 1.0,
    charge_weight: float = 1.0,
) -> list[SampledTemplate]:
    """One template per random stream, each exactly as the condition asks.

    The number of formula units is drawn first, from the network's probabilities over those that some group can
    hold, at the temperature of the positions; then the group, then orbits one by one (``sample_templates``). Where the
    composition is open, elements are drawn from ``p(z) ~ p_network(z) exp((charge_weight - 1) s(z))``, s the part of
    the network's log odds that comes from charge balance.
    """
    temperature = TemplateTemperature.of(temperature)
    chosen = _draw_constraints(
        network, condition, generators, source=source, temperature=temperature.positions
    )
    model = TemplateModel(network, chosen, source=source, charge_weight=charge_weight)
    return sample_templates(model, chosen, generators, temperature=temperature)


@dataclass(frozen=True, eq=False)
class RankedTemplate:
    """A template and how often it was drawn.

    Attributes:
        template: the first of the equal ones.
        share: of all draws, those that gave this template or an equal one: turned into it by the normalizer or a
            mirror, or, where a cell is given, by an element of the normalizer that leaves the cell as it is.
    """

    template: SampledTemplate
    share: float


def ranked_templates(
    network: TemplateTransformer,
    condition: Condition,
    seed: int,
    draws: int,
    *,
    source: int = 0,
    temperature: TemplateTemperature | float = 1.0,
    charge_weight: float = 1.0,
) -> list[RankedTemplate]:
    """The different templates among some draws, the most frequent first and of equally frequent ones the first drawn.

    A share estimates the probability that the network gives the template, with a standard error of
    ``sqrt(share (1 - share) / draws)``.

    Args:
        network: in evaluation mode.
        condition: what is asked.
        seed: of the draws; they take no numbers from the streams of crystals.
        draws: templates drawn.
        source: data source token.
        temperature: of the choices.
        charge_weight: see ``draw_templates``.
    """
    streams = [np.random.default_rng([seed, draw, _DRAWS]) for draw in range(draws)]
    drawn = draw_templates(
        network, condition, streams, source=source, temperature=temperature, charge_weight=charge_weight
    )
    keys = _keys(drawn, condition)
    first: dict[Hashable, SampledTemplate] = dict(reversed(list(zip(keys, drawn))))
    return [RankedTemplate(first[key], count / draws) for key, count in Counter(keys).most_common()]


def _keys(drawn: Sequence[SampledTemplate], condition: Condition) -> list[Hashable]:
    """Equal for templates on which the same crystals lie.

    Those that the normalizer or a mirror turns into each other, and where a cell is given those that a part of the
    normalizer does which leaves the cell as it is.
    """
    if condition.cell is None:
        return [crystal.bucket_key for crystal in template_batch(drawn).to_crystals()]
    kept = {t.space_group_number: _permutations_in_cell(t.space_group_number, condition) for t in drawn}
    keys: list[Hashable] = []
    for template in drawn:
        letterings = kept[template.space_group_number][:, template.wyckoff_indices].tolist()
        elements = template.atomic_numbers.tolist()
        least = min(sorted(zip(letters, elements, strict=True)) for letters in letterings)
        keys.append((template.space_group_number, tuple(least)))
    return keys


def _permutations_in_cell(number: int, condition: Condition) -> Int[np.ndarray, "n positions"]:
    """What the elements of the normalizer that leave the given cell as it is do to the Wyckoff positions."""
    params = condition.lattice_params(number, num_atoms=1)
    assert params is not None
    cell = space_group(number).lattice_subspace.to_lattice(params, num_atoms=1)
    elements, metric = normalizer(number).elements, cell @ cell.T
    inverse = np.linalg.inv(elements.linear)
    changed = np.abs(inverse.mT @ metric @ inverse - metric).max(axis=(1, 2))
    return np.unique(elements.permutations[changed < _SAME_METRIC * np.trace(metric)], axis=0)


@torch.no_grad()
def _draw_constraints(
    network: TemplateTransformer,
    condition: Condition,
    generators: Sequence[np.random.Generator],
    *,
    source: int,
    temperature: float,
) -> list[TemplateConstraint]:
    """The constraint of each crystal: formulas leave the number of units open."""
    constraints = condition.constraints
    if len(constraints) == 1:
        return [constraints[0]] * len(generators)
    formula = condition.formula_counts
    assert formula is not None
    units = [sum(n for _, n in c.counts or ()) // sum(formula.values()) for c in constraints]
    # what the network was trained to read is one formula unit, its total left open
    batch = _asked([_Target(tuple(formula), tuple(formula.values()), closed=True, total=0)], source)
    logits = network.units_logits(batch.to(network.element_table.device)).double().cpu().numpy()[0]
    scaled = logits[np.array(units) - 1] / temperature
    weights = np.exp(scaled - scaled.max())
    cumulative = weights.cumsum()
    levels = np.array([g.random() for g in generators]) * cumulative[-1]
    picks = (cumulative[None, :] <= levels[:, None]).sum(axis=1)
    return [constraints[k] for k in picks]


def _target(constraint: TemplateConstraint) -> _Target:
    """What training called composition, elements, some elements, total or nothing."""
    total = constraint.max_atoms if constraint.min_atoms == constraint.max_atoms else 0
    if constraint.counts is not None:
        elements, counts = zip(*constraint.counts)
        return _Target(elements, counts, True, total)
    required = tuple(sorted(constraint.required))
    closed = bool(required) and constraint.required == constraint.allowed
    return _Target(required, (0,) * len(required), closed, total)


def _asked(targets: Sequence[_Target], source: int) -> TemplateBatch:
    """Templates without group and orbits, with what is known of their compositions."""
    width, n = max((len(t.elements) for t in targets), default=0), len(targets)
    elements, counts = torch.zeros(n, width, dtype=torch.int64), torch.zeros(n, width, dtype=torch.int64)
    for row, target in enumerate(targets):
        elements[row, : len(target.elements)] = torch.tensor(target.elements)
        counts[row, : len(target.counts)] = torch.tensor(target.counts)
    return TemplateBatch(
        torch.zeros(n, dtype=torch.int64),
        torch.full((n,), source, dtype=torch.int64),
        elements,
        counts,
        torch.tensor([t.closed for t in targets], dtype=torch.bool),
        torch.tensor([t.total for t in targets], dtype=torch.int64),
        torch.zeros(n, 0, dtype=torch.int64),
        torch.zeros(n, 0, dtype=torch.int64),
    )
