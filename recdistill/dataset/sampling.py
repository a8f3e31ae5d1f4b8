"""Exact uniform draws of items that a user has not seen, without a rejection loop."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.types import Interactions


class UnseenSampler:
    """Uniform draws from the complement of each user's item set, by a gap map.

    With a user's sorted items p_0 < p_1 < ..., the r-th item outside the set is r + #{k : p_k - k <= r}. The keys
    `user * I + (p_k - k)` are sorted over all users, so one `searchsorted` answers a whole draw; its shape does not
    depend on the data, which a device needs.

    Args:
        start: [U + 1] row pointers of the excluded items.
        item: [n] excluded items, sorted within a user, without repeats.
        n_items: size of the catalogue.
    """

    def __init__(self, start: Tensor, item: Tensor, n_items: int) -> None:
        """Build the keys."""
        degree = start.diff()
        user = torch.repeat_interleave(torch.arange(len(degree), device=item.device), degree, output_size=len(item))
        position = torch.arange(len(item), device=item.device) - start[user]
        self.n_items = n_items
        self.start = start[:-1].contiguous()
        self.n_unseen = n_items - degree  # [U]
        self.key = user * n_items + (item - position)

    def nth_unseen(self, user: Tensor, nth: Tensor) -> Tensor:
        """The `nth` (0-based) item outside a user's set.

        Shapes:
            user, nth: the same shape, int64, 0 <= nth < n_unseen[user]. Returns: items of that shape.
        """
        return nth + torch.searchsorted(self.key, user * self.n_items + nth, right=True) - self.start[user]

    def draw(self, user: Tensor, generator: torch.Generator) -> Tensor:
        """One uniform unseen item per entry of `user` (any shape); users without unseen items are not allowed."""
        # float64: float32 cannot address more than 2^24 items evenly.
        share = torch.rand(user.shape, generator=generator, dtype=torch.float64, device=user.device)
        count = self.n_unseen[user]
        return self.nth_unseen(user, torch.minimum((share * count).long(), count - 1))

    def draw_distinct(self, user: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`number` different unseen items per user, every set equally likely (Floyd's algorithm over all users).

        Shapes:
            user: [B]. Returns: items [B, number] int64 and valid [B, number] bool (false where a user has fewer).
        """
        count = self.n_unseen[user]
        share = torch.rand(len(user), number, generator=generator, dtype=torch.float64, device=user.device)
        chosen = torch.full((len(user), number), -1, dtype=torch.int64, device=user.device)
        for step in range(number):
            last = count - number + step  # [B]; below 0 where the user has fewer unseen items than `number`
            drawn = torch.minimum((share[:, step] * (last + 1)).long(), last)
            repeated = (chosen[:, :step] == drawn.unsqueeze(1)).any(1)
            chosen[:, step] = torch.where(last < 0, -1, torch.where(repeated, last, drawn))
        valid = chosen >= 0
        item = self.nth_unseen(user.unsqueeze(1).expand_as(chosen), chosen.clamp(min=0))
        return torch.where(valid, item, torch.zeros_like(item)), valid


def unseen_sampler(interactions: Interactions, device: torch.device | str = "cpu") -> UnseenSampler:
    """The sampler of items that a user has not interacted with."""
    start, item = interactions.csr()
    return UnseenSampler(start.to(device), item.to(device), interactions.n_items)


class SeenItems:
    """The seen items of any set of users as flat (row, item) pairs, to be left out of a score matrix.

    Args:
        interactions: what is seen.
        device: where the pairs are needed.
    """

    def __init__(self, interactions: Interactions, device: torch.device | str = "cpu") -> None:
        """Move the row pointers to the device."""
        start, item = interactions.csr()
        degree = start.diff()
        self._most = degree.sort(descending=True).values.cumsum(0).numpy()  # on the host: a bound without a sync
        self.start, self.item, self.degree = start.to(device), item.to(device), degree.to(device)

    def flat(self, user: Tensor, counted: Tensor | None = None, *, static: bool | None = None) -> tuple[Tensor, Tensor]:
        """Row (position in `user`) and item of every seen pair.

        Shapes:
            user: [B] int64, different users where `counted` [B] bool is true (None: everywhere); the other rows give
            no pairs. Returns: row [n], item [n]. On the CPU n is exact; elsewhere n is an upper bound that is known
            without a sync, and surplus entries have row B (`static` forces or forbids that; None: by device).
        """
        n_rows, n_pairs = len(user), len(self.item)
        degree = self.degree[user] if counted is None else self.degree[user] * counted
        end = degree.cumsum(0)
        if n_rows == 0 or n_pairs == 0:
            return user.new_empty(0), user.new_empty(0)
        if static is None:
            static = user.device.type != "cpu"
        size = int(end[-1]) if not static else int(self._most[min(n_rows, len(self._most)) - 1])
        place = torch.arange(size, device=user.device)
        row = torch.searchsorted(end, place, right=True)
        inside = row.clamp(max=n_rows - 1)
        before = (end - degree)[inside]
        position = (self.start[user[inside]] + place - before).clamp(max=n_pairs - 1)
        return row, self.item[position]
