"""Properties read off crystals: learned ones hold for crystals not seen, and lead sampling through guidance."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from nucleate.crystal import Crystal, CrystalBatch, encode
from nucleate.data.bundled import load_bundled
from nucleate.errors import CheckpointError
from nucleate.generation import Condition, Generator
from nucleate.models.checkpoint import Checkpoint, default_weights, load_checkpoint, save_checkpoint
from nucleate.models.orbit_transformer import NoisyCrystals
from nucleate.models.property_head import PropertyHead, PropertyHeadConfig
from nucleate.prediction import PropertyReader


@pytest.fixture(scope="module")
def crystals() -> list[Crystal]:
    found = [encode(entry.unit_cell).crystal for entry in load_bundled()]
    return [crystal for crystal in found if crystal.num_orbits <= 8]


def _densities(crystals: list[Crystal]) -> np.ndarray:
    """g/cm^3."""
    return np.array([crystal.density for crystal in crystals])


def _trained(checkpoint: Checkpoint, crystals: list[Crystal], values: np.ndarray) -> Checkpoint:
    """The shipped network with a head fitted to one property of some crystals."""
    torch.manual_seed(0)
    assert checkpoint.geometry is not None
    width = checkpoint.geometry.config.scalars
    config = PropertyHeadConfig(
        width, ("density",), ("g/cm^3",), (float(values.mean()),), (float(values.std()),)
    )
    head = PropertyHead(config)
    batch = CrystalBatch.from_crystals(crystals, dtype=torch.float32)
    clean = torch.zeros(len(batch))
    with torch.no_grad():
        pooled = checkpoint.geometry(
            NoisyCrystals(batch, clean, clean, torch.zeros(len(batch), dtype=torch.int64))
        ).pooled
    optimiser = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.1)
    target = torch.tensor(values, dtype=torch.float32)
    for _ in range(300):
        optimiser.zero_grad()
        ((head(pooled)[:, 0] - target) ** 2).mean().backward()
        optimiser.step()
    return checkpoint.replace(properties=head.eval())


def _strained(crystals: list[Crystal]) -> list[Crystal]:
    """The crystals, and the same with a sixth more and less volume."""
    found = []
    for crystal in crystals:
        for factor in (1.0, 5 / 6, 7 / 6):
            params = crystal.lattice_params.copy()
            params[0] += np.log(factor) / 3**0.5
            found.append(
                Crystal(
                    crystal.space_group_number,
                    params,
                    crystal.wyckoff_indices,
                    crystal.atomic_numbers,
                    crystal.free_coords,
                )
            )
    return found


@pytest.fixture(scope="module")
def checkpoint(crystals: list[Crystal]) -> Checkpoint:
    seen = _strained(crystals[::2])
    return _trained(load_checkpoint(default_weights()), seen, _densities(seen))


def _r2(found: np.ndarray, true: np.ndarray) -> float:
    return float(1 - ((found - true) ** 2).sum() / ((true - true.mean()) ** 2).sum())


def test_a_learned_property_holds_for_crystals_not_seen(
    checkpoint: Checkpoint, crystals: list[Crystal]
) -> None:
    """Densities, which need composition and cell; values that belong to other crystals teach nothing."""
    seen, fresh = crystals[::2], crystals[1::2]
    reader = PropertyReader(checkpoint)
    assert (reader.names, reader.units) == (("density",), ("g/cm^3",))
    assert _r2(reader.predict(fresh)["density"], _densities(fresh)) > 0.4
    mixed = np.random.default_rng(0).permutation(_densities(seen))
    control = PropertyReader(_trained(load_checkpoint(default_weights()), seen, mixed))
    assert _r2(control.predict(fresh)["density"], _densities(fresh)) < 0.2


def test_a_property_does_not_depend_on_what_else_is_read_or_on_the_file(
    checkpoint: Checkpoint, crystals: list[Crystal], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "weights.safetensors", checkpoint)
    reader = PropertyReader.load(tmp_path / "weights.safetensors")
    whole = reader.predict(crystals)["density"]
    assert len(whole) == len(crystals) > 64
    some = reader.predict(crystals[70:64:-1])["density"]
    assert np.allclose(whole[70:64:-1], some, atol=2e-4 * np.abs(whole).max())
    assert reader.predict([])["density"].shape == (0,)


def test_guidance_by_a_property_moves_it_and_nothing_that_was_asked(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rocksalt made denser than it would be, by a function of the reader as ``module:function``."""
    reader = PropertyReader(checkpoint)
    wishes = ModuleType("wishes")
    wishes.dense = lambda batch: -reader.read(batch)[:, 0]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wishes", wishes)
    condition = Condition(formula="NaCl", space_groups=(225,), template="Na:a Cl:b")
    generator = Generator(checkpoint)
    plain, dense = (
        generator.generate(condition, 4, 0, guidance=guidance) for guidance in ({}, {"wishes:dense": 15.0})
    )
    before, after = (reader.predict(list(made))["density"] for made in (plain, dense))
    assert (after > before + 0.05).all()
    assert (_densities(list(dense)) > _densities(list(plain)) + 0.05).all()
    assert {(crystal.space_group_number, crystal.formula) for crystal in dense} == {(225, "ClNa")}


def test_weights_that_read_nothing_say_what_to_do() -> None:
    with pytest.raises(CheckpointError, match="read no properties: add a head that does"):
        PropertyReader(load_checkpoint(default_weights()).replace(properties=None))


def test_the_shipped_head_tells_salts_from_metals() -> None:
    """Of crystals it may have seen: a metal has no gap, rock salt a large one and an energy of formation."""
    reader = PropertyReader.load(default_weights())
    assert (reader.names, reader.units) == (("band_gap", "formation_energy_per_atom"), ("eV", "eV/atom"))
    names = {entry.id: entry for entry in load_bundled()}
    chosen = [encode(names[name].unit_cell).crystal for name in ("al-aluminium", "nacl-rock-salt")]
    said = reader.predict(chosen)
    assert abs(said["band_gap"][0]) < 0.3
    assert said["band_gap"][1] > 3
    assert said["formation_energy_per_atom"][1] < -1.5
