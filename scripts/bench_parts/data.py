"""Synthetic data at three scales: Zipf(0.6) users, Zipf(0.9) items, ids in random order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.types import Interactions

DIM = 64


@dataclass(frozen=True)
class Scale:
    """A size of data set: training pairs, and a tenth as many held out."""

    name: str
    n_users: int
    n_items: int
    n_train: int

    @cached_property
    def parts(self) -> tuple[Interactions, Interactions]:
        """Training and held-out pairs."""
        held_out = self.n_train // 10
        key = _pairs(self.n_users, self.n_items, self.n_train + held_out)
        chosen = torch.zeros(len(key), dtype=torch.bool)
        chosen[torch.randperm(len(key), generator=generator(0, "bench split"))[:held_out]] = True
        return self._made(key[~chosen]), self._made(key[chosen])

    @property
    def train(self) -> Interactions:
        """Training pairs."""
        return self.parts[0]

    def model(self) -> MF:
        """A prepared matrix factorisation of width 64."""
        made = MF(dim=DIM)
        made.prepare(self.train, generator(0, "bench model"))
        return made

    def _made(self, key: Tensor) -> Interactions:
        user = torch.div(key, self.n_items, rounding_mode="floor")
        return Interactions(user, key % self.n_items, self.n_users, self.n_items)


SCALES = {
    "S": Scale("S", 6_000, 6_000, 110_000),
    "M": Scale("M", 6_040, 3_706, 1_000_000),
    "L": Scale("L", 100_000, 100_000, 5_000_000),
}


def _pairs(n_users: int, n_items: int, number: int) -> Tensor:
    """`number` distinct keys user * n_items + item, sorted."""
    draws = generator(0, "bench data")
    key = torch.empty(0, dtype=torch.int64)
    while len(key) < number:
        missing = number - len(key)
        user = _zipf(n_users, 0.6, missing * 5 // 4 + 100, draws)
        item = _zipf(n_items, 0.9, len(user), draws)
        key = torch.unique(torch.cat([key, user * n_items + item]))
    kept = torch.randperm(len(key), generator=draws)[:number]
    key = key[kept]
    # Ids in random order: that neighbours in popularity were neighbours in memory would flatter the caches.
    user_id, item_id = torch.randperm(n_users, generator=draws), torch.randperm(n_items, generator=draws)
    user = user_id[torch.div(key, n_items, rounding_mode="floor")]
    return (user * n_items + item_id[key % n_items]).sort().values


def _zipf(n: int, exponent: float, number: int, draws: torch.Generator) -> Tensor:
    mass = torch.arange(1, n + 1, dtype=torch.float64).pow(-exponent).cumsum(0)
    place = torch.rand(number, generator=draws, dtype=torch.float64) * mass[-1]
    return torch.searchsorted(mass, place).clamp(max=n - 1)
