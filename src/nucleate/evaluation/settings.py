"""What an evaluation is asked to do: every threshold and tolerance in one place, each with its source."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from nucleate.errors import ConfigError

SomeSettings = TypeVar("SomeSettings")


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation; a family's rows are computed again when one it ``uses`` changes.

    Attributes:
        symprecs: tolerances (Å) at which space groups are looked for.
        min_distance: shortest distance (Å) of a structurally valid crystal; 0.5 as in CDVAE (Xie et al. 2022).
        min_volume: smallest volume (Å³) of a valid cell; 0.1 as in CDVAE.
        ltol, stol, angle_tol: tolerances of pymatgen's StructureMatcher for uniqueness and novelty (its
            defaults, as in CDVAE's successors).
        csp_ltol, csp_stol, csp_angle_tol: the same for crystal structure prediction; 0.3, 0.5, 10 as in DiffCSP.
        samples: number k of samples per test structure in crystal structure prediction.
        potential: potential that energies come from (``nucleate.energetics``).
        relax_steps: most steps of a relaxation.
        relax_fmax: largest force (eV/Å) of a relaxed crystal.
        hull_thresholds: energies above the hull (eV/atom) at which stability is counted.
        cov_structure_cutoff, cov_composition_cutoff: cut-offs of COV-R and COV-P; 0.4 and 10 as in CDVAE for
            MP-20.
        reference_sample: crystals of the held-out part of the reference that are scored beside the set.
        resamples: bootstrap samples of each interval and relabellings of each permutation test.
    """

    symprecs: tuple[float, ...] = (0.1, 0.01, 0.001)
    min_distance: float = 0.5
    min_volume: float = 0.1
    ltol: float = 0.2
    stol: float = 0.3
    angle_tol: float = 5.0
    csp_ltol: float = 0.3
    csp_stol: float = 0.5
    csp_angle_tol: float = 10.0
    samples: int = 1
    potential: str = "chgnet"
    relax_steps: int = 500
    relax_fmax: float = 0.05
    hull_thresholds: tuple[float, ...] = (0.0, 0.025, 0.08, 0.1)
    cov_structure_cutoff: float = 0.4
    cov_composition_cutoff: float = 10.0
    reference_sample: int = 1000
    resamples: int = 1000

    def __post_init__(self) -> None:
        for name in ("samples", "reference_sample", "resamples", "relax_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.symprecs or not all(0 < s < 10 for s in self.symprecs):
            raise ConfigError(f"symprecs must be distances between 0 and 10 Å, got {self.symprecs}")

    def changed(self, texts: Iterable[str]) -> Settings:
        """These settings with some of them replaced by ``NAME=VALUE``; several numbers are joined by commas.

        Raises:
            ConfigError: a text without ``=``, an unknown name, or a value of another kind.
        """
        return changed_settings(self, texts)

    def digest(self, names: Iterable[str]) -> str:
        """Hash of the settings with these names.

        Raises:
            ConfigError: there is no setting of a name.
        """
        known = {field.name for field in fields(self)}
        chosen = sorted(set(names))
        for name in chosen:
            if name not in known:
                raise ConfigError(f"There is no setting {name!r}; there are {', '.join(sorted(known))}")
        text = json.dumps({name: getattr(self, name) for name in chosen}, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_json(self) -> dict[str, object]:
        """The settings as they stand in ``summary.json``."""
        return json.loads(json.dumps(asdict(self)))


def changed_settings(settings: SomeSettings, texts: Iterable[str]) -> SomeSettings:
    """A frozen dataclass of scalars and tuples of numbers with some fields replaced by ``NAME=VALUE``.

    Several numbers are joined by commas; flags are ``true`` or ``false``.

    Raises:
        ConfigError: a text without ``=``, an unknown name, or a value of another kind.
    """
    known = [field.name for field in fields(settings)]  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"A setting is NAME=VALUE, got {text!r}")
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}"
            raise ConfigError(f"There is no setting {name!r}; {hint}")
        now = getattr(settings, name)
        try:
            changes[name] = _parsed(value.strip(), now)
        except (ValueError, KeyError) as error:
            raise ConfigError(
                f"The setting {name} is {now!r} by default; {value!r} is no such value"
            ) from error
    return replace(settings, **changes)  # type: ignore[type-var]


def _parsed(text: str, like: Any) -> Any:
    if isinstance(like, tuple):
        return tuple(float(part) for part in text.split(","))
    if isinstance(like, bool):
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
    return type(like)(text)
