"""``load(path).generate(condition, n, seed)``: crystals that meet a condition, checked, and written if asked."""

from __future__ import annotations

import hashlib
import math
import operator
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nucleate.crystal.crystal import Crystal
from nucleate.errors import CheckpointError, ConditionError
from nucleate.generation.block_sampling import Networks, SamplingSettings, sampled_block
from nucleate.generation.block_workers import check_workers, made_blocks, one_thread
from nucleate.generation.checks import GeneratedRow
from nucleate.generation.condition import Condition
from nucleate.generation.geometry_sampling import check_guidance, network_denoiser
from nucleate.generation.result_folder import ResultFolder, Sitting, versions
from nucleate.generation.template_sampling import RankedTemplate, TemplateModel, ranked_templates
from nucleate.models.checkpoint import Checkpoint, default_weights, load_checkpoint
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.joint_process import JointProcess
from nucleate.processes.template_constraints import TemplateConstraint
from nucleate.processes.template_process import TemplateTemperature

BATCH_SIZE, BATCH_SIZE_CPU = 1_000, 256
"""Crystals sampled together by default. An accelerator takes about as long for a thousand as for a few."""
STEPS = 8
TEMPERATURE = TemplateTemperature(group=0.85, positions=0.7, elements=0.8)
"""Measured de novo: space groups, numbers of elements and of atoms are then as near to held-out crystals as training
ones are; one temperature for all reaches some of them only (docs/generator-benchmarks.md)."""
CHARGE_WEIGHT = 3.0
"""Measured de novo: as many compositions are valid by SMACT's rule as of real crystals, 2 points more than at 1
(docs/generator-benchmarks.md)."""
RESTARTS = 3
"""A quarter more time than 20 steps without restarts, and far more matches (docs/weights.md)."""
AUTOGUIDANCE = 1.5
"""Measured on held-out templates: 1 and 2 give 1 to 2 points fewer matches (docs/weights.md)."""
CANDIDATES_FOR_GIVEN = 16
"""Templates drawn for each crystal of which atoms are given (``Condition.judges_templates``)."""
CANDIDATES_FOR_PROPERTIES = 32
"""Templates drawn at most for each crystal of which properties are asked for."""
LATTICE_TEMPERATURE = 0.5
"""Measured on held-out templates: 4 points more matches than 1.0 (docs/weights.md)."""
GUIDANCE: Mapping[str, float] = {"distance": 20.0, "volume": 3.0}
"""Atoms within 0.5 Å of each other in a tenth as many crystals as without, densities nearer to real ones
(docs/generator-benchmarks.md)."""


@dataclass(frozen=True)
class GenerationProgress:
    """Where a generation is: crystals finished, crystals asked for, and the share of all work done."""

    done: int
    total: int
    fraction: float


@dataclass(frozen=True, eq=False)
class Generation:
    """Generated crystals with their checks, in the order of their random streams.

    Attributes:
        crystals: the crystals.
        rows: one row per crystal, as in ``crystals.csv``.
    """

    crystals: tuple[Crystal, ...]
    rows: tuple[GeneratedRow, ...]

    def __len__(self) -> int:
        return len(self.crystals)

    def __iter__(self) -> Iterator[Crystal]:
        """The crystals, in order."""
        return iter(self.crystals)

    def __getitem__(self, index: int) -> Crystal:
        """One of the crystals."""
        return self.crystals[index]


class Generator:
    """The networks of a checkpoint, ready to sample.

    Args:
        checkpoint: with a geometry and a template network.
        device: where they run.
        name: what the weights are called in ``run.json``.
        digest: hash of the file of weights; by default that of the weights themselves.

    Raises:
        CheckpointError: a network is missing.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device | str = "cpu",
        name: str = "",
        digest: str = "",
    ) -> None:
        missing = [part for part in ("geometry", "template") if getattr(checkpoint, part) is None]
        if missing:
            raise CheckpointError(
                f"The weights {name or 'given'} hold no {' and no '.join(missing)} network: train both parts "
                "(`nucleate train DIR --part both`), or add one with --init"
            )
        assert checkpoint.geometry is not None
        assert checkpoint.template is not None
        assert checkpoint.lattice_mean is not None
        assert checkpoint.lattice_std is not None
        self.device = torch.device(device)
        self.geometry = checkpoint.geometry.to(self.device).eval()
        self.weak = None if checkpoint.weak is None else checkpoint.weak.to(self.device).eval()
        self.template = checkpoint.template.to(self.device).eval()
        self.choice = ProcessChoice.from_state(
            checkpoint.process,
            {name: table.to(self.device) for name, table in checkpoint.process_tables.items()},
            lattice_mean=checkpoint.lattice_mean.to(self.device),
            lattice_std=checkpoint.lattice_std.to(self.device),
        )
        self.head = None if checkpoint.properties is None else checkpoint.properties.to(self.device).eval()
        self.sources, self.history = checkpoint.sources, checkpoint.history
        self.name, self.digest = name, digest or self._digest()

    def generate(
        self,
        condition: Condition | None = None,
        n: int = 1,
        seed: int = 0,
        *,
        batch_size: int | None = None,
        steps: int = STEPS,
        restarts: int = RESTARTS,
        autoguidance: float | None = None,
        candidates: int | None = None,
        ranked: int = 0,
        temperature: TemplateTemperature | float = TEMPERATURE,
        charge_weight: float = CHARGE_WEIGHT,
        lattice_temperature: float = LATTICE_TEMPERATURE,
        guidance: Mapping[str, float] | None = None,
        mixed_precision: bool = False,
        workers: int = 1,
        out: str | os.PathLike[str] | None = None,
        on_progress: Callable[[GenerationProgress], None] | None = None,
    ) -> Generation:
        """``n`` crystals that meet the condition, every one from its own random stream.

        The same seed gives the same crystals whatever the batch size, n and the number of workers: bitwise on a CPU
        without mixed precision. Elsewhere rounding differs with the batch size, and grows along the path of an
        unstable crystal: formulas, groups and templates are then the same, coordinates of a few per cent are not.

        Args:
            condition: what is given; nothing by default.
            n: crystals wanted.
            seed: crystal i comes from stream (seed, i).
            batch_size: crystals sampled together, and how often results are written; by default 256, and 1,000 on an
                accelerator.
            steps: passes of the geometry network from noise to crystal.
            restarts: times that a finished geometry gets noise of the level 0.4 again and is denoised once more.
            autoguidance: how far every guess is led away from that of the weaker network in the weights; by default
                ``AUTOGUIDANCE`` where they hold one, 0 is without.
            candidates: geometries drawn for each crystal's template, of which the one with the smallest
                ``denoising_error`` is kept; better geometries for proportionally more time. Where atoms are given
                by coordinates or in their cell and elements or further orbits are open, each has a template of its own,
                and one is kept as probably as what is given is likely with it. By default 1, and
                ``CANDIDATES_FOR_GIVEN`` there. Where properties are asked for, each has a template of its own too, and
                they are made until one has the properties, ``CANDIDATES_FOR_PROPERTIES`` at most by default.
            ranked: templates drawn beforehand; where it is above 0 the crystals come on the different ones among them,
                one each, the most frequent first (and once more from the first one when all have come), so that the
                first crystal is the best answer to a formula. Those before the n-th are the same whatever n is.
            temperature: of the template's choices, one number or one each for group, positions and elements: 1 is the
                network's own distribution, below 1 is more typical.
            charge_weight: how often what charge balance says of the next element is counted where the composition is
                open: 1 is the network's own distribution, 0 leaves it out, more gives more compositions that balance.
            lattice_temperature: scale of the lattice noise that the geometry starts from; below 1 the cells are more
                typical, 0 is the most typical one.
            guidance: strength of each soft physical term that pulls on the geometry while it is sampled: distance,
                volume, density, bond_valence, repulsion, or the ``module:function`` of a differentiable energy; by
                default ``GUIDANCE``, and nothing where the mapping is empty.
            mixed_precision: matrix products of the geometry network in bfloat16, as it was trained: faster on
                accelerators and on processors made for it, slower on others; other crystals than without.
            workers: processes that sample side by side, one batch each at a time and in one thread each; as many as
                there are cores are fastest. They are started afresh, so that a script that asks for more than 1 keeps
                its own work under ``if __name__ == "__main__":``.
            out: folder for CIFs, tables and ``run.json``; a run that was stopped there goes on.
            on_progress: told while sampling.

        Raises:
            ConditionError: the condition or n cannot be met.
            ConfigError: there is no such guidance.
            NucleateError: ``out`` holds something else.
            KeyboardInterrupt: Ctrl-C; with ``out`` everything finished is kept.
        """
        condition = condition or Condition()
        if batch_size is None:
            batch_size = BATCH_SIZE_CPU if self.device.type == "cpu" else BATCH_SIZE
        if candidates is None:
            if condition.judges_templates:
                candidates = CANDIDATES_FOR_GIVEN
            else:
                candidates = CANDIDATES_FOR_PROPERTIES if condition.properties else 1
        self._check_properties(condition)
        if ranked and condition.properties:
            raise ConditionError(
                "Ranked templates are counted without a look at properties: leave ranked out, or the properties"
            )
        if ranked and condition.judges_templates:
            raise ConditionError(
                "Ranked templates are counted without a look at the given geometry, which has a say here: leave ranked "
                "out (more candidates do better), or open the coordinates"
            )
        for name, value in (
            ("n", n),
            ("batch_size", batch_size),
            ("steps", steps),
            ("candidates", candidates),
        ):
            if value < 1:
                raise ConditionError(f"{name} must be at least 1, got {value}")
        seed = operator.index(seed)
        for name, value in (("seed", seed), ("restarts", restarts), ("ranked", ranked)):
            if value < 0:
                raise ConditionError(f"{name} must not be negative, got {value}")
        autoguidance = self._autoguidance(autoguidance)
        check_workers(workers, self.device)
        temperature = TemplateTemperature.of(temperature)
        scales = {"lattice_temperature": lattice_temperature, "charge_weight": charge_weight}
        for name, scale in scales.items():
            if not 0 <= scale < math.inf:
                raise ConditionError(f"{name} must be a number that is not negative, got {scale}")
        guidance = {
            name: float(value) for name, value in (GUIDANCE if guidance is None else guidance).items()
        }
        check_guidance(guidance)
        settings = SamplingSettings(
            seed,
            steps,
            restarts,
            autoguidance,
            candidates,
            temperature,
            charge_weight,
            lattice_temperature,
            self._source_token(condition),
            tuple(sorted(guidance.items())),
            mixed_precision,
        )
        asked = {
            "condition": condition.to_dict(),
            "seed": seed,
            "batch_size": batch_size,
            "steps": steps,
            "restarts": restarts,
            "autoguidance": autoguidance,
            "candidates": candidates,
            "ranked": ranked,
            "temperature": asdict(temperature),
            "charge_weight": charge_weight,
            "lattice_temperature": lattice_temperature,
            "guidance": guidance,
            "mixed_precision": mixed_precision,
            "weights": {"name": self.name, "hash": self.digest},
        }
        folder = None if out is None else ResultFolder(out)
        rows, crystals = folder.begin(asked) if folder is not None else ([], [])
        began, num_before = time.monotonic(), len(rows)
        about = {"asked": asked, "weights": self._weights()}
        have = {row.index for row in rows}
        wholes = [range(first, min(first + batch_size, n)) for first in range(0, n, batch_size)]
        blocks = [left for whole in wholes if (left := [i for i in whole if i not in have])]

        def report(made: float) -> None:
            if on_progress is not None:
                on_progress(GenerationProgress(min(len(rows), n), n, min(1.0, (len(have) + made) / n)))

        def write_down() -> None:
            if folder is not None and blocks:
                seconds = round(time.monotonic() - began, 3)
                sitting = Sitting(len(rows) - num_before, seconds, str(self.device), versions())
                folder.write_sitting(sitting, num_asked=n, num_crystals=len(rows), about=about)

        networks = Networks(self.geometry, self.weak, self.template, self.choice, self.device, self.head)
        try:
            ranking = self._ranking(condition, ranked, settings) if blocks else []
            make = partial(sampled_block, networks, condition, settings, ranking)
            with closing(made_blocks(make, blocks, workers=workers, report=report)) as results:
                for _, (checked, new) in results:
                    pairs = sorted([*zip(rows, crystals), *zip(checked, new)], key=lambda pair: pair[0].index)
                    rows, crystals = [row for row, _ in pairs], [crystal for _, crystal in pairs]
                    if folder is not None:
                        folder.add(list(zip(checked, new)), rows, crystals)
                    write_down()
        except KeyboardInterrupt as interrupt:
            if folder is None:
                raise
            raise KeyboardInterrupt(
                f"{len(rows)} of {n} crystals are kept in {folder.path}: repeat the command to go on."
            ) from interrupt
        finally:
            write_down()
        wanted = [(row, crystal) for row, crystal in zip(rows, crystals) if row.index < n]
        return Generation(tuple(crystal for _, crystal in wanted), tuple(row for row, _ in wanted))

    def joint_process(self, *, source: str | None = None) -> JointProcess:
        """All fields joined, any of them given: completion of given orbits, substitution in a given geometry.

        ``generate`` covers what a ``Condition`` can say; this takes ``TemplateConstraint`` and ``GivenParts``.
        """
        token = self._source_token(Condition(source=source))

        def model(constraints: Sequence[TemplateConstraint]) -> TemplateModel:
            return TemplateModel(self.template, constraints, source=token)

        return JointProcess(self.choice, model, network_denoiser(self.geometry, source=token), self.device)

    def _ranking(self, condition: Condition, draws: int, settings: SamplingSettings) -> list[RankedTemplate]:
        """The ranked templates that all blocks of a run share; none of no draws."""
        if not draws:
            return []
        with one_thread():
            return ranked_templates(self.template, condition, settings.seed, draws, **settings.of_templates())

    def _autoguidance(self, asked: float | None) -> float:
        if asked is None:
            return 0.0 if self.weak is None else AUTOGUIDANCE
        if not 0 <= asked < math.inf:
            raise ConditionError(f"autoguidance must be a number that is not negative, got {asked}")
        if asked and self.weak is None:
            raise ConditionError(
                f"The weights {self.name or 'given'} hold no weaker network that autoguidance could lead away from: "
                "add one with `nucleate train DIR --part weak --init WEIGHTS`, or leave autoguidance out"
            )
        return asked

    def _check_properties(self, condition: Condition) -> None:
        """Whether the weights read what is asked for."""
        if self.head is None and condition.properties:
            raise ConditionError(
                f"The weights {self.name or 'given'} read no properties: add a head that does (`nucleate train STORE "
                "--init WEIGHTS --part properties --properties band_gap`, with a store that has them)."
            )
        for target in condition.targets:
            assert self.head is not None
            config = self.head.config
            if target.name not in config.names:
                known = [
                    f"{name} ({unit})" if unit else name for name, unit in zip(config.names, config.units)
                ]
                raise ConditionError(
                    f"The weights read no property {target.name!r}; they read {', '.join(known)}."
                )

    def _source_token(self, condition: Condition) -> int:
        if condition.source is None:
            return 0
        if condition.source not in self.sources:
            raise ConditionError(
                f"The weights know no data source {condition.source!r}; they know {', '.join(self.sources) or 'none'}."
            )
        return self.sources.index(condition.source) + 1

    def _digest(self) -> str:
        state = hashlib.blake2b(repr(self.choice.settings()).encode(), digest_size=16)
        networks: dict[str, torch.nn.Module | None] = {
            "geometry": self.geometry,
            "weak": self.weak,
            "template": self.template,
            "properties": self.head,
        }
        for part, network in networks.items():
            for name, tensor in {} if network is None else network.state_dict().items():
                state.update(f"{part}.{name}".encode() + tensor.cpu().numpy().tobytes())
        return state.hexdigest()

    def _weights(self) -> dict[str, Any]:
        return {"data_hash": self.history.data_hash, "attribution": list(self.history.attribution)}


def load(path: str | os.PathLike[str] | None = None, *, device: torch.device | str = "cpu") -> Generator:
    """A generator with the weights of a file, or with those that come with the package.

    Raises:
        CheckpointError: there are no weights, or they do not fit.
    """
    weights = Path(path) if path is not None else default_weights()
    try:
        digest = hashlib.blake2b(weights.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        digest = ""  # load_checkpoint says what is wrong with the file
    return Generator(load_checkpoint(weights, device=device), device=device, name=weights.name, digest=digest)
