from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from recdistill.distill.sampling import allocate, draw_by_rank, draw_pairs, draw_weighted
from recdistill.runtime import generator

DRAWS = 100_000


def test_pairs_follow_the_law_of_two_draws_with_ties_rejected() -> None:
    better, worse = draw_pairs(torch.tensor([4]), DRAWS, 2.0, generator(0, "test"))
    weight = np.exp(-np.arange(1, 5) / 2)
    p = weight / weight.sum()
    law = {(r, q): 2 * p[r] * p[q] / (1 - (p**2).sum()) for r in range(4) for q in range(r + 1, 4)}
    assert law[0, 1] == pytest.approx(0.370267, abs=1e-6)
    assert law[2, 3] == pytest.approx(0.050110, abs=1e-6)
    code = (better * 4 + worse).flatten().bincount(minlength=16)
    counts = [int(code[r * 4 + q]) for r, q in law]
    assert sum(counts) == DRAWS  # nothing but these six pairs
    assert chisquare(counts, DRAWS * np.array(list(law.values()))).pvalue > 1e-6


def test_pairs_of_a_long_list_follow_the_law_too() -> None:
    n, mu = 30, 20.0
    better, worse = draw_pairs(torch.full((100,), n), DRAWS // 100, mu, generator(1, "test"))
    p = np.exp(-np.arange(n) / mu)
    p /= p.sum()
    joint = np.triu(2 * np.outer(p, p) / (1 - (p**2).sum()), 1)
    counts = (better * n + worse).flatten().bincount(minlength=n * n).numpy().reshape(n, n)
    upper = np.triu_indices(n, 1)
    assert counts[upper].sum() == DRAWS
    assert chisquare(counts[upper], DRAWS * joint[upper]).pvalue > 1e-6


def test_a_pair_is_two_different_positions_with_the_better_first() -> None:
    length = torch.tensor([[2, 3], [5, 1000]])
    better, worse = draw_pairs(length, 500, 20.0, generator(0, "test"))
    assert better.shape == worse.shape == (2, 2, 500)
    assert (better >= 0).all()
    assert (better < worse).all()
    assert (worse < length.unsqueeze(-1)).all()


def test_a_list_of_two_has_one_pair() -> None:
    better, worse = draw_pairs(torch.tensor([2]), 50, 1.0, generator(0, "test"))
    assert (better == 0).all()
    assert (worse == 1).all()


def test_lists_too_short_for_a_pair_do_not_disturb_their_neighbours() -> None:
    better, worse = draw_pairs(torch.tensor([0, 1, 4]), 200, 2.0, generator(0, "test"))
    assert (better[2] < worse[2]).all()
    assert (worse[2] < 4).all()


def test_a_small_mu_does_not_underflow() -> None:
    better, worse = draw_pairs(torch.tensor([1000]), 200, 1e-3, generator(0, "test"))
    assert (better == 0).all()
    assert (worse == 1).all()


def test_drawn_ranks_are_included_as_often_as_in_a_weighted_sample_without_replacement() -> None:
    depth, number, temperature, users = 8, 3, 2.5, 20_000
    place = draw_by_rank(torch.full((users,), depth), depth, number, temperature, generator(0, "test"))
    found = place.flatten().bincount(minlength=depth).numpy() / users
    weight = np.exp(-np.arange(depth) / temperature)
    random = np.random.default_rng(0)
    expected = np.zeros(depth)
    for _ in range(users):
        expected[random.choice(depth, number, replace=False, p=weight / weight.sum())] += 1 / users
    error = np.sqrt(2 * expected * (1 - expected) / users)
    assert (np.abs(found - expected) < 5 * error + 1e-9).all()


def test_the_first_of_one_draw_follows_the_weights() -> None:
    depth = 6
    place = draw_by_rank(torch.full((DRAWS,), depth), depth, 1, 2.0, generator(2, "test")).flatten()
    p = np.exp(-np.arange(depth) / 2)
    assert chisquare(place.bincount(minlength=depth).numpy(), DRAWS * p / p.sum()).pvalue > 1e-6


def test_drawn_ranks_rise_without_repeats() -> None:
    place = draw_by_rank(torch.full((200,), 50), 50, 40, 10.0, generator(0, "test"))
    assert (place.diff(dim=1) > 0).all()
    assert (place >= 0).all()
    assert (place < 50).all()


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_a_short_list_is_drawn_whole_and_the_rest_is_marked(length: int) -> None:
    place = draw_by_rank(torch.tensor([length, 9]), 9, 5, 10.0, generator(0, "test"))
    kept = min(length, 5)
    assert place[0].tolist() == [*range(kept), *[9] * (5 - kept)]
    assert (place[1] < 9).all()


def test_a_very_flat_or_very_steep_draw_stays_finite() -> None:
    steep = draw_by_rank(torch.tensor([500]), 500, 40, 1e-3, generator(0, "test"))
    assert steep[0].tolist() == list(range(40))
    flat = draw_by_rank(torch.tensor([500]), 500, 40, 1e9, generator(0, "test"))
    assert (flat.diff(dim=1) > 0).all()


def test_the_same_generator_state_gives_the_same_draw() -> None:
    length = torch.full((20,), 9)
    for draw in (lambda g: draw_by_rank(length, 9, 4, 3.0, g), lambda g: torch.cat(draw_pairs(length, 4, 3.0, g))):
        assert draw(generator(1, "test")).equal(draw(generator(1, "test")))
        assert not draw(generator(1, "test")).equal(draw(generator(2, "test")))


def test_thirty_pairs_are_shared_among_four_groups_as_8_8_7_7() -> None:
    assert allocate(30, [1.0] * 4) == [8, 8, 7, 7]


@pytest.mark.parametrize(
    ("total", "share", "expected"),
    [(7, [1.0], [7]), (4, [1.0] * 4, [1, 1, 1, 1]), (10, [0.25, 0.75], [3, 7]), (3, [0.0, 1.0], [0, 3])],
)
def test_allocation_gives_the_total_by_largest_remainders(total: int, share: list[float], expected: list[int]) -> None:
    # 2.5 and 7.5 have equal remainders: the earlier group gets the one that is left
    assert allocate(total, share) == expected


def test_a_weighted_draw_of_one_follows_its_weights_and_never_takes_what_weighs_nothing() -> None:
    weight = torch.tensor([0.5, 0.0, 3.0, 1.0, 1e-30])
    place = draw_weighted(weight.log().expand(DRAWS, 5), 1, generator(3, "test")).flatten()
    count = place.bincount(minlength=6).numpy()
    assert count[[1, 4, 5]].sum() == 0
    law = weight[[0, 2, 3]].double().numpy()
    assert chisquare(count[[0, 2, 3]], DRAWS * law / law.sum()).pvalue > 1e-6


def test_a_weighted_draw_of_two_follows_the_law_without_replacement() -> None:
    weight = np.array([1.0, 2.0, 4.0])
    place = draw_weighted(torch.tensor(weight, dtype=torch.float32).log().expand(DRAWS, 3), 2, generator(4, "test"))
    share = weight / weight.sum()
    law = [share[i] * share[j] * (1 / (1 - share[i]) + 1 / (1 - share[j])) for i, j in ((0, 1), (0, 2), (1, 2))]
    count = [int((place == torch.tensor(pair)).all(1).sum()) for pair in ((0, 1), (0, 2), (1, 2))]
    assert sum(count) == DRAWS
    assert chisquare(count, DRAWS * np.array(law)).pvalue > 1e-6


def test_a_weighted_draw_of_more_than_there_is_marks_what_is_missing() -> None:
    log_weight = torch.tensor([[0.0, -torch.inf, 2.0], [-torch.inf] * 3])
    assert draw_weighted(log_weight, 5, generator(0, "test")).tolist() == [[0, 2, 3], [3, 3, 3]]
