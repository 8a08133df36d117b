"""What the trainer asks of a task, and the template task in that form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from nucleate.models.template_transformer import TemplateTransformer
from nucleate.shapes import Int
from nucleate.training.crystal_stream import SourcedCrystals
from nucleate.training.element_exchange import exchange_elements
from nucleate.training.losses import Losses
from nucleate.training.template_task import (
    Condition,
    Template,
    TemplateTargets,
    make_template_batch,
    template_loss,
)

VALIDATION_CONDITIONS: tuple[Condition, ...] = ("composition", "elements", "nothing")


@runtime_checkable
class Task(Protocol):
    """A task makes examples of stored crystals, given a seed, and losses of a network on them."""

    def prepare(self, content: SourcedCrystals, seed: int, *, noise_level: float) -> Any:
        """An example: what the network sees and what it should have said."""

    def losses(self, network: Any, example: Any) -> Losses:
        """Mean losses over the example; ``loss`` is what training lowers."""

    def validation(self, network: Any, content: SourcedCrystals, seed: int) -> Mapping[str, Tensor]:
        """Mean losses on stored crystals, the same for the same seed."""

    def empty_tables(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """(sums, counts) of zeros for each table the task keeps up; nothing if it keeps none."""

    def learn(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take in what the losses of a step, of all ranks, told the tables of the task."""

    def sample(self, network: Any, content: SourcedCrystals, seed: int, steps: int) -> dict[str, float]:
        """Figures of samples made like stored crystals; nothing where the task makes none."""


@dataclass(frozen=True, eq=False)
class TemplateExample:
    """Templates in the form their loss wants; crystals can be picked.

    Attributes:
        targets: the templates.
        compositions: what group and number of units are read from, where that is not the same.
    """

    targets: TemplateTargets
    compositions: TemplateTargets | None = None

    def __len__(self) -> int:
        return len(self.targets.batch)

    def take(self, index: Int[Tensor, "chosen"]) -> TemplateExample:
        """The chosen crystals."""
        compositions = None if self.compositions is None else self.compositions.take(index)
        return TemplateExample(self.targets.take(index), compositions)


@dataclass(frozen=True, eq=False)
class TemplateTask:
    """What the template network learns: groups, positions and elements, given any part of the composition.

    Attributes:
        element_exchange: share of the training templates with elements exchanged for similar ones.
        composition_exchange: share of the compositions with exchanged elements that group and number of units are read
            from: a composition comes once or twice in the data, and both would be learned by heart.
    """

    element_exchange: float = 0.0
    composition_exchange: float = 0.0

    def prepare(self, content: SourcedCrystals, seed: int, *, noise_level: float) -> TemplateExample:
        """Templates with conditions drawn from the seed; discrete choices know no noise level."""
        rng, device = np.random.default_rng(seed), content.crystals.device
        templates = _exchanged(_templates(content), self.element_exchange, rng)
        targets = make_template_batch(templates, rng).to(device)
        if not self.composition_exchange:
            return TemplateExample(targets)
        others = _exchanged(templates, self.composition_exchange, rng)
        return TemplateExample(targets, make_template_batch(others, rng).to(device))

    def losses(self, network: TemplateTransformer, example: TemplateExample) -> Losses:
        """Nats per crystal: ``loss`` and its parts."""
        loss = template_loss(network, example.targets, compositions=example.compositions)
        return Losses({"loss": loss.total, **{f.name: getattr(loss, f.name) for f in fields(loss)}})

    def empty_tables(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Nothing: the task has no tables."""
        return {}

    def learn(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Nothing."""

    def sample(
        self, network: TemplateTransformer, content: SourcedCrystals, seed: int, steps: int
    ) -> dict[str, float]:
        """Nothing: templates are sampled with a search, which belongs to generation."""
        return {}

    def validation(
        self, network: TemplateTransformer, content: SourcedCrystals, seed: int
    ) -> dict[str, Tensor]:
        """Nats per crystal with the composition, the elements or nothing given; ``loss`` is their mean."""
        templates, device = _templates(content), content.crystals.device
        totals: dict[str, Tensor] = {}
        for condition in VALIDATION_CONDITIONS:
            targets = make_template_batch(templates, np.random.default_rng(seed), condition=condition)
            totals[condition] = template_loss(network, targets.to(device)).total
        return {"loss": torch.stack(list(totals.values())).mean(), **totals}


def _templates(content: SourcedCrystals) -> list[Template]:
    return [
        Template(source, c.space_group_number, c.wyckoff_indices, c.atomic_numbers)
        for source, c in zip(content.source.tolist(), content.crystals.to_crystals())
    ]


def _exchanged(templates: list[Template], share: float, rng: np.random.Generator) -> list[Template]:
    """The templates, a share of them with exchanged elements."""
    if not share:
        return templates
    return [
        replace(t, atomic_numbers=exchange_elements(t.atomic_numbers, rng)) if rng.random() < share else t
        for t in templates
    ]
