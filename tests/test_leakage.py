"""Guards against leaks that no other file's tests provoke.

Elsewhere: training without a validation part and parts that share interactions (dataset/test_loading.py), a stored
teacher of another split and a distiller whose needs are not met (test_pipeline.py, test_build.py), a loss that is not
finite (training/test_trainer.py), valid and test items among the candidates (evaluation/test_evaluator.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import labels_of
from recdistill.cli import main
from recdistill.dataset.catalog import Synthetic
from recdistill.dataset.filters import Filter
from recdistill.dataset.loading import load
from recdistill.dataset.splits import Ratio
from recdistill.distill.rrd import RRD
from recdistill.errors import CacheError, DataError
from recdistill.evaluation.evaluator import Evaluator
from recdistill.models.lightgcn import LightGCN
from recdistill.models.mf import MF, InnerProductScorer
from recdistill.runtime import generator
from recdistill.soft_labels.guard import refuse_other_split
from recdistill.types import Dataset, Interactions

CPU = torch.device("cpu")


def test_popularity_that_counted_held_out_interactions_is_refused(dataset: Dataset) -> None:
    leaking = replace(dataset, popularity=dataset.popularity + dataset.test.popularity())
    with pytest.raises(DataError, match="is not the count of its training users") as caught:
        Evaluator(leaking, device=CPU, cutoffs=[5], metrics=["ndcg"], stored=10)
    assert "dataset.train.popularity()" in caught.value.fix


def test_soft_labels_of_another_split_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    source = Synthetic(n_users=60, n_items=80, n_interactions=1200, filter=Filter(), split=Ratio(seed=1))
    other = load(source, data=tmp_path, cache=tmp_path / "cache", groups=2, say=lambda line: None)
    assert other.fingerprint != dataset.fingerprint
    model = MF(dim=4)
    model.prepare(other.train, generator(0, "teacher"))
    labels = labels_of(model, other.train, tmp_path / "labels")
    assert refuse_other_split(labels, other.train) is labels
    with pytest.raises(
        CacheError, match=r"soft labels of teacher rank item .* for user .*, who trains with it"
    ) as caught:
        refuse_other_split(labels, dataset.train)
    assert labels.key in caught.value.fix


class Dropping(MF):
    """A teacher that scores at random while it is in training mode."""

    def scorer(self) -> InnerProductScorer:
        drop = nn.functional.dropout
        return InnerProductScorer(*(drop(table, 0.5, self.training) for table in (self.user_table, self.item_table)))


def test_a_teacher_left_in_training_mode_is_extracted_and_evaluated_in_evaluation_mode(
    dataset: Dataset, interactions: Interactions, tmp_path: Path
) -> None:
    teacher = Dropping(dim=8)
    teacher.prepare(interactions, generator(0, "teacher"))
    wanted = labels_of(teacher.eval(), interactions, tmp_path / "calm")
    found = labels_of(teacher.train(), interactions, tmp_path / "training")
    assert torch.equal(found.item, wanted.item)
    assert torch.equal(found.score, wanted.score)
    held = Evaluator(dataset, device=CPU, cutoffs=[5], metrics=["ndcg"], stored=10)
    values = [held.evaluate(model, "test").result.overall["ndcg@5"] for model in (teacher.train(), teacher.train())]
    assert values[0] == values[1]


def test_models_their_graphs_and_the_distiller_are_given_the_training_part_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, Interactions]] = []
    for owner in (LightGCN, MF, RRD):
        original = owner.prepare

        def noting(self: Any, *arguments: Any, original: Any = original) -> None:
            given.extend((type(self).__name__, one) for one in arguments if not isinstance(one, Tensor | nn.Module))
            original(self, *arguments)

        monkeypatch.setattr(owner, "prepare", noting)
    words = ["train", "dataset=synthetic", "debug=smoke", "teacher=lightgcn", "student=mf", "distill=rrd", "device=cpu"]
    assert main([*words, f"paths.outputs={tmp_path}"]) == 0
    assert {name for name, _ in given} == {"LightGCN", "MF", "RRD"}
    handed = [one for _, one in given if isinstance(one, Interactions)]
    assert len(handed) >= 4  # teacher, scratch, student, distiller
    source = Synthetic(n_users=60, n_items=80, n_interactions=1200, filter=Filter(), split=Ratio())
    train = load(source, data=tmp_path, cache=tmp_path / "cache", groups=2, say=lambda line: None).train
    for one in handed:
        assert torch.equal(one.user, train.user)
        assert torch.equal(one.item, train.item)
    assert not [one for _, one in given if isinstance(one, Dataset)]
