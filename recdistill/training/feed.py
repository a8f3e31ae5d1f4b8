"""An epoch of training rows as tensors: permuted once, drawn negatives at once, then sliced."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from recdistill.dataset.sampling import unseen_sampler
from recdistill.errors import DataError
from recdistill.runtime import generator
from recdistill.types import Batch, Interactions


class Feed:
    """Batches of an epoch; the triplets of a (seed, epoch) are the same whatever the batch size.

    Users who have seen every item have no negatives and are left out.

    Args:
        interactions: training interactions.
        batch_size: rows per batch; the last one of an epoch may be shorter.
        negatives: N, drawn per row.
        seed: of the draws.
        device: where the rows lie.
    """

    def __init__(
        self, interactions: Interactions, *, batch_size: int, negatives: int, seed: int, device: torch.device
    ) -> None:
        """Put rows and sampler on the device."""
        self.batch_size, self.negatives, self.seed, self.device = batch_size, negatives, seed, device
        self.sampler = unseen_sampler(interactions, device)
        user, item = interactions.user.to(device), interactions.item.to(device)
        learns = self.sampler.n_unseen[user] > 0
        self.user, self.item = user[learns], item[learns]
        if len(self.user) == 0:
            raise DataError(
                "no user has an unseen item",
                "every training row needs an item that its user has not seen",
                "use a data set in which users leave some items out",
            )
        self.steps = -(-len(self.user) // batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch."""
        draws = generator(self.seed, "feed", epoch, self.device)
        user = self.user.unsqueeze(1).expand(-1, self.negatives)
        negative = self.sampler.draw(user, draws)  # in the order of users: searches stay near each other
        return self.shuffled(self.user, self.item, negative, self.batch_size, draws)

    @staticmethod
    def shuffled(
        user: Tensor, item: Tensor, negative: Tensor, batch_size: int, draws: torch.Generator
    ) -> Iterator[Batch]:
        """Rows in random order, in batches: permuted once, then sliced.

        Shapes:
            user, item: [n]. negative: [n, N].
        """
        order = torch.randperm(len(user), generator=draws, device=user.device)
        columns = (torch.split(column.index_select(0, order), batch_size) for column in (user, item, negative))
        return map(Batch, *columns)
