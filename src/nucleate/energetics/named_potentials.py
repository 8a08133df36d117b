"""Potentials by name: CHGNet, well-known foundation models where installed, any ASE calculator or torch-sim model."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nucleate.energetics.ase_potential import ASEPotential
from nucleate.energetics.chgnet_potential import CHGNetPotential
from nucleate.energetics.potential import Potential
from nucleate.energetics.torch_sim_potential import TorchSimPotential, is_torch_sim_model
from nucleate.errors import PotentialError


def load_potential(name: str = "chgnet", *, device: str = "cpu") -> Potential:
    """The potential of a name.

    - ``chgnet``, ``chgnet:r2scan``: CHGNet with the weights it ships;
    - ``mace``, ``mace:MODEL`` (``mace-torch``), ``orb:MODEL`` (``orb-models`` 0.6 or later), ``sevennet:MODEL``
      (``sevenn``), ``mattersim``, ``mattersim:MODEL``: where those packages are installed; they fetch their weights
      themselves on first use;
    - ``package.module:factory``: a function or class without arguments that gives an ASE calculator, such as
      ``ase.calculators.emt:EMT``, or a model of torch-sim (one of its wrappers, with forces and stress), which takes
      many crystals in one call. Its identity is the name, the version of the package and a hash of the module's source.

    Args:
        name: one of these.
        device: torch device of the learned ones.

    Raises:
        PotentialError: no such potential, or it is not installed.
    """
    family, _, model = name.partition(":")
    if family == "chgnet":
        return CHGNetPotential(model or "0.3.0", device=device)
    if family in _FAMILIES:
        return _learned(family, model, device)
    if not model:
        raise PotentialError(
            f"There is no potential {name!r}; there are chgnet, {', '.join(_FAMILIES)}, and 'module:factory' for "
            "any ASE calculator or torch-sim model"
        )
    return _from_factory(family, model)


def _mace(model: str, device: str) -> Any:
    from mace.calculators import mace_mp  # noqa: PLC0415  installed by few

    return mace_mp(model=model, device=device, default_dtype="float64")


def _orb(model: str, device: str) -> Any:
    from orb_models.forcefield import pretrained  # noqa: PLC0415  installed by few
    from orb_models.forcefield.inference.calculator import ORBCalculator  # noqa: PLC0415

    regressor, adapter = getattr(pretrained, model)(device=device)
    return ORBCalculator(regressor, atoms_adapter=adapter, device=device)


def _sevennet(model: str, device: str) -> Any:
    from sevenn.calculator import SevenNetCalculator  # noqa: PLC0415  installed by few

    return SevenNetCalculator(model=model, device=device)


def _mattersim(model: str, device: str) -> Any:
    from mattersim.forcefield import MatterSimCalculator  # noqa: PLC0415  installed by few

    return MatterSimCalculator(load_path=model, device=device)


_FAMILIES: dict[str, tuple[Callable[[str, str], Any], str, str]] = {
    "mace": (_mace, "mace-torch", "medium-mpa-0"),
    "orb": (_orb, "orb-models", "orb_v3_conservative_inf_omat"),
    "sevennet": (_sevennet, "sevenn", "7net-0"),
    "mattersim": (_mattersim, "mattersim", "mattersim-v1.0.0-1M"),
}
"""Maker, package and default weights of each family."""


def _learned(family: str, model: str, device: str) -> ASEPotential:
    make, package, default = _FAMILIES[family]
    model = model or default
    try:
        calculator = make(model, device)
    except ModuleNotFoundError as error:
        raise PotentialError(f"{family} is not installed ({error}): pip install {package}") from error
    except Exception as error:  # each package raises its own for weights it does not know or cannot fetch
        reason = " ".join(str(error).split())
        raise PotentialError(f"{package} gives no potential {model!r}: {reason}") from error
    return ASEPotential(calculator, identity=f"{package} {version(package)} weights {model}", name=family)


def _from_factory(module_name: str, attribute: str) -> Potential:
    try:
        module = importlib.import_module(module_name)
        factory = getattr(module, attribute)
    except (ImportError, AttributeError) as error:
        raise PotentialError(
            f"{module_name}:{attribute} cannot be loaded ({error}); a potential is named by the module and the "
            "function or class that gives an ASE calculator or a torch-sim model, such as ase.calculators.emt:EMT"
        ) from error
    package = module_name.partition(".")[0]
    try:
        release = f"{package} {version(package)}"
    except PackageNotFoundError:
        release = package
    file = inspect.getsourcefile(module)
    source = hashlib.blake2b(Path(file).read_bytes(), digest_size=8).hexdigest() if file else "no source"
    identity = f"{module_name}:{attribute} of {release}, source {source}"
    made = factory()
    if is_torch_sim_model(made):
        return TorchSimPotential(made, identity=identity, name=attribute)
    return ASEPotential(made, identity=identity, name=attribute)
