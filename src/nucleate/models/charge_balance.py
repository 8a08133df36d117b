"""How likely a composition is to be charge neutral, and what the template network makes of that.

Every element holds one oxidation state, drawn from its shares ``p(o|z)`` among the ICSD's reports. The charge of n_j
atoms of each element j is then distributed as

    P(Q = q) = 1/T sum_t exp(2 pi i q t / T) prod_j phi_j(n_j t),    phi_z(t) = sum_o p(o|z) exp(-2 pi i o t / T)

with charges counted modulo T: charges add, so their distributions convolve, so their Fourier transforms multiply. An
element is left out by leaving its factor out, which gives the probability that a new orbit balances the crystal, for
every element it may hold, and the distribution of an element's state given that the crystal is neutral.

Metals among themselves hold next to no negative states and are as good as never neutral; the network is told of them
separately.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from nucleate.crystal.tables import group_arrays
from nucleate.physics.elements import NUM_ELEMENTS, is_metal, oxidation_state_probabilities
from nucleate.shapes import Bool, Float, Int

_CHARGES = 512
"""T: charges are told apart modulo this; no cell of usual size holds as much of one sign."""

_LOWEST, _HIGHEST = -5, 9
"""Oxidation states that elements report."""

_FLOOR = 1e-5
"""Probabilities far below this are not told from 0."""

_SCALE = 8.0
"""Of the features in scores: their weights begin at zero and need not grow large to rule an element out."""


@dataclass(frozen=True, eq=False)
class Balance:
    """Charge balance of growing crystals: now, and with one orbit more.

    Attributes:
        now: probability that what is placed at each step is neutral, 1 where nothing is.
        metallic: 1 where no atom of a nonmetal is placed.
        after: probability that it is neutral after another orbit, by number of atoms of the orbit (row of
            ``ChargeBalance.sizes``) and element (column z - 1).
        best_placed: the highest of them among the elements that are placed already, 0 where none is.
        best_new: the highest of them among the others.
    """

    now: Float[Tensor, "n steps"]
    metallic: Float[Tensor, "n steps"]
    after: Float[Tensor, "n steps sizes elements"]
    best_placed: Float[Tensor, "n steps sizes"]
    best_new: Float[Tensor, "n steps sizes"]


class ChargeBalance(nn.Module):
    """What charge balance adds to tokens and log odds of the template network; nothing before it is trained.

    Args:
        width: channels of a token.
    """

    state_shares: Tensor
    metal: Tensor
    sizes: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        shares = torch.zeros(NUM_ELEMENTS + 1, _HIGHEST - _LOWEST + 1, dtype=torch.float64)
        shares[0, -_LOWEST] = 1
        for z in range(1, NUM_ELEMENTS + 1):
            for state, share in (oxidation_state_probabilities(z) or {0: 1.0}).items():
                shares[z, state - _LOWEST] = share
        metals = [1.0, *(float(is_metal(z)) for z in range(1, NUM_ELEMENTS + 1))]
        self.register_buffer("state_shares", shares, persistent=False)
        self.register_buffer("metal", torch.tensor(metals), persistent=False)
        sizes = torch.tensor(group_arrays()["num_images"].copy()).unique()
        self.register_buffer("sizes", sizes, persistent=False)
        self.crystal = nn.Linear(3, width, bias=False)
        self.target_states = nn.Linear(_HIGHEST - _LOWEST + 1, width, bias=False)
        self.step = nn.Linear(3, width, bias=False)
        self.end_weights = nn.Linear(width, 2)
        self.position_weights = nn.Linear(width, 2)
        self.element_weights = nn.Linear(width, 3)
        for part in self.children():
            for parameter in part.parameters():
                nn.init.zeros_(parameter)

    # ---- probabilities -------------------------------------------------------------------------------------

    def composition(
        self, elements: Int[Tensor, "n k"], counts: Float[Tensor, "n k"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n k states"]]:
        """Probability that a composition is neutral, and of each element's states if it is (zeros if it cannot be).

        Args:
            elements: atomic numbers, 0 for padding.
            counts: atoms of each.
        """
        factors = self._factors(elements, counts.long())
        neutral = _distribution(_product(factors))[:, 0]
        charges = (-counts.long()[:, :, None] * self._states()).remainder(_CHARGES)
        rest = _distribution(_products_of_others(factors))
        joint = rest.gather(2, charges) * self.state_shares.double()[elements]
        whole = joint.sum(dim=2, keepdim=True)
        return neutral, torch.where(whole > _FLOOR**2, joint / whole.clamp(min=_FLOOR**2), 0.0)

    def growing(
        self, own: Int[Tensor, "n own"], placed: Float[Tensor, "n steps own"], real: Bool[Tensor, "n steps"]
    ) -> Balance:
        """The balance of crystals at every step.

        Args:
            own: different elements of each crystal, 0 for padding.
            placed: atoms of each that are placed at each step.
            real: steps that are wanted; the others are given zeros.
        """
        crystals, steps = torch.nonzero(real, as_tuple=True)
        amounts, order = placed[crystals, steps].long().sort(dim=1, descending=True)
        elements = own[crystals].gather(1, order)
        kinds = (amounts > 0).sum(dim=1)
        kernel = self._kernel()
        shape, size = real.shape, len(self.sizes)
        now, metallic = kernel.new_zeros(shape), kernel.new_zeros(shape)
        after = kernel.new_zeros(*shape, size, NUM_ELEMENTS)
        best_placed, best_new = kernel.new_zeros(*shape, size), kernel.new_zeros(*shape, size)
        for k in kinds.unique().tolist():  # without padding: the transforms are what costs time here
            rows = torch.nonzero(kinds == k)[:, 0]
            at = (crystals[rows], steps[rows])
            there, counts = elements[rows, :k], amounts[rows, :k]
            now[at], new, with_placed = self._next(there, counts, kernel)
            metallic[at] = self.metal[there].prod(dim=1)
            column = (there - 1)[:, None].expand_as(with_placed)
            after[at] = new.scatter(2, column, with_placed)
            best_new[at] = new.scatter(2, column, 0.0).amax(dim=2)
            if k:
                best_placed[at] = with_placed.amax(dim=2)
        return Balance(now, metallic, after, best_placed, best_new)

    def _next(
        self, elements: Int[Tensor, "rows k"], counts: Int[Tensor, "rows k"], kernel: Tensor
    ) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows sizes elements"], Float[Tensor, "rows sizes k"]]:
        """Probability of neutrality now, with another orbit of a new element, and with one of each that is there."""
        factors = self._factors(elements, counts)
        charge = _distribution(_product(factors)).to(kernel.dtype)
        with torch.autocast(kernel.device.type, enabled=False):
            new = (charge @ kernel.T).view(-1, len(self.sizes), NUM_ELEMENTS)
        # Of an element that is there, all atoms have the same state.
        amounts = counts[:, :, None] + self.sizes
        charges = (-amounts[..., None] * self._states()).remainder(_CHARGES)
        rest = _distribution(_products_of_others(factors)).gather(2, charges.flatten(2)).view(charges.shape)
        there = (rest * self.state_shares.double()[elements][:, :, None]).sum(dim=3)
        return charge[:, 0], new, there.to(kernel.dtype).transpose(1, 2)

    def _kernel(self) -> Float[Tensor, "choices charges"]:
        """Share of the charge -q that so many atoms of an element can have: rows by size, then by element."""
        charges = (-self.sizes[:, None] * self._states()).remainder(_CHARGES)
        shares = self.state_shares[1:].to(self.metal.dtype)
        kernel = shares.new_zeros(len(self.sizes), NUM_ELEMENTS, _CHARGES)
        kernel.scatter_add_(
            2, charges[:, None].expand(-1, NUM_ELEMENTS, -1), shares.expand(len(self.sizes), -1, -1)
        )
        return kernel.flatten(0, 1)

    def _factors(self, elements: Int[Tensor, "n k"], counts: Int[Tensor, "n k"]) -> Tensor:
        """``phi`` of each element's atoms together: complex, compositions x elements x frequencies."""
        shares = self.state_shares.double()
        padded = shares.new_zeros(NUM_ELEMENTS + 1, _CHARGES)
        padded[:, self._states().remainder(_CHARGES)] = shares
        frequencies = torch.arange(_CHARGES // 2 + 1, device=elements.device)
        return torch.fft.fft(padded)[
            elements[:, :, None], (counts[:, :, None] * frequencies).remainder(_CHARGES)
        ]

    def _states(self) -> Int[Tensor, "states"]:
        return torch.arange(_LOWEST, _HIGHEST + 1, device=self.metal.device)

    # ---- readings ------------------------------------------------------------------------------------------

    def of_composition(
        self, elements: Int[Tensor, "n k"], counts: Float[Tensor, "n k"], known: Bool[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n width"], Float[Tensor, "n k width"]]:
        """What is added to the tokens of the crystal and of its elements, where the composition is known."""
        exact = self.metal.dtype
        neutral, states = (x.to(exact) for x in self.composition(elements, counts))
        metallic = self.metal[elements].prod(dim=1)
        of_crystal = self.crystal(torch.stack([_level(neutral), neutral, metallic], dim=1))
        return of_crystal * known[:, None], self.target_states(states) * known[:, None, None]

    def of_step(self, balance: Balance) -> Float[Tensor, "n steps width"]:
        """What is added to the token of a step."""
        return self.step(torch.stack([_level(balance.now), balance.now, balance.metallic], dim=2))

    def end_scores(
        self, balance: Balance, state: Float[Tensor, "n steps width"]
    ) -> Float[Tensor, "n steps 1"]:
        """What is added to the log odds of the end."""
        features = _SCALE * torch.stack([_level(balance.now), balance.now], dim=2)
        return (self.end_weights(state) * features).sum(dim=2, keepdim=True)

    def position_scores(
        self, balance: Balance, state: Float[Tensor, "n steps width"], atoms: Int[Tensor, "n choices"]
    ) -> Float[Tensor, "n steps choices"]:
        """What is added to the log odds of positions of so many atoms each."""
        features = _SCALE * torch.stack([_level(balance.best_placed), _level(balance.best_new)], dim=3)
        scores = (self.position_weights(state)[:, :, None] * features).sum(dim=3)
        return scores.gather(2, self._row(atoms)[:, None].expand(-1, scores.shape[1], -1))

    def element_scores(
        self,
        balance: Balance,
        hidden: Float[Tensor, "pairs width"],
        *,
        crystals: Int[Tensor, "pairs"],
        steps: Int[Tensor, "pairs"],
        atoms: Int[Tensor, "pairs"],
    ) -> Float[Tensor, "pairs elements"]:
        """What is added to the log odds of the elements of an orbit of so many atoms."""
        after = balance.after[crystals, steps, self._row(atoms)]
        metal = balance.metallic[crystals, steps][:, None] * self.metal[1:]
        features = _SCALE * torch.stack([_level(after), after, metal], dim=2)
        return (self.element_weights(hidden)[:, None] * features).sum(dim=2)

    def _row(self, atoms: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """Rows of ``sizes``."""
        return torch.searchsorted(self.sizes, atoms).clamp(max=len(self.sizes) - 1)


def _product(factors: Tensor) -> Tensor:
    """The product along the second dimension; of complex numbers on a GPU ``prod`` compiles kernels of its own."""
    return reduce(torch.mul, factors.unbind(1), factors.new_ones(len(factors), *factors.shape[2:]))


def _products_of_others(factors: Tensor) -> Tensor:
    """The product over all but each along the last dimension but one."""
    ones = torch.ones_like(factors[..., :1, :])
    before = torch.cat([ones, factors[..., :-1, :].cumprod(dim=-2)], dim=-2)
    after = torch.cat([factors[..., 1:, :].flip(-2).cumprod(dim=-2).flip(-2), ones], dim=-2)
    return before * after if factors.shape[-2] else factors


def _distribution(waves: Tensor) -> Float[Tensor, "*batch charges"]:
    """Probability of each charge, modulo T."""
    if not waves.numel():  # which the transform refuses
        return waves.real.new_zeros(*waves.shape[:-1], _CHARGES)
    return torch.fft.irfft(waves, n=_CHARGES).clamp(min=0)


def _level(probability: Tensor) -> Tensor:
    """A probability on a logarithmic scale from 0 at 0 to about 3 at 1."""
    return torch.log1p(probability / _FLOOR) / 4
