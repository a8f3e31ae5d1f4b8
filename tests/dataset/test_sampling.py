from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recdistill.dataset.sampling import SeenItems, UnseenSampler, unseen_sampler
from recdistill.types import Interactions


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of(sets: list[set[int]], n_items: int) -> Interactions:
    """Interactions from each user's set of items."""
    pairs = [(user, item) for user, items in enumerate(sets) for item in sorted(items)]
    table = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return Interactions(table[:, 0].contiguous(), table[:, 1].contiguous(), len(sets), n_items)


SETS = st.lists(st.sets(st.integers(0, 11)), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(sets=SETS)
def test_nth_unseen_lists_the_complement_in_order(sets: list[set[int]]) -> None:
    sampler = unseen_sampler(of(sets, 12))
    for user, items in enumerate(sets):
        unseen = [item for item in range(12) if item not in items]
        assert sampler.n_unseen[user] == len(unseen)
        nth = torch.arange(len(unseen))
        assert sampler.nth_unseen(torch.full_like(nth, user), nth).tolist() == unseen


@settings(max_examples=60, deadline=None)
@given(sets=SETS, number=st.integers(1, 14), seed=st.integers(0, 99))
def test_distinct_draws_are_unseen_without_repeats_and_all_where_there_are_few(
    sets: list[set[int]], number: int, seed: int
) -> None:
    sampler = unseen_sampler(of(sets, 12))
    user = torch.arange(len(sets)).flip(0)
    item, valid = sampler.draw_distinct(user, number, seeded(seed))
    assert item.shape == valid.shape == (len(sets), number)
    for row, u in enumerate(user.tolist()):
        drawn = item[row][valid[row]].tolist()
        unseen = set(range(12)) - sets[u]
        assert len(set(drawn)) == len(drawn) == min(number, len(unseen))
        assert set(drawn) <= unseen
        assert item[row][~valid[row]].unique().tolist() in ([], [0])


def test_a_seen_item_is_never_drawn() -> None:
    sets = [{0, 1, 2}, {3}, {0, 5, 9}, set(), set(range(9))]
    sampler = unseen_sampler(of(sets, 10))
    user = torch.arange(5).repeat(2000).reshape(100, 100)
    item = sampler.draw(user, seeded())
    assert item.shape == user.shape
    for u, seen in enumerate(sets):
        assert set(item[user == u].tolist()) == set(range(10)) - seen


@pytest.mark.parametrize("seen", [{0, 1, 2}, {9}, {0, 4, 9}, set(), {1, 3, 5, 7}])
def test_draws_are_uniform_over_unseen_items(seen: set[int]) -> None:
    sampler = unseen_sampler(of([{2}, seen, {0}], 10))
    item = sampler.draw(torch.ones(20_000, dtype=torch.long), seeded(1))
    count = item.bincount(minlength=10)[[i for i in range(10) if i not in seen]]
    assert count.sum() == 20_000
    assert stats.chisquare(count.numpy()).pvalue > 1e-3


@settings(max_examples=60, deadline=None)
@given(sets=SETS, seed=st.integers(0, 99))
def test_the_draws_do_not_depend_on_a_bitset_or_on_static_shapes(sets: list[set[int]], seed: int) -> None:
    data = of(sets, 12)
    some = [user for user, items in enumerate(sets) if len(items) < 12]
    user = torch.tensor(some, dtype=torch.long).repeat_interleave(50).reshape(-1, 5)
    exact, folded, without = (UnseenSampler(*data.csr(), 12, bitset_bytes=size) for size in (1000, 1, 0))
    assert exact.bits is not None
    assert folded.bits is None or len(folded.bits) == 1
    assert without.bits is None
    drawn = exact.draw(user, seeded(seed))
    for sampler in (exact, folded, without):
        for static in (False, True):
            assert sampler.draw(user, seeded(seed), static=static).equal(drawn)


def test_an_unset_bit_of_a_folded_bitset_means_unseen_and_most_bits_are_unset() -> None:
    draws = seeded(5)
    sets = [set(torch.randint(1000, (10,), generator=draws).tolist()) for _ in range(200)]
    sampler = UnseenSampler(*of(sets, 1000).csr(), 1000, bitset_bytes=1 << 14)
    user, item = torch.arange(200).repeat_interleave(1000), torch.arange(1000).repeat(200)
    marked, seen = sampler._may_be_seen(user, item), sampler.is_seen(user, item)
    assert sampler.bits is not None
    assert len(sampler.bits) == 1 << 13  # of 25,000 bytes: the power of two below 8 a pair
    assert marked[seen].all()
    assert seen.sum() < marked.sum() < 6 * seen.sum()


def test_draws_do_not_depend_on_how_they_are_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = unseen_sampler(of([{1}, {2, 3, 4, 5}], 9))
    user = torch.arange(2).repeat(500)
    whole = sampler.draw(user, seeded(4))
    for name, static in {"BLOCK": False, "DEVICE_BLOCK": True}.items():
        monkeypatch.setattr(f"recdistill.dataset.sampling.{name}", 7)
        assert sampler.draw(user, seeded(4), static=static).equal(whole)


def test_drawing_with_static_shapes_holds_the_values_of_one_block_beside_the_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recdistill.dataset.sampling.DEVICE_BLOCK", 100)
    sizes: list[int] = []

    class Watched(UnseenSampler):
        def is_seen(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
            sizes.append(len(user))
            return super().is_seen(user, item)

    sampler = Watched(*of([{1}, {2}], 9).csr(), 9)
    sampler.draw(torch.arange(2).repeat(125), seeded(), static=True)
    assert sizes == [100, 100, 50]


@settings(max_examples=60, deadline=None)
@given(sets=SETS)
def test_seen_is_what_is_in_the_sets(sets: list[set[int]]) -> None:
    user, item = torch.meshgrid(torch.arange(len(sets)), torch.arange(12), indexing="ij")
    expected = [[i in items for i in range(12)] for items in sets]
    for size in (1000, 4, 0):
        sampler = UnseenSampler(*of(sets, 12).csr(), 12, bitset_bytes=size)
        found = sampler.is_seen(user.flatten(), item.flatten())
        assert found.reshape(len(sets), 12).tolist() == expected


def test_every_set_of_distinct_draws_is_equally_likely() -> None:
    sampler = unseen_sampler(of([{1, 4}], 8))
    item, _ = sampler.draw_distinct(torch.zeros(20_000, dtype=torch.long), 3, seeded(2))
    found = [tuple(sorted(row)) for row in item.tolist()]
    count = [found.count(some) for some in combinations([0, 2, 3, 5, 6, 7], 3)]
    assert sum(count) == 20_000
    assert stats.chisquare(count).pvalue > 1e-3


def test_the_same_state_of_a_generator_draws_the_same() -> None:
    sampler = unseen_sampler(of([{1}, {2, 3}], 50))
    user = torch.tensor([0, 1] * 10)
    assert torch.equal(sampler.draw(user, seeded(3)), sampler.draw(user, seeded(3)))
    assert not torch.equal(sampler.draw(user, seeded(3)), sampler.draw(user, seeded(4)))
    one, other = (sampler.draw_distinct(user, 5, seeded(3))[0] for _ in range(2))
    assert torch.equal(one, other)


def test_a_user_who_has_seen_everything_gets_no_valid_draw_and_leaves_others_alone() -> None:
    sampler = unseen_sampler(of([set(range(5)), {1}], 5))
    item, valid = sampler.draw_distinct(torch.tensor([0, 1]), 3, seeded())
    assert valid.tolist() == [[False] * 3, [True] * 3]
    assert item[0].tolist() == [0, 0, 0]
    assert sampler.n_unseen.tolist() == [0, 4]


@settings(max_examples=60, deadline=None)
@given(sets=SETS, data=st.data())
def test_seen_items_are_given_as_flat_pairs_for_any_users_in_any_order(
    sets: list[set[int]], data: st.DataObject
) -> None:
    user = data.draw(st.lists(st.integers(0, len(sets) - 1), max_size=8))
    row, item = SeenItems(of(sets, 12)).flat(torch.tensor(user, dtype=torch.long))
    expected = [(place, i) for place, u in enumerate(user) for i in sorted(sets[u])]
    assert list(zip(row.tolist(), item.tolist(), strict=True)) == expected


def test_the_static_form_of_seen_pairs_covers_every_counted_user_of_a_batch_with_many_repeats() -> None:
    user = torch.cat([torch.zeros(50), torch.ones(1), torch.full((1,), 2)]).long()
    item = torch.cat([torch.arange(50), torch.tensor([3, 4])])
    seen = SeenItems(Interactions(user, item, 3, 60))
    batch = torch.tensor([0, 0, 0, 0, 1, 2])  # sorted, as `distinct` gives it
    first = torch.tensor([True, False, False, False, True, True])
    row, column = seen.flat(batch, first, static=True)
    inside = row < len(batch)
    pairs = sorted(zip(row[inside].tolist(), column[inside].tolist(), strict=True))
    assert pairs == [(0, i) for i in range(50)] + [(4, 3), (5, 4)]
