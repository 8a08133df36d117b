"""The potential of a worker process: loaded once by name, with a sign of life after each of its calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nucleate.crystal import UnitCell
    from nucleate.energetics.potential import Evaluation, Potential

_listeners: list[Callable[[], None]] = []


def on_sign_of_life(listener: Callable[[], None]) -> None:
    """Have a function called after every call of a shared potential in this process."""
    _listeners.append(listener)


def sign_of_life() -> None:
    """Tell the process's watcher that what runs here is not hanging, such as while a program of others runs."""
    for listener in _listeners:
        listener()


class SharedPotential:
    """A potential that tells the process's watcher after each call that it is not hanging.

    Args:
        potential: what evaluates; every other attribute is its own.
    """

    def __init__(self, potential: Potential) -> None:
        self._potential = potential
        self.name = potential.name
        self.identity = potential.identity
        self.corrections = potential.corrections

    def __getattr__(self, name: str) -> Any:
        return getattr(self._potential, name)

    def evaluate(self, cells: Sequence[UnitCell]) -> list[Evaluation]:
        """Evaluations of the cells, in order."""
        results = self._potential.evaluate(cells)
        sign_of_life()
        return results


@functools.cache
def shared_potential(name: str, device: str = "cpu") -> SharedPotential:
    """The potential of a name, one for the whole process.

    Raises:
        PotentialError: no such potential, or it is not installed.
    """
    from nucleate.energetics.named_potentials import load_potential  # noqa: PLC0415  torch loads with it

    return SharedPotential(load_potential(name, device=device))
