from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from scipy.stats import chisquare

from contracts import toys
from contracts.ranking import RankingContract, slopes
from recdistill.dataset.popularity import popularity_groups
from recdistill.distill.rrd import RRD
from recdistill.distill.strata import Strata
from recdistill.models.base import InnerProductScorer, Scorer
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.types import Batch, Interactions, Knowledge, Trajectory

CROWD = 100_000
SMALL: dict[str, Any] = {"groups": 3, "interesting": 5, "uninteresting": 3, "depth": 4}


class TestStrataAlone(RankingContract):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"weight": -0.1},
        {"mix": -0.1},
        {"mix": 1.1},
        {"groups": 0},
        {"interesting": 2},
        {"uninteresting": 2},
        {"interesting": 9},
        {"draw": "best"},
        {"rest": "none"},
    ]

    def make(self, **settings: Any) -> Strata:
        return Strata(**({"groups": 3, "interesting": 5, "uninteresting": 3, "depth": 8} | settings))


class TestStrataMixed(RankingContract):
    def make(self, **settings: Any) -> Strata:
        common: dict[str, Any] = {"groups": 3, "interesting": 5, "uninteresting": 3, "depth": 8, "mix": 0.4}
        return Strata(**(common | settings))


class TestStrataMixedAndSampled(RankingContract):
    def make(self, **settings: Any) -> Strata:
        common: dict[str, Any] = {"groups": 3, "interesting": 5, "uninteresting": 3, "depth": 6, "mix": 0.4}
        return Strata(**(common | {"rest": "sampled", "draw": "sampled", "temperature": 2.0} | settings))


def knowledge(distiller: Strata) -> Knowledge:
    return toys.knowledge(request=distiller.group_lists)


def started(student: MF, seed: int = 0, **settings: Any) -> Strata:
    distiller = Strata(**(SMALL | {"depth": 8} | settings))
    distiller.prepare(knowledge(distiller), toys.interactions(), student, generator(seed, "distiller"))
    distiller.on_epoch_start(0, student, generator(seed, "distiller", 1))
    return distiller


def slow_list_loss(interesting: list[float], rest: list[float]) -> float:
    total = 0.0
    for k in range(len(interesting)):
        mass = sum(math.exp(value) for value in interesting[k:]) + sum(math.exp(value) for value in rest)
        total += math.log(mass) - interesting[k]
    return total


def test_the_lists_of_two_groups_add_up() -> None:
    """One user, items 0 to 3 in one group and 4 to 7 in the other; the head's list is the worked example of RRD."""
    item, user = torch.arange(8).repeat(3), torch.arange(1, 4).repeat_interleave(8)
    data = Interactions(user, item, 4, 8)
    teacher = toys.crowd([0.0] * 8, [8.0 - i for i in range(8)], 4)[2]
    student = toys.crowd([0.0] * 8, [1.0, 0.5, 0.0, -1.0, 0.8, 0.2, -0.4, -9.0], 4)[2]
    distiller = Strata(weight=1.0, groups=2, interesting=3, uninteresting=2, depth=8)
    one = toys.labels(teacher, request=distiller.group_lists, data=data)
    distiller.prepare(Knowledge({"toy": Trajectory("toy", (one,))}, {}), data, student, generator(0, "distiller"))
    distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
    assert [member.tolist() for member in distiller.members] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [part.interesting for part in distiller.parts] == [2, 1]
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]))
    tail = slow_list_loss([0.8], [0.2, -0.4, -9.0])
    assert distiller(student.scorer(), batch)["strata"].item() == pytest.approx(1.350698 + tail, abs=1e-5)


@pytest.mark.parametrize("rest", ["all", "sampled"])
@pytest.mark.parametrize("draw", ["top", "sampled"])
def test_both_terms_equal_a_slow_loop(draw: str, rest: str) -> None:
    student, batch = toys.model(seed=7).double(), toys.batch()
    distiller = started(student, weight=0.3, mix=0.4, draw=draw, rest=rest, temperature=2.0)
    data, popularity = toys.interactions(), toys.interactions().popularity()
    group = torch.where(popularity > 0, popularity_groups(popularity, 3), -1).tolist()
    seen = set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    teacher = toys.model(seed=1).scorer().all_scores(torch.arange(toys.N_USERS)).tolist()
    score = student.scorer().all_scores(torch.arange(toys.N_USERS)).tolist()
    users = sorted(set(batch.user.tolist()))
    losses = []
    for user in users:
        for g, (part, wanted) in enumerate(zip(distiller.parts, (2, 2, 1), strict=True)):
            member = distiller.members[g]
            unseen = [i for i in range(toys.N_ITEMS) if group[i] == g and (user, i) not in seen]
            ranked = sorted(unseen, key=lambda item: -teacher[user][item])
            kept = member[part.kept[user][part.kept_valid[user]]].tolist()
            assert kept == sorted(kept, key=ranked.index)
            assert len(kept) == min(wanted, len(ranked))
            if draw == "top":
                assert kept == ranked[:wanted]
            below = [item for item in ranked if item not in kept]
            if rest == "sampled":
                below = member[part.below[user][part.below_valid[user]]].tolist()
                assert set(below) <= set(ranked[wanted if draw == "top" else 8 :])
            losses.append(slow_list_loss([score[user][i] for i in kept], [score[user][i] for i in below]))
    terms = distiller(student.scorer(), batch)
    assert terms["strata"].item() == pytest.approx(0.3 * 0.6 * sum(losses) / len(users), rel=1e-6)
    whole = distiller.whole.list_loss(student.scorer(), batch.user)
    assert terms["whole"].item() == pytest.approx(0.3 * 0.4 * whole.item(), rel=1e-6)


@pytest.mark.parametrize("mix", [0.0, 0.4])
@pytest.mark.parametrize("draw", ["top", "sampled"])
@pytest.mark.parametrize("seed", range(3))
def test_one_pass_gives_the_terms_and_gradient_of_the_lists_one_by_one(seed: int, draw: str, mix: float) -> None:
    student, batch = toys.model(seed=7).double(), toys.batch(rows=40)
    distiller = started(student, seed=seed, weight=0.3, mix=mix, draw=draw, interesting=7, temperature=3.0)
    terms = distiller(student.scorer(), batch)
    scorer = student.scorer()
    lists = zip(distiller.parts, distiller.members, strict=True)
    losses = [part.list_loss(scorer.among(member), batch.user) for part, member in lists]
    expected = {"strata": 0.3 * (1 - mix) * torch.stack(losses).sum()}
    if mix:
        expected["whole"] = 0.3 * mix * distiller.whole.list_loss(scorer, batch.user)
    torch.testing.assert_close(terms, expected, rtol=1e-12, atol=1e-12)
    tables = student.user_table, student.item_table
    found, wanted = (torch.autograd.grad(sum(some.values()), tables) for some in (terms, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def test_the_whole_list_alone_is_rrd() -> None:
    student, batch = toys.model(seed=7), toys.batch()
    plain = RRD(weight=0.3, interesting=5, depth=8)
    plain.prepare(toys.knowledge(), toys.interactions(), student, generator(0, "distiller"))
    terms = started(student, weight=0.3, mix=1.0)(student.scorer(), batch)
    assert list(terms) == ["whole"]
    assert terms["whole"].equal(plain(student.scorer(), batch)["rrd"])


def test_only_differences_inside_a_group_matter() -> None:
    """Lifting every score of one group leaves the loss as it is."""
    student, batch = toys.model(seed=7), toys.batch()
    distiller = started(student, groups=3)

    class Lifted(InnerProductScorer):
        def among(self, item: torch.Tensor) -> InnerProductScorer:
            ones = torch.ones(len(self.user_vectors), 1)
            lift = 3.0 * torch.isin(item, distiller.members[1]).float().unsqueeze(1)
            return InnerProductScorer(
                torch.cat([self.user_vectors, ones], 1), torch.cat([self.item_vectors[item], lift], 1)
            )

    scorer = student.scorer()
    lifted = Lifted(scorer.user_vectors, scorer.item_vectors)
    torch.testing.assert_close(distiller(lifted, batch)["strata"], distiller(scorer, batch)["strata"])


def test_raising_a_groups_first_item_lowers_the_loss_and_raising_its_others_raises_it() -> None:
    student, user = toys.model(seed=7), 2
    distiller = started(student)
    slope = slopes(distiller, student, user)
    data = toys.interactions()
    seen = set(data.item[data.user == user].tolist())
    for part, member in zip(distiller.parts, distiller.members, strict=True):
        kept = member[part.kept[user][part.kept_valid[user]]].tolist()
        assert slope[kept[0]] < 0
        assert all(slope[item] > 0 for item in set(member.tolist()) - seen - set(kept))
    assert all(slope[item] == 0 for item in seen)
    assert slope[toys.LONELY_ITEM] == 0  # in no group


def test_sampled_others_are_uniform_within_their_group() -> None:
    """Many users who are all alike."""
    counts = torch.tensor([4, 4, 4, 4, 2, 2, 2, 2]).repeat_interleave(2)
    item = torch.arange(16).repeat_interleave(counts)
    user = CROWD + torch.cat([torch.arange(int(count)) for count in counts])
    order = (user * 16 + item).argsort()
    data = Interactions(user[order], item[order], CROWD + 4, 16)
    _, _, student = toys.crowd([0.0] * 16, [float(-i) for i in range(16)], CROWD + 4)
    distiller = Strata(groups=2, interesting=2, uninteresting=2, depth=8, rest="sampled")
    one = toys.labels(student, request=distiller.group_lists, data=data)
    distiller.prepare(Knowledge({"toy": Trajectory("toy", (one,))}, {}), data, student, generator(0, "distiller"))
    distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
    for part, member in zip(distiller.parts, distiller.members, strict=True):
        assert part.kept[0].tolist() == [0]  # the group's first, by the teacher
        count = part.below[:CROWD].flatten().bincount(minlength=len(member)).numpy()
        assert count[0] == 0
        assert chisquare(count[1:]).pvalue > 1e-6


def test_a_user_who_has_seen_a_group_whole_adds_nothing_there() -> None:
    """Of the grouped items this user has not seen one: it is the whole list of its group, and stands above nothing."""
    for rest in ("all", "sampled"):
        student = toys.model()
        distiller = started(student, rest=rest)
        one = Batch(torch.tensor([toys.FULL_USER]), torch.tensor([0]), torch.tensor([[1]]))
        term = distiller(student.scorer(), one)["strata"]
        term.backward()
        assert term.item() == pytest.approx(0, abs=1e-6)
        assert student.item_table.grad.abs().max() <= 1e-6


def test_a_scorer_without_vectors_gives_the_same() -> None:
    """The general form of `among` scores the whole catalogue."""

    class Plain(Scorer):
        def __init__(self, inner: Scorer) -> None:
            self.inner = inner

        def pair_scores(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
            return self.inner.pair_scores(user, item)

        def all_scores(self, user: torch.Tensor) -> torch.Tensor:
            return self.inner.all_scores(user)

    student, batch = toys.model(seed=7), toys.batch()
    for rest in ("all", "sampled"):
        distiller = started(student, rest=rest)
        torch.testing.assert_close(
            distiller(Plain(student.scorer()), batch)["strata"], distiller(student.scorer(), batch)["strata"]
        )
