"""The folder of a training run: what it was asked, its curves, its checkpoints and its weights."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucleate.errors import TrainingError
from nucleate.models.template_transformer import SWITCHES
from nucleate.training.config import TrainingConfig, config_yaml

NON_FINITE = "non_finite.csv"
METRICS = ("part", "step", "minutes", "split", "quantity", "value")
_DEFAULTS = TrainingConfig(max_steps=1).to_flat() | {
    "keep": "last",
    **{f"template_{name}": False for name in SWITCHES},
}
"""What settings were in runs of before they could be set."""
_BUDGET_KEYS = {"minutes", "max_steps", "devices", "nodes", "accelerator", "compile"}


class RunFolder:
    """Paths and small files of one run; a run that was stopped goes on in the same folder.

    ``config.yaml``, ``run.json`` (data and what is finished), ``metrics.csv``, ``loss.png``, ``samples.png``,
    ``non_finite.csv``, ``weights.safetensors``, ``checkpoints/`` and ``tensorboard/``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def weights(self) -> Path:
        """The averaged weights, written when they are validated."""
        return self.path / "weights.safetensors"

    @property
    def metrics(self) -> Path:
        """Table of all losses, one number per row."""
        return self.path / "metrics.csv"

    def checkpoint(self, part: str) -> Path:
        """Everything needed to go on with a part."""
        return self.path / "checkpoints" / f"{part}.ckpt"

    def begin(
        self, config: TrainingConfig, *, data_hash: str, store: str, init: str | os.PathLike[str] | None
    ) -> None:
        """Write what was asked, or check that the run in the folder is the same one.

        A run of which nothing was kept is forgotten: the command that failed on a setting does not block its folder.

        Args:
            config: the settings.
            data_hash: of the store.
            store: where it lies.
            init: file of the weights to start from; told apart by content, their name is kept for people.

        Raises:
            TrainingError: the folder holds something else, or a run with other settings, data or initial weights;
                only the budget and the devices may change.
        """
        asked = {
            "config": config.to_flat(),
            "data_hash": data_hash,
            "store": store,
            "init": None if init is None else os.path.basename(os.fspath(init)),
            "init_hash": None if init is None else _file_hash(init),
            "finished": {},
        }
        found = self.state()
        if found is None:
            strangers = sorted(p.name for p in self.path.iterdir()) if self.path.exists() else []
            if strangers:
                raise TrainingError(
                    f"{self.path} is not empty and holds no training run ({', '.join(strangers[:5])}): "
                    "name a new folder with --out"
                )
            self.path.mkdir(parents=True, exist_ok=True)
        elif not self._has_kept_something(found):
            for path in (self.metrics, self.path / NON_FINITE):
                path.unlink(missing_ok=True)
        else:
            if differing := _differing(found, asked):
                raise TrainingError(
                    f"{self.path} holds a run with other settings ({'; '.join(differing)}): name another folder "
                    "with --out, or repeat the old settings"
                )
            asked["finished"] = found["finished"]
        self._write_state(asked)
        write_text(self.path / "config.yaml", config_yaml(config))

    def _has_kept_something(self, state: Mapping[str, Any]) -> bool:
        """Whether a part is finished, or there are weights or a checkpoint to go on from."""
        return bool(
            state["finished"] or self.weights.exists() or any((self.path / "checkpoints").glob("*.ckpt"))
        )

    def state(self) -> dict[str, Any] | None:
        """What ``run.json`` says, None where there is no run."""
        try:
            return json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise TrainingError(
                f"{self.path / 'run.json'} cannot be read ({error}): name a new folder"
            ) from error

    def finish(self, part: str, cost: Mapping[str, Any]) -> None:
        """Note that a part has spent its budget."""
        state = self.state() or {}
        self._write_state({**state, "finished": {**state.get("finished", {}), part: dict(cost)}})

    def finished(self, part: str, config: TrainingConfig) -> bool:
        """Whether a part has spent the budget it is given now."""
        cost = ((self.state() or {}).get("finished") or {}).get(part)
        if cost is None:
            return False
        minutes = config.minutes_of(part)
        by_time = minutes is not None and cost["minutes"] >= minutes
        return by_time or (config.max_steps is not None and cost["steps"] >= config.max_steps)

    def interruption(self) -> KeyboardInterrupt:
        """What a training that was stopped by Ctrl-C ends with."""
        return KeyboardInterrupt(f"what is trained is kept in {self.path}: repeat the command to go on.")

    def _write_state(self, state: Mapping[str, Any]) -> None:
        write_text(self.path / "run.json", json.dumps(state, indent=1) + "\n")

    # ---- curves --------------------------------------------------------------------------------------------

    def forget_after(self, part: str, step: int) -> None:
        """Drop rows of a part that a resumed run will write again."""
        if not self.metrics.exists():
            return
        rows = [r for r in self.read_metrics() if r["part"] != part or int(r["step"]) <= step]
        lines = [",".join(METRICS), *(",".join(r[name] for name in METRICS) for r in rows)]
        write_text(self.metrics, "\n".join(lines) + "\n")

    def add_metrics(
        self, part: str, step: int, minutes: float, split: str, values: Mapping[str, float]
    ) -> None:
        """Append one row per quantity."""
        new = not self.metrics.exists()
        with self.metrics.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if new:
                writer.writerow(METRICS)
            for name, value in values.items():
                writer.writerow([part, step, f"{minutes:.3f}", split, name, f"{value:.6g}"])

    def read_metrics(self) -> list[dict[str, str]]:
        """All rows of the table."""
        if not self.metrics.exists():
            return []
        with self.metrics.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def add_non_finite(self, part: str, step: int, ids: list[str], what: str) -> None:
        """Note crystals whose loss or gradient was not finite; without any, a row whose id is empty."""
        path = self.path / NON_FINITE
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if new:
                writer.writerow(("part", "step", "id", "not_finite"))
            writer.writerows((part, step, record_id, what) for record_id in ids or [""])


def write_text(path: Path, text: str) -> None:
    """Write a file so that it appears complete or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _file_hash(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _differing(found: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What the run in a folder and the one asked for differ in, for people."""
    there = {**_DEFAULTS, **found["config"], "data_hash": found["data_hash"], "init": _weights(found, asked)}
    wanted = {**asked["config"], "data_hash": asked["data_hash"], "init": _weights(asked, found)}
    return [
        "other data"
        if name == "data_hash"
        else f"{name} {there.get(name)!r} there, {wanted.get(name)!r} asked"
        for name in sorted({*there, *wanted} - _BUDGET_KEYS)
        if there.get(name) != wanted.get(name)
    ]


def _weights(run: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """What tells the initial weights of a run from those of another: their hash, their name where one has none."""
    mine, theirs = run.get("init_hash"), other.get("init_hash")
    if not (mine and theirs):
        return run["init"]
    return mine if mine == theirs else f"{run['init']} with hash {mine}"
