"""Rankings in a process whose address space is limited; also imported for the same rankings without a limit."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import sys
from pathlib import Path

import torch
from torch import Tensor

from recdistill.dataset.sampling import SeenItems
from recdistill.errors import OutOfMemory
from recdistill.models.base import InnerProductScorer
from recdistill.ranking import chunk_rows, top_k, top_k_and_ranks
from recdistill.runtime import fitting_rows, start
from recdistill.soft_labels.extract import Layout, extract
from recdistill.types import Interactions

N_USERS, N_ITEMS = 150, 200_000
CHUNK_ROWS = chunk_rows(N_ITEMS, torch.device("cpu"))
CHUNK_BYTES = 4 * CHUNK_ROWS * N_ITEMS  # of the first product


class World:
    """A made-up model and interactions.

    The vectors hold whole numbers, so that every product is exact and no score depends on the size of a chunk.
    """

    def __init__(self, n_items: int) -> None:
        draws = torch.Generator().manual_seed(0)
        users, items = (torch.empty(rows, 4).random_(-1000, 1001, generator=draws) for rows in (N_USERS, n_items))
        self.scorer, self.n_items = InnerProductScorer(users, items), n_items
        self.user = torch.arange(N_USERS)
        self.held_out = self._pairs(torch.randint(n_items // 2, (N_USERS, 3), generator=draws) * 2)
        self.seen = SeenItems(self._pairs(torch.randint(n_items // 2, (N_USERS, 20), generator=draws) * 2 + 1))

    def _pairs(self, item: Tensor) -> Interactions:
        key = (self.user.unsqueeze(1) * self.n_items + item).unique()
        return Interactions(
            torch.div(key, self.n_items, rounding_mode="floor"), key % self.n_items, N_USERS, self.n_items
        )

    def rankings(self) -> dict[str, str]:
        """Hashes of all that ranking gives: lists, lists with ranks of held-out items, soft labels."""
        lists = top_k(self.scorer, self.seen, self.user, self.n_items, 20)
        longer, ranks = top_k_and_ranks(self.scorer, self.seen, self.held_out, self.user, self.n_items, 100)
        labels = extract(self.scorer, self.seen, self.user, Layout(self.n_items, 200))
        tensors = {"lists": [lists.item, lists.score], "longer": [longer.item, longer.score], "ranks": [ranks.rank]}
        arrays = {name: [one.numpy() for one in group] for name, group in tensors.items()} | {"labels": labels.values()}
        return {
            name: hashlib.sha256(b"".join(one.tobytes() for one in group)).hexdigest() for name, group in arrays.items()
        }


def limit(more: int) -> None:
    """Let this process's address space grow by so many bytes and no further."""
    found = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    size = int(found[1]) * 1024 + more
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def main(n_items: int, more: int) -> None:
    """Rank under a limit; print the rankings, or the error, and the rows that fit."""
    start("cpu", 1, 0)
    World(1000).rankings()  # what libraries allocate at their first use is not to be what fails
    world = World(n_items)
    limit(more)
    try:
        found = world.rankings()
    except OutOfMemory as error:
        found = {"error": str(error)}
    print(json.dumps({"rows": fitting_rows.get(n_items), **found}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
