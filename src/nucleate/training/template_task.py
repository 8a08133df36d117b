"""The template task: batches of templates with random order, letters and conditions, and the loss on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.normalizer import normalizer
from nucleate.crystal.tables import group_arrays
from nucleate.models.round_size import round_size
from nucleate.models.template_transformer import MAX_UNITS, TemplateBatch, TemplateTransformer
from nucleate.physics.elements import NUM_ELEMENTS
from nucleate.shapes import Bool, Float, Int

Condition = Literal["composition", "elements", "some_elements", "total", "nothing"]

CONDITION_SHARES: dict[Condition, float] = {
    "composition": 0.45,
    "elements": 0.15,
    "some_elements": 0.1,
    "total": 0.1,
    "nothing": 0.2,
}
"""How often training gives each condition: every count; the elements; some of them; the number of atoms; nothing."""

TOTAL_SHARE = 0.3
"""How often the number of atoms is given along with elements."""

SOURCE_DROPOUT = 0.15
"""How often the source is hidden, so that source 0 stands for any."""

PADDED_TOGETHER = 64
"""Templates, of like length, that are padded to the longest of them."""

_COLUMNS, _PAIRS = 4, 256
"""Numbers of orbits, of elements and of (crystal, step, orbit) are padded to multiples of these: see ``round_size``."""


@dataclass(frozen=True, eq=False)
class Template:
    """The discrete half of a stored crystal.

    Attributes:
        source: data source token, 1 or more.
        space_group_number: 1 to 230.
        wyckoff_indices: position of each orbit, 0 for letter a.
        atomic_numbers: element of each orbit.
    """

    source: int
    space_group_number: int
    wyckoff_indices: Int[np.ndarray, "orbits"]
    atomic_numbers: Int[np.ndarray, "orbits"]


@dataclass(frozen=True, eq=False)
class TemplateTargets:
    """What ``template_loss`` needs beside the batch.

    Attributes:
        batch: the templates, orbits in random order, with what is given of the composition.
        unit_counts: atoms of each target element in one formula unit, 0 where the composition is not given.
        units: formula units per primitive cell, 0 where the composition is not given or units are too many.
    """

    batch: TemplateBatch
    unit_counts: Int[Tensor, "n targets"]
    units: Int[Tensor, "n"]

    def take(self, index: Int[Tensor, "chosen"]) -> TemplateTargets:
        """Those of the chosen crystals."""
        batch = TemplateBatch(**{f.name: getattr(self.batch, f.name)[index] for f in fields(self.batch)})
        return TemplateTargets(batch, self.unit_counts[index], self.units[index])

    def in_few_sizes(self) -> TemplateTargets:
        """The same, padded no further than to the next four columns."""
        b = self.batch
        orbits, targets = (_columns(x) for x in (b.positions >= 0, b.target_elements > 0))
        batch = replace(
            b,
            positions=_with_columns(b.positions, orbits, -1),
            elements=_with_columns(b.elements, orbits, 0),
            target_elements=_with_columns(b.target_elements, targets, 0),
            target_counts=_with_columns(b.target_counts, targets, 0),
        )
        return TemplateTargets(batch, _with_columns(self.unit_counts, targets, 0), self.units)

    def to(self, device: torch.device | str) -> TemplateTargets:
        """The same on another device."""
        return TemplateTargets(self.batch.to(device), self.unit_counts.to(device), self.units.to(device))


@dataclass(frozen=True, eq=False)
class TemplateLoss:
    """Nats per crystal: negative log-likelihoods, averaged over the batch.

    ``position`` and ``element`` are expectations over the order in which the orbits come: a set of k different
    orbits is counted log k! nats too dear.
    """

    group: Float[Tensor, ""]
    units: Float[Tensor, ""]
    position: Float[Tensor, ""]
    element: Float[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """What training lowers."""
        return self.group + self.units + self.position + self.element


def make_template_batch(
    templates: Sequence[Template], rng: np.random.Generator, *, condition: Condition | None = None
) -> TemplateTargets:
    """A batch with orbits in random order, letters permuted by the normalizer, and part of the composition given.

    Args:
        templates: stored templates.
        rng: source of order, letters and conditions.
        condition: the same condition for all and the source known (as in validation); by default drawn from
            ``CONDITION_SHARES``.
    """
    tables = group_arrays()
    n, most = len(templates), max(len(t.wyckoff_indices) for t in templates)
    widest = max(len(set(t.atomic_numbers.tolist())) for t in templates)
    group, source, total, units = (np.zeros(n, dtype=np.int64) for _ in range(4))
    closed = np.zeros(n, dtype=bool)
    elements, positions = np.zeros((n, most), dtype=np.int64), np.full((n, most), -1, dtype=np.int64)
    target, counts, unit_counts = (np.zeros((n, widest), dtype=np.int64) for _ in range(3))
    kinds, shares = list(CONDITION_SHARES), list(CONDITION_SHARES.values())
    drawn = rng.choice(len(kinds), n, p=shares)
    for i, template in enumerate(templates):
        number, k = template.space_group_number, len(template.wyckoff_indices)
        permutations = normalizer(number).letter_permutations
        letters = permutations[rng.integers(len(permutations))][template.wyckoff_indices]
        order = rng.permutation(k)
        positions[i, :k] = tables["position_start"][number - 1] + letters[order]
        elements[i, :k] = template.atomic_numbers[order]
        group[i] = number
        kind = condition or kinds[drawn[i]]
        source[i] = template.source if condition or rng.random() >= SOURCE_DROPOUT else 0
        sizes = tables["num_images"][positions[i, :k]]
        if kind == "total" or (kind != "nothing" and not condition and rng.random() < TOTAL_SHARE):
            total[i] = sizes.sum()
        if kind in ("total", "nothing"):
            continue
        present = rng.permutation(np.unique(template.atomic_numbers))
        if kind == "some_elements":
            present = present[: rng.integers(1, len(present) + 1)]
        else:
            closed[i] = True
        target[i, : len(present)] = present
        if kind == "composition":
            amounts = np.array([sizes[elements[i, :k] == z].sum() for z in present])
            divisor = int(np.gcd.reduce(amounts))
            counts[i, : len(present)], total[i] = amounts, sizes.sum()
            unit_counts[i, : len(present)] = amounts // divisor
            units[i] = divisor if divisor <= MAX_UNITS else 0
    batch = TemplateBatch(
        *(torch.as_tensor(x) for x in (group, source, target, counts, closed, total, positions, elements))
    )
    return TemplateTargets(batch, torch.as_tensor(unit_counts), torch.as_tensor(units))


def template_loss(
    model: TemplateTransformer, targets: TemplateTargets, *, compositions: TemplateTargets | None = None
) -> TemplateLoss:
    """Nats per crystal of group, number of formula units, positions (with the end) and elements.

    Group and number of units are read from ``compositions``, by default those of the targets.

    At each step every orbit still to come is equally likely to be the next, so the loss of a step is the mean over
    them: the expectation over all orders of the rest, with less noise than one order. Choices that the simplest
    counting rules out (a used-up position, more atoms than are left) are masked here as they are in sampling.

    Templates of like length are padded together: most have a few orbits and some have two dozen.
    """
    order, parts = targets.batch.num_orbits.argsort(), []
    for index in order.split(PADDED_TOGETHER):
        others = None if compositions is None else compositions.take(index).in_few_sizes()
        loss = _loss_of_padded(model, targets.take(index).in_few_sizes(), others)
        parts.append((len(index) / len(order), loss))
    return TemplateLoss(
        **{
            f.name: torch.stack([share * getattr(loss, f.name) for share, loss in parts]).sum()
            for f in fields(TemplateLoss)
        }
    )


def _loss_of_padded(
    model: TemplateTransformer, targets: TemplateTargets, compositions: TemplateTargets | None
) -> TemplateLoss:
    """``template_loss`` of templates that are padded to the longest of them."""
    batch, compositions = targets.batch, compositions or targets
    n, device = len(batch), batch.source.device
    group_loss = torch.nn.functional.cross_entropy(
        model.group_logits(compositions.batch).float(), compositions.batch.space_group_number - 1
    )
    states = model(batch)
    length = batch.num_orbits
    crystals, steps, orbits, real = _pairs(length)
    share = real / (length[crystals] - steps).float()
    start = model.position_start[batch.space_group_number - 1]
    log_position = _masked_log_softmax(
        model.position_logits(states, batch.space_group_number), _position_mask(model, batch)
    )
    positions = batch.positions[crystals, orbits]
    chosen = log_position[crystals, steps, positions - start[crystals] + 1]
    ends = log_position[torch.arange(n, device=device), length, 0]
    logits = model.element_logits(states, batch, crystals=crystals, steps=steps, positions=positions)
    log_element = _masked_log_softmax(
        logits, _element_mask(model, batch, states.placed, crystals, steps, positions)
    )
    element = log_element[torch.arange(len(crystals), device=device), batch.elements[crystals, orbits] - 1]
    return TemplateLoss(
        group=group_loss,
        units=_units_loss(model, compositions),
        position=-((chosen * share).sum() + ends.sum()) / n,
        element=-(element * share).sum() / n,
    )


def _units_loss(model: TemplateTransformer, targets: TemplateTargets) -> Float[Tensor, ""]:
    batch, known = targets.batch, targets.units > 0
    empty = batch.positions[:, :0]
    formula = replace(
        batch,
        space_group_number=torch.zeros_like(batch.space_group_number),
        target_counts=targets.unit_counts,
        total_atoms=torch.zeros_like(batch.total_atoms),
        positions=empty,
        elements=empty,
    )
    wanted = torch.where(known, targets.units - 1, 0)
    losses = torch.nn.functional.cross_entropy(model.units_logits(formula).float(), wanted, reduction="none")
    return torch.where(known, losses, 0.0).mean()


def _pairs(length: Int[Tensor, "n"]) -> tuple[Tensor, Tensor, Tensor, Float[Tensor, "pairs"]]:
    """Every (crystal, step, orbit) with the orbit not placed before the step: 1. Repeated up to a round size: 0."""
    index = torch.arange(int(length.max()), device=length.device)
    later = index[None, :, None] <= index[None, None, :]
    found = torch.nonzero(later & (index < length[:, None])[:, None, :])
    more = round_size(len(found), least=_PAIRS) - len(found)
    crystals, steps, orbits = torch.cat([found, found[-1:].expand(more, 3)]).T
    real = torch.ones(len(found), device=length.device)
    return crystals, steps, orbits, torch.nn.functional.pad(real, (0, more))


def _columns(real: Bool[Tensor, "n columns"]) -> int:
    return round_size(int(real.sum(dim=1).max()), least=_COLUMNS)


def _with_columns(values: Int[Tensor, "n columns"], count: int, padding: int) -> Int[Tensor, "n count"]:
    return torch.nn.functional.pad(values, (0, count - values.shape[1]), value=padding)


def _masked_log_softmax(
    logits: Float[Tensor, "*batch choices"], allowed: Bool[Tensor, "*batch choices"]
) -> Float[Tensor, "*batch choices"]:
    return torch.log_softmax(logits.masked_fill(~allowed, -1e9), dim=-1)


def _position_mask(model: TemplateTransformer, batch: TemplateBatch) -> Bool[Tensor, "n steps choices"]:
    """Positions not used up and not larger than what is left; the end only when nothing is left to place."""
    start = model.position_start[batch.space_group_number - 1]
    count = model.position_start[batch.space_group_number] - start
    choices = torch.arange(int(count.max()), device=start.device)
    ids = (start[:, None] + choices).clamp(max=len(model.multiplicity) - 2)
    sizes = model.multiplicity[ids]
    free = torch.as_tensor(group_arrays()["num_free"].copy(), device=start.device)[ids]
    real = batch.positions >= 0
    placed = torch.where(real, model.multiplicity[batch.positions.clamp(min=0)], 0.0)
    on = (batch.positions[:, :, None] == ids[:, None, :]) & (free == 0)[:, None, :]
    used = _before(on.float()) > 0
    total = batch.total_atoms.float()[:, None]
    left = torch.where(total > 0, total - _before(placed[:, :, None])[:, :, 0], torch.inf)
    of_target = placed[:, :, None] * (batch.elements[:, :, None] == batch.target_elements[:, None, :])
    done = _before(of_target)
    missing = ((done == 0) & (batch.target_elements > 0)[:, None, :]).any(dim=2)
    counts = batch.target_counts.float()[:, None, :]
    most = (
        torch.where((counts > 0).any(dim=2), (counts - done).amax(dim=2), torch.inf)
        if done.shape[2]
        else left
    )
    room = torch.minimum(left, most)
    positions = ~used & (sizes[:, None, :] <= room[:, :, None]) & (choices < count[:, None])[:, None, :]
    steps = torch.arange(batch.positions.shape[1] + 1, device=start.device)
    end = torch.where(total > 0, left == 0, ~missing & (steps > 0))
    return torch.cat([end[:, :, None], positions], dim=2)


def _before(values: Float[Tensor, "n orbits features"]) -> Float[Tensor, "n steps features"]:
    """Sums over the orbits placed before each step."""
    return torch.nn.functional.pad(values.cumsum(dim=1), (0, 0, 1, 0))


def _element_mask(
    model: TemplateTransformer,
    batch: TemplateBatch,
    placed: Tensor,
    crystals: Tensor,
    steps: Tensor,
    positions: Tensor,
) -> Bool[Tensor, "pairs elements"]:
    """Elements that may occur and of which enough atoms are left."""
    wanted, targets = batch.target_counts[crystals].float(), batch.target_elements[crystals]
    fits = (wanted == 0) | (wanted - placed[crystals, steps] >= model.multiplicity[positions][:, None])
    allowed = ~batch.elements_closed[crystals][:, None].expand(-1, NUM_ELEMENTS + 1)
    return allowed.scatter(1, targets, fits)[:, 1:]
