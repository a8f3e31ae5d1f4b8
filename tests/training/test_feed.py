from __future__ import annotations

import pytest
import torch

from contracts import toys
from recdistill.errors import DataError
from recdistill.training.feed import Feed
from recdistill.types import Batch, Interactions

CPU = torch.device("cpu")


def feed(batch_size: int = 8, negatives: int = 3, seed: int = 0, data: Interactions | None = None) -> Feed:
    return Feed(data or toys.interactions(), batch_size=batch_size, negatives=negatives, seed=seed, device=CPU)


def joined(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([torch.cat([b.user.unsqueeze(1), b.positive.unsqueeze(1), b.negative], 1) for b in batches])


def test_an_epoch_holds_every_interaction_once() -> None:
    rows = joined(list(feed().epoch(1)))
    data = toys.interactions()
    key = rows[:, 0] * toys.N_ITEMS + rows[:, 1]
    assert key.sort().values.equal(data.user * toys.N_ITEMS + data.item)


def test_the_triplets_of_an_epoch_do_not_depend_on_the_batch_size() -> None:
    whole = joined(list(feed(10_000).epoch(3)))
    for size in (1, 7, 8):
        assert joined(list(feed(size).epoch(3))).equal(whole)


def test_batches_have_the_size_asked_for_and_the_last_holds_the_rest() -> None:
    batches = list(feed(8).epoch(1))
    sizes = [len(batch.user) for batch in batches]
    assert sizes[:-1] == [8] * (len(sizes) - 1)
    assert 1 <= sizes[-1] <= 8
    assert len(batches) == feed(8).steps
    assert batches[0].negative.shape == (8, 3)


def test_epochs_and_seeds_differ_and_repeat_exactly() -> None:
    one = joined(list(feed().epoch(1)))
    assert one.equal(joined(list(feed().epoch(1))))
    assert not one.equal(joined(list(feed().epoch(2))))
    assert not one.equal(joined(list(feed(seed=1).epoch(1))))


def test_an_epoch_does_not_depend_on_those_before_it() -> None:
    warm = feed()
    for epoch in (1, 2):
        list(warm.epoch(epoch))
    assert joined(list(warm.epoch(3))).equal(joined(list(feed().epoch(3))))


def test_negatives_are_never_training_items() -> None:
    data = toys.interactions()
    seen = set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    for epoch in range(1, 6):
        for user, _, *negatives in joined(list(feed().epoch(epoch))).tolist():
            assert not seen & {(user, item) for item in negatives}


def test_rows_are_shuffled() -> None:
    rows = joined(list(feed().epoch(1)))
    data = toys.interactions()
    assert not rows[:, 0].equal(data.user)


def test_users_who_have_seen_everything_are_left_out() -> None:
    data = Interactions(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 1]), 2, 3)
    rows = joined(list(feed(data=data).epoch(1)))
    assert rows[:, :2].tolist() == [[1, 1]]
    assert 1 not in rows[0, 2:].tolist()


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(DataError, match="no user has an unseen item"):
        feed(data=Interactions(torch.tensor([0, 0]), torch.tensor([0, 1]), 1, 2))
