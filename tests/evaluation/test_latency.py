from __future__ import annotations

import torch

from contracts import toys
from recdistill.dataset.sampling import SeenItems
from recdistill.evaluation import latency as module
from recdistill.evaluation.latency import latency
from recdistill.models.base import Scorer
from recdistill.models.mf import MF


def test_single_users_and_batches_are_timed_and_a_batch_is_of_different_users() -> None:
    asked: list[list[int]] = []

    class Noting(MF):
        def scorer(self) -> Scorer:
            scorer = super().scorer()
            plain = scorer.all_scores
            scorer.all_scores = lambda user: asked.append(user.tolist()) or plain(user)
            return scorer

    user = torch.arange(toys.N_USERS - 2)
    found = latency(toys.model(Noting), SeenItems(toys.interactions()), user, toys.N_ITEMS, k=5)
    assert list(found) == ["single", "batch"]
    assert (found["single"]["users"], found["batch"]["users"]) == (
        1,
        len(user),
    )  # fewer than 256 users are all one batch
    for timed in found.values():
        assert 0 < timed["p50"] <= timed["p95"]
    assert len(asked) == found["single"]["calls"] + found["batch"]["calls"] + 2  # one call each to warm up
    assert all(len(set(users)) == len(users) for users in asked)
    assert {users[0] for users in asked if len(users) == 1} == set(user.tolist())


def test_measuring_ends_when_its_time_is_up(monkeypatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    found = latency(toys.model(), SeenItems(toys.interactions()), torch.arange(3), toys.N_ITEMS, k=5)
    assert [timed["calls"] for timed in found.values()] == [3, 3]
