"""Exact uniform draws of items that a user has not seen, without a rejection loop."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.types import Interactions

BITSET_BYTES = 1 << 28  # up to here a bit per (user, item) is kept
FOLDED_BYTES = 8  # of a folded bitset per pair, rounded down to a power of two: some 2 % of its bits are set
BLOCK = 1 << 15  # draws at a time on the CPU, whose intermediate values then stay in its cache
DEVICE_BLOCK = 1 << 22  # elsewhere: some 0.3 GB of them


class UnseenItems:
    """The complement of each user's item set, by number.

    *Gap map.* With a user's sorted items p_0 < p_1 < ..., the r-th item outside the set is r + #{k : p_k - k <= r}. The
    keys `user * I + (p_k - k)` are sorted over all users, so one `searchsorted` answers a whole draw; its shape does
    not depend on the data, which a device needs. Memory: 8 bytes per excluded pair.

    Args:
        start: [U + 1] row pointers of the excluded items.
        item: [n] excluded items, sorted within a user, without repeats.
        n_items: size of the catalogue.
    """

    def __init__(self, start: Tensor, item: Tensor, n_items: int) -> None:
        """Build the keys."""
        degree = start.diff()
        self.n_items = n_items
        self.start = start[:-1].contiguous()
        self.n_unseen = n_items - degree  # [U]
        first = torch.arange(len(degree), device=item.device) * n_items + self.start
        # In place: at 24 million pairs every further value would be 0.2 GB.
        self.key = torch.repeat_interleave(first, degree, output_size=len(item)).add_(item)
        self.key.sub_(torch.arange(len(item), device=item.device))

    def nth_unseen(self, user: Tensor, nth: Tensor) -> Tensor:
        """The `nth` (0-based) item outside a user's set.

        Shapes:
            user, nth: the same shape, int64, 0 <= nth < n_unseen[user]. Returns: items of that shape.
        """
        return nth + torch.searchsorted(self.key, user * self.n_items + nth, right=True) - self.start[user]

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


class UnseenSampler(UnseenItems):
    """Uniform draws from the complement of each user's item set, without a rejection loop.

    *One try first.* A share x uniform in [0, 1) gives the item floor(x * I). Where that is outside the set it is the
    draw; elsewhere the fraction of x * I, which is uniform whatever the item, says which item outside the set is
    taken, by the gap map. So P(i) = 1 / I + (n / I) / (I - n) = 1 / (I - n) for each of the I - n items outside.

    Whether an item is in the set is looked up in a bitset while that is small, else in the sorted pairs. On the CPU a
    bitset that would be too large is folded: pairs share bits, so an unset bit still means outside the set, and the few
    draws that meet a set bit are looked up in the pairs. All know the same, so the draws depend on neither the memory
    nor the kind of device's shapes.

    Args:
        start: [U + 1] row pointers of the excluded items.
        item: [n] excluded items, sorted within a user, without repeats.
        n_items: size of the catalogue.
        bitset_bytes: what a bitset may take.
    """

    def __init__(self, start: Tensor, item: Tensor, n_items: int, *, bitset_bytes: int = BITSET_BYTES) -> None:
        """Make the keys, and what tells whether an item is in a set."""
        super().__init__(start, item, n_items)
        degree = start.diff()
        user = torch.repeat_interleave(torch.arange(len(degree), device=item.device), degree, output_size=len(item))
        self.width = -(-n_items // 8)  # bytes of a user's row of bits
        self.bits: Tensor | None = None
        self.pairs: Tensor | None = None  # only where the bits do not tell
        self.fold = -1  # what of a byte's address is kept: all
        byte, bit = user * self.width + (item >> 3), item & 7
        if len(degree) * self.width <= bitset_bytes:
            self.bits = torch.zeros(len(degree) * self.width, dtype=torch.uint8, device=item.device)
            self.bits.index_add_(0, byte, (1 << bit).to(torch.uint8))
            return
        self.pairs = user * n_items + item
        size = min(bitset_bytes, FOLDED_BYTES * len(item))
        if size > 0 and item.device.type == "cpu":
            self.fold = (1 << size.bit_length() - 1) - 1
            self.bits = torch.zeros(self.fold + 1, dtype=torch.uint8)
            for one in range(8):  # within one place of the bytes, pairs that share a bit write the same
                place = byte[bit == one] & self.fold
                self.bits[place] = self.bits[place] | (1 << one)

    def is_seen(self, user: Tensor, item: Tensor) -> Tensor:
        """Whether items are in their users' sets.

        Shapes:
            user, item: [n] int64. Returns: [n] bool.
        """
        if self.pairs is None:
            return self._may_be_seen(user, item)
        if len(self.pairs) == 0:
            return torch.zeros_like(user, dtype=torch.bool)
        wanted = user * self.n_items + item
        place = torch.searchsorted(self.pairs, wanted).clamp_(max=len(self.pairs) - 1)
        return self.pairs.index_select(0, place) == wanted

    def _may_be_seen(self, user: Tensor, item: Tensor) -> Tensor:
        """[n] bool: true wherever `is_seen` is, and where folded bits cannot tell."""
        if self.bits is None:
            return self.is_seen(user, item)
        byte = user * self.width + (item >> 3)
        if self.pairs is not None:
            byte &= self.fold
        return (self.bits.index_select(0, byte) >> (item & 7).to(torch.uint8) & 1).bool()

    def draw(self, user: Tensor, generator: torch.Generator, *, static: bool | None = None) -> Tensor:
        """One uniform unseen item per entry of `user` (any shape); users without unseen items are not allowed.

        On the CPU the gap map serves only the entries that need it, elsewhere all of them, so that no shape depends on
        the data (`static` forces or forbids that; None: by device); the draws are the same.
        """
        # float64: float32 cannot address more than 2^24 items evenly.
        share = torch.rand(user.shape, generator=generator, dtype=torch.float64, device=user.device)
        flat, shares = user.reshape(-1), share.view(-1)
        if static is None:
            static = user.device.type != "cpu"
        block = DEVICE_BLOCK if static else BLOCK
        parts = zip(torch.split(flat, block), torch.split(shares, block), strict=True)
        drawn = [self._draw(*part, static=static) for part in parts]
        return (torch.cat(drawn) if len(drawn) > 1 else drawn[0]).view(user.shape)

    def _draw(self, user: Tensor, share: Tensor, *, static: bool) -> Tensor:
        place = share * self.n_items  # below n_items: the largest share is 1 - 2^-53
        item = place.long()
        if static:
            return torch.where(self.is_seen(user, item), self._other(user, place - item), item)
        again = self._may_be_seen(user, item).nonzero().squeeze(1)
        if self.pairs is not None:
            again = again[self.is_seen(user[again], item[again])]
        fraction = (place - item).index_select(0, again)
        return item.index_copy_(0, again, self._other(user.index_select(0, again), fraction))

    def _other(self, user: Tensor, share: Tensor) -> Tensor:
        count = self.n_unseen.index_select(0, user)
        return self.nth_unseen(user, torch.minimum((share * count).long(), count - 1))


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
        first = self.start.index_select(0, user) - (end - degree)  # where a row's pairs lie, less where they go
        if not static:
            row = torch.repeat_interleave(degree)
            position = first.index_select(0, row).add_(torch.arange(len(row), device=user.device))
            return row, self.item.index_select(0, position)
        size = int(self._most[min(n_rows, len(self._most)) - 1])
        place = torch.arange(size, device=user.device)
        row = torch.searchsorted(end, place, right=True)
        position = (first[row.clamp(max=n_rows - 1)] + place).clamp(max=n_pairs - 1)
        return row, self.item[position]
