from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recdistill.dataset.sampling import SeenItems
from recdistill.models.base import InnerProductScorer, Scorer
from recdistill.models.mostpop import MostPop
from recdistill.ranking import (
    FOLD,
    _ranks_in_blocks,
    _ranks_one_by_one,
    by_chunk,
    chunk_rows,
    leave_out,
    select_top,
    top_k,
    top_k_and_ranks,
)
from recdistill.types import Interactions, TopK


class Table(Scorer):
    """Scores out of a table."""

    def __init__(self, score: Tensor) -> None:
        self.score = score

    def pair_scores(self, user: Tensor, item: Tensor) -> Tensor:
        return self.score[user.unsqueeze(1), item]

    def all_scores(self, user: Tensor) -> Tensor:
        return self.score[user]


def some_of(share: float, n_users: int, n_items: int, seed: int = 0, but: Tensor | None = None) -> Interactions:
    chosen = torch.rand(n_users, n_items, generator=torch.Generator().manual_seed(seed)) < share
    if but is not None:
        chosen &= ~but
    user, item = chosen.nonzero(as_tuple=True)
    return Interactions(user, item, n_users, n_items)


def mask(interactions: Interactions) -> Tensor:
    dense = torch.zeros(interactions.n_users, interactions.n_items, dtype=torch.bool)
    dense[interactions.user, interactions.item] = True
    return dense


def coarse(n_users: int, n_items: int, levels: int, seed: int = 0) -> Tensor:
    """Scores with many ties: a few levels, both signs, and both zeros."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(-levels, levels + 1, (n_users, n_items), generator=generator).float()
    flip = torch.rand(n_users, n_items, generator=generator) < 0.5
    return torch.where((score == 0) & flip, torch.tensor(-0.0), score)


def sorted_by_numpy(score: Tensor, seen: Interactions, user: Tensor, k: int) -> list[list[int]]:
    """The oracle: a full sort by (score falling, item rising) without the seen items."""
    hidden = mask(seen).numpy()
    lists = []
    for u in user.tolist():
        order = np.lexsort((np.arange(score.shape[1]), -score[u].double().numpy()))
        lists.append([int(item) for item in order if not hidden[u, item]][:k])
    return lists


def lists_of(top: TopK) -> list[list[int]]:
    return [row[:length] for row, length in zip(top.item.tolist(), top.length.tolist(), strict=True)]


@settings(max_examples=80, deadline=None)
@given(n_items=st.integers(1, 40), levels=st.integers(0, 3), share=st.sampled_from([0.0, 0.3, 0.9]), data=st.data())
def test_lists_are_those_of_a_full_sort_with_ties_by_item(
    n_items: int, levels: int, share: float, data: st.DataObject
) -> None:
    score, seen = coarse(5, n_items, levels), some_of(share, 5, n_items)
    user = torch.tensor(data.draw(st.permutations(range(5)))[:4])
    k = data.draw(st.integers(1, n_items))
    top = top_k(Table(score), SeenItems(seen), user, n_items, k, data.draw(st.sampled_from([None, 1, 3])))
    assert lists_of(top) == sorted_by_numpy(score, seen, user, k)
    assert top.user.tolist() == user.tolist()


def test_lists_of_distinct_scores_are_those_of_a_full_sort() -> None:
    score = torch.randn(20, 300, generator=torch.Generator().manual_seed(1)) * 1e3
    seen = some_of(0.2, 20, 300)
    top = top_k(Table(score), SeenItems(seen), torch.arange(20), 300, 50)
    assert lists_of(top) == sorted_by_numpy(score, seen, torch.arange(20), 50)
    assert torch.equal(top.score, score.gather(1, top.item))


def test_seen_items_are_never_recommended_even_where_they_score_best() -> None:
    seen = some_of(0.5, 30, 40)
    score = mask(seen).float() * 1e6
    top = top_k(Table(score), SeenItems(seen), torch.arange(30), 40, 40)
    for u, items in enumerate(lists_of(top)):
        assert set(items) == set((~mask(seen)[u]).nonzero().squeeze(1).tolist())


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(60, 600) | st.integers(4096, 4200),  # folded once to four times
    levels=st.sampled_from([1, 20, 1000]),
    k=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_best_of_folded_wide_rows_are_those_of_a_full_sort(width: int, levels: int, k: int, seed: int) -> None:
    score, nothing = coarse(4, width, levels, seed), some_of(0.0, 4, width)
    column, value = select_top(score, k)
    assert column.tolist() == sorted_by_numpy(score, nothing, torch.arange(4), k)
    assert value.equal(score.gather(1, column))


def test_folded_rows_with_fewer_scores_than_k_are_filled_with_minus_infinity() -> None:
    score = torch.full((2, 1000), -torch.inf)
    score[0, 999], score[1, 3] = 1.0, 2.0
    column, value = select_top(score, 2)
    assert column[:, 0].tolist() == [999, 3]
    assert value.tolist() == [[1.0, -torch.inf], [2.0, -torch.inf]]


def test_the_best_are_found_where_they_lie_under_one_maximum_or_among_the_last_columns() -> None:
    score = torch.zeros(3, 1007) - torch.rand(3, 1007, generator=torch.Generator().manual_seed(0))
    width = 1007 // FOLD
    score[0, [5, 5 + width, 5 + 2 * width]] = torch.tensor([1.0, 3.0, 2.0])
    score[1, [1006, 1000, 1002]] = torch.tensor([1.0, 3.0, 2.0])
    score[2, [4, 1005, 4 + 3 * width]] = 1.0
    column, _ = select_top(score, 3)
    assert column.tolist() == [[5 + width, 5 + 2 * width, 5], [1000, 1002, 1006], [4, 4 + 3 * width, 1005]]


def test_ties_at_the_border_of_the_list_go_to_the_lower_item() -> None:
    score = torch.zeros(1, 5000)
    score[0, [4000, 7]] = 1.0
    column, value = select_top(score, 5)
    assert column.tolist() == [[7, 4000, 0, 1, 2]]
    assert value.tolist() == [[1, 1, 0, 0, 0]]


def test_minus_zero_and_zero_are_one_score() -> None:
    score = torch.tensor([[0.0, -0.0, 0.0, -0.0, -1.0], [-0.0, 0.0, -0.0, 0.0, 1.0]])
    for k in range(1, 6):
        assert select_top(score, k)[0].tolist() == [[0, 1, 2, 3, 4][:k], [4, 0, 1, 2, 3][:k]]


def test_a_constant_scorer_gives_items_by_index() -> None:
    seen = Interactions(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2]), 3, 6)
    constant = Table(torch.full((3, 6), 0.25))
    top = top_k(constant, SeenItems(seen), torch.arange(3), 6, 3)
    assert lists_of(top) == [[0, 2, 3], [1, 3, 4], [0, 1, 2]]
    held_out = Interactions(torch.tensor([0, 2, 2]), torch.tensor([5, 0, 5]), 3, 6)
    _, ranks = top_k_and_ranks(constant, SeenItems(seen), held_out, torch.tensor([0, 2]), 6, 3)
    assert ranks.rank.tolist() == [5, 1, 6]  # a tie is not a hit at the top


def test_users_with_fewer_unseen_items_than_k_get_shorter_lists_padded_with_zeros() -> None:
    seen = Interactions(torch.tensor([0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 1, 3, 0, 1, 2, 3]), 3, 4)
    top = top_k(Table(torch.arange(4.0).repeat(3, 1)), SeenItems(seen), torch.arange(3), 4, 3)
    assert top.length.tolist() == [1, 0, 3]
    assert top.item.tolist() == [[2, 0, 0], [0, 0, 0], [3, 2, 1]]


def test_a_list_is_never_longer_than_the_catalogue() -> None:
    top = top_k(Table(torch.zeros(2, 3)), SeenItems(some_of(0.0, 2, 3)), torch.arange(2), 3, 10)
    assert top.item.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("chunk", [1, 2, 7, 20, 64])
def test_lists_do_not_depend_on_how_users_are_cut_into_chunks(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    # Whole numbers: their products are exact, so any difference is one of the ranking.
    users, items = (torch.randint(-3, 4, (n, 4), generator=generator).float() for n in (20, 60))
    scorer, seen = InnerProductScorer(users, items), SeenItems(some_of(0.3, 20, 60))
    user = torch.arange(20).flip(0)
    whole, cut = (top_k(scorer, seen, user, 60, 10, size) for size in (None, chunk))
    assert torch.equal(whole.item, cut.item)
    assert torch.equal(whole.score, cut.score)
    assert torch.equal(whole.length, cut.length)


@pytest.mark.parametrize(
    ("device", "n_items", "rows"),
    [
        ("cpu", 1_000, 1_572),
        ("cpu", 50_000, 128),
        ("cpu", 200_000, 64),
        ("cpu", 1_000_000, 64),
        ("cuda", 1_000_000, 67),
        ("cuda", 10_000_000, 64),
    ],
)
def test_the_catalogue_and_the_kind_of_device_say_how_many_users_a_chunk_has(
    device: str, n_items: int, rows: int
) -> None:
    assert chunk_rows(n_items, torch.device(device)) == rows


def test_every_chunk_has_one_shape_and_all_users_come_once() -> None:
    asked: list[int] = []

    class Watching(Table):
        def all_scores(self, user: Tensor) -> Tensor:
            asked.append(len(user))
            return super().all_scores(user)

    score = coarse(7, 5, 2)
    seen = some_of(0.4, 7, 5)
    parts = by_chunk(Watching(score), SeenItems(seen), torch.arange(7), 5, lambda *chunk: chunk, 3)
    assert asked == [3, 3, 3]
    assert torch.cat([part for part, _ in parts]).tolist() == list(range(7))
    assert torch.equal(torch.cat([part for _, part in parts]), score.masked_fill(mask(seen), -torch.inf))


@pytest.mark.parametrize("chunk", [1, None])
def test_ranking_one_user_leaves_the_counts_of_mostpop_as_they_were(chunk: int | None) -> None:
    interactions = Interactions(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), 2, 3)
    model = MostPop()
    model.prepare(interactions, torch.Generator())
    for user in (torch.tensor([0]), torch.tensor([0, 1])):
        top = top_k(model.scorer(), SeenItems(interactions), user, 3, 3, chunk)
        assert lists_of(top)[0] == [2]
        assert model.scorer().all_scores(torch.tensor([1])).tolist() == [[2, 1, 0]]
    assert lists_of(top) == [[2], [1, 2]]


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_ranks_counted_row_by_row_are_those_counted_in_blocks(levels: int) -> None:
    score = coarse(9, 70, levels).masked_fill(mask(some_of(0.2, 9, 70)), -torch.inf)
    row, item = (score > -torch.inf).nonzero(as_tuple=True)
    assert torch.equal(_ranks_one_by_one(score, row, item), _ranks_in_blocks(score, row, item))


def test_ranks_of_held_out_items_equal_a_slow_count() -> None:
    n_items = 25
    score, seen = coarse(12, n_items, 3), some_of(0.3, 12, n_items)
    held_out = some_of(0.3, 12, n_items, seed=1, but=mask(seen))
    user = torch.tensor([11, 3, 0, 7, 5])
    top, ranks = top_k_and_ranks(Table(score), SeenItems(seen), held_out, user, n_items, 5)
    expected = []
    for u in user.tolist():
        unseen = [item for item in range(n_items) if not mask(seen)[u, item]]
        for item in held_out.item[held_out.user == u].tolist():
            own = float(score[u, item])
            ahead = [
                other for other in unseen if float(score[u, other]) > own or (score[u, other] == own and other < item)
            ]
            expected.append((u, item, len(ahead) + 1))
    found = list(zip(ranks.user.tolist(), ranks.item.tolist(), ranks.rank.tolist(), strict=True))
    assert found == expected
    assert lists_of(top) == sorted_by_numpy(score, seen, user, 5)
    place = {u: items for u, items in zip(user.tolist(), lists_of(top), strict=True)}
    for u, item, rank in found:
        assert (item in place[u]) == (rank <= 5)
        assert rank > 5 or place[u][rank - 1] == item


def test_left_out_entries_are_minus_infinity_and_no_others() -> None:
    score = leave_out(torch.ones(2, 3), torch.tensor([1, 0, 1]), torch.tensor([2, 0, 1]))
    assert score.tolist() == [[-torch.inf, 1, 1], [1, -torch.inf, -torch.inf]]
