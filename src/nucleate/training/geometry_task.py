"""The geometry task: noisy lattices and coordinates of stored crystals, and the loss of a guess at the clean ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.lattice_torch import free_lattice_params
from nucleate.models.graph import image_pairs
from nucleate.models.orbit_transformer import MASKED_ELEMENT, Denoised, NoisyCrystals, OrbitTransformer
from nucleate.models.property_head import PropertyHead
from nucleate.processes.bond_valence_penalty import BOND_RADIUS, bond_valence_penalty
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.geometry_process import GeometryNoise, NoisyGeometry, clean_guess, geometry_losses
from nucleate.processes.penalties import (
    PAIR_RADIUS,
    REPULSION_RADIUS,
    density_penalty,
    distance_penalty,
    energy_function,
    per_atom,
    volume_penalty,
)
from nucleate.processes.schedule import LearnedSchedule
from nucleate.shapes import Bool, Float, Int
from nucleate.training.crystal_stream import SourcedCrystals
from nucleate.training.losses import Losses
from nucleate.training.sample_check import sample_quality


@dataclass(frozen=True, eq=False)
class GeometryExample:
    """Clean crystals with their noisy versions.

    Attributes:
        clean: stored crystals.
        noisy: the same at the noise levels, elements of some hidden.
        coord_level, lattice_level: noise level of each crystal's coordinates and lattice.
        coord_weight, lattice_weight: what each crystal's losses are weighed by; 1 but for a learned schedule.
        source: data source token, 0 where hidden.
        hidden: orbits whose element is hidden.
        labels: properties, NaN where the store has none.
    """

    clean: CrystalBatch
    noisy: NoisyGeometry
    coord_level: Float[Tensor, "crystals"]
    lattice_level: Float[Tensor, "crystals"]
    coord_weight: Float[Tensor, "crystals"]
    lattice_weight: Float[Tensor, "crystals"]
    source: Int[Tensor, "crystals"]
    hidden: Bool[Tensor, "orbits"]
    labels: Float[Tensor, "crystals properties"]

    def __len__(self) -> int:
        return len(self.source)

    def take(self, index: Int[Tensor, "chosen"]) -> GeometryExample:
        """The chosen crystals, in ascending order."""
        index = index.to(self.clean.device).sort().values
        kept = torch.isin(self.clean.orbit_to_crystal, index)
        noisy = NoisyGeometry(self.noisy.crystals[index], self.noisy.displacements[kept])
        by_crystal = ("coord_level", "lattice_level", "coord_weight", "lattice_weight", "source", "labels")
        chosen = {name: getattr(self, name)[index] for name in by_crystal}
        return GeometryExample(clean=self.clean[index], noisy=noisy, hidden=self.hidden[kept], **chosen)


@dataclass(frozen=True)
class PenaltyWeights:
    """Weights of the physics penalties on the clean crystals the network guesses; 0 leaves one out.

    Attributes:
        distance, volume, density, energy: see ``processes.penalties``.
        bond_valence: see ``processes.bond_valence_penalty``.
        energy_name: the potential.
    """

    distance: float = 0.0
    volume: float = 0.0
    density: float = 0.0
    energy: float = 0.0
    energy_name: str = "repulsion"
    bond_valence: float = 0.0

    @property
    def any(self) -> bool:
        """Whether one is switched on."""
        return bool(self.distance or self.volume or self.density or self.energy or self.bond_valence)

    def of(self, crystals: CrystalBatch, level: Float[Tensor, "crystals"]) -> dict[str, tuple[float, Tensor]]:
        """(weight, mean over the batch) of each penalty that is switched on.

        At high noise the guess is a mean over many crystals, whose atoms may well overlap: pair terms fade with it.
        Energies enter as ``asinh(E / eV)`` per atom, so that overlapping atoms do not drown everything else.
        """
        terms: dict[str, tuple[float, Tensor]] = {}
        if self.distance:
            near = distance_penalty(crystals, image_pairs(crystals, radius=PAIR_RADIUS)) * (1 - level)
            terms["distance"] = (self.distance, near.mean())
        if self.volume:
            terms["volume"] = (self.volume, volume_penalty(crystals).mean())
        if self.density:
            terms["density"] = (self.density, density_penalty(crystals).mean())
        if self.energy:
            energy = energy_function(self.energy_name, partial(image_pairs, radius=REPULSION_RADIUS))(
                crystals
            )
            terms["energy"] = (self.energy, (torch.asinh(energy) * (1 - level)).mean())
        if self.bond_valence:
            bonds = bond_valence_penalty(crystals, partial(image_pairs, radius=BOND_RADIUS))
            terms["bond_valence"] = (self.bond_valence, (torch.asinh(bonds) * (1 - level)).mean())
        return terms


@dataclass(frozen=True, eq=False)
class GeometryTask:
    """What the geometry network learns.

    Attributes:
        choice: the noise, with its statistics, and the schedule of its levels.
        source_dropout: how often the source is hidden, so that source 0 stands for any.
        same_time: how often coordinates and lattice share one noise level.
        time_power: times are ``u^time_power``, u uniform.
        lattice_weight: of the lattice loss beside the coordinate loss.
        penalties: physics.
        element_share, element_weight: how often a crystal's elements are hidden, and the weight of guessing them.
        head, property_weight: what reads properties off the network, and the weight of that.
    """

    choice: ProcessChoice
    source_dropout: float = 0.1
    same_time: float = 0.7
    time_power: float = 1.7
    lattice_weight: float = 0.3
    penalties: PenaltyWeights = field(default_factory=PenaltyWeights)
    element_share: float = 0.0
    element_weight: float = 0.1
    head: PropertyHead | None = None
    property_weight: float = 0.1

    def prepare(self, content: SourcedCrystals, seed: int, *, noise_level: float) -> GeometryExample:
        """Noisy crystals; noise levels are those of times in [0, ``noise_level``]."""
        generator = torch.Generator().manual_seed(seed)
        clean, n, device = content.crystals, len(content), content.crystals.device
        uniform = torch.rand(5, n, generator=generator)
        coord_time = noise_level * uniform[0] ** self.time_power
        lattice_time = torch.where(uniform[1] < self.same_time, coord_time, noise_level * uniform[2])
        share = torch.where(uniform[4] < self.element_share, torch.rand(n, generator=generator), 0.0)
        noise = GeometryNoise.draw(clean, generator)
        hidden = torch.rand(len(clean.position_ids), generator=generator).to(device)
        return self.example(
            content,
            noise,
            coord_time=coord_time.to(device),
            lattice_time=lattice_time.to(device),
            told_source=(uniform[3] >= self.source_dropout).to(device),
            hidden=hidden < share.to(device)[clean.orbit_to_crystal],
        )

    def example(
        self,
        content: SourcedCrystals,
        noise: GeometryNoise,
        *,
        coord_time: Float[Tensor, "crystals"],
        lattice_time: Float[Tensor, "crystals"],
        told_source: Bool[Tensor, "crystals"],
        hidden: Bool[Tensor, "orbits"],
    ) -> GeometryExample:
        """The example of given times and noise."""
        clean, schedule = content.crystals, self.choice.schedule
        coord_level, lattice_level = schedule.level(coord_time), schedule.level(lattice_time)
        ones = torch.ones_like(coord_time)
        learned = isinstance(schedule, LearnedSchedule)
        with torch.autocast(clean.device.type, enabled=False):  # geometry keeps its digits in mixed precision
            noisy = self.choice.process.corrupt(clean, coord_level, lattice_level, noise)
        elements = torch.where(hidden, MASKED_ELEMENT, clean.atomic_numbers)
        labels = content.labels if content.labels is not None else clean.lattice_params[:, :0]
        return GeometryExample(
            clean=clean,
            noisy=replace(noisy, crystals=noisy.crystals.replace(atomic_numbers=elements)),
            coord_level=coord_level,
            lattice_level=lattice_level,
            coord_weight=schedule.slope(coord_time) if learned else ones,
            lattice_weight=schedule.slope(lattice_time) if learned else ones,
            source=content.source * told_source,
            hidden=hidden,
            labels=labels,
        )

    def losses(self, network: OrbitTransformer, example: GeometryExample) -> Losses:
        """Mean losses of a batch, ``loss`` being what training lowers, and what they tell the level tables."""
        noisy, clean = example.noisy, example.clean
        process = self.choice.process
        told = process.told_level(clean, example.coord_level)
        guess = network(NoisyCrystals(noisy.crystals, told, example.lattice_level, example.source))
        with torch.autocast(clean.device.type, enabled=False):
            guess = replace(
                guess,
                displacements=guess.displacements.float(),
                lattice_params=guess.lattice_params.float(),
                element_logits=guess.element_logits.float(),
                pooled=guess.pooled.float(),
            )
            levels = example.coord_level, example.lattice_level
            coord, lattice = geometry_losses(process, guess, noisy, clean, *levels)
            parts = {
                "coord": (coord * example.coord_weight).mean(),
                "lattice": (lattice * example.lattice_weight).mean(),
            }
            loss = parts["coord"] + self.lattice_weight * parts["lattice"]
            if self.penalties.any:
                ideal = clean_guess(noisy.crystals, guess).replace(atomic_numbers=clean.atomic_numbers)
                for name, (weight, value) in self.penalties.of(ideal, example.coord_level).items():
                    parts[name] = value
                    loss = loss + weight * value
            if self.element_share:
                parts["element"] = element_loss(guess.element_logits, clean, example.hidden)
                loss = loss + self.element_weight * parts["element"]
            if self.head is not None:
                found, errors = property_loss(self.head, guess.pooled, example.labels)
                loss = loss + self.property_weight * found
                parts |= {"property": found, **errors}
        return Losses(
            {"loss": loss, **parts}, self._observed(example, guess, coord + self.lattice_weight * lattice)
        )

    @torch.no_grad()
    def _observed(
        self, example: GeometryExample, guess: Denoised, loss: Float[Tensor, "crystals"]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """(sums, counts) by level bin of the loss and of the squared errors of the lattice."""
        choice = self.choice
        values = loss.detach()[:, None]
        known = torch.ones_like(values, dtype=torch.bool)
        own = choice.process.lattice.std.to(guess.lattice_params)
        error = ((guess.lattice_params - example.clean.lattice_params) / own) ** 2
        free = free_lattice_params(example.clean.space_group_number).bool()
        return {
            "loss": choice.loss_table.bin_sums(example.coord_level, values, known),
            "lattice_error": choice.lattice_error.bin_sums(example.lattice_level, error, free),
        }

    def empty_tables(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Zeros for the tables of a learned schedule or of a diffusion's variance; nothing where neither is used."""
        choice = self.choice
        if choice.schedule_name != "learned" and choice.process.kind != "diffusion":
            return {}
        found = {"loss": choice.loss_table.sums, "lattice_error": choice.lattice_error.sums}
        return {name: (torch.zeros_like(sums), torch.zeros_like(sums)) for name, sums in found.items()}

    def sample(
        self, network: OrbitTransformer, content: SourcedCrystals, seed: int, steps: int
    ) -> dict[str, float]:
        """Figures of one sample per template; see ``sample_quality``."""
        return sample_quality(network, self.choice, content, seed=seed, steps=steps)

    def learn(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add what was seen (of all ranks) to the level tables."""
        self.choice.loss_table.add(*tables["loss"])
        self.choice.lattice_error.add(*tables["lattice_error"])

    def validation(self, network: OrbitTransformer, content: SourcedCrystals, seed: int) -> Losses:
        """The same losses with the source known, at all noise levels alike, on noise drawn from the seed."""
        plain = replace(self, source_dropout=0.0, time_power=1.0)
        return plain.losses(network, plain.prepare(content, seed, noise_level=1.0))


def movable_share(crystals: CrystalBatch) -> Float[Tensor, "crystals"]:
    """Share of each crystal's atoms that have free coordinates."""
    return per_atom(crystals, (crystals.num_free > 0).to(crystals.dtype))


def element_loss(
    logits: Float[Tensor, "orbits elements"], clean: CrystalBatch, hidden: Bool[Tensor, "orbits"]
) -> Float[Tensor, ""]:
    """Nats per hidden orbit; 0 where none is hidden."""
    nats = torch.nn.functional.cross_entropy(logits, clean.atomic_numbers - 1, reduction="none")
    return (nats * hidden).sum() / hidden.sum().clamp(min=1)


def property_loss(
    head: PropertyHead, pooled: Float[Tensor, "crystals s"], labels: Float[Tensor, "crystals properties"]
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """(Huber loss over the labels that are there, mean absolute error of each property in its unit)."""
    said = head.standardised(pooled)
    known = torch.isfinite(labels)
    wanted = torch.where(known, (labels - head.means) / head.stds, said.detach())
    loss = torch.nn.functional.huber_loss(said, wanted, reduction="none")
    count = known.sum()
    errors = ((said - wanted).detach().abs() * head.stds * known).sum(dim=0)
    by_name = {
        f"mae_{name}": error / number
        for name, error, number in zip(head.config.names, errors, known.sum(dim=0).clamp(min=1))
    }
    return loss.sum() / count.clamp(min=1), by_name
