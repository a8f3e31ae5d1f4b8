from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recdistill.dataset.catalog import Synthetic
from recdistill.dataset.filters import Filter
from recdistill.dataset.loading import load
from recdistill.dataset.splits import Ratio
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.soft_labels.cache import soft_labels
from recdistill.soft_labels.extract import Layout
from recdistill.types import Dataset, Interactions, Knowledge, SoftLabels, Trajectory

pytest.register_assert_rewrite("contracts")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """60 users, 80 items, synthetic."""
    folder = tmp_path_factory.mktemp("dataset")
    source = Synthetic(n_users=60, n_items=80, n_interactions=1200, filter=Filter(), split=Ratio())
    return load(source, data=folder / "data", cache=folder / "cache", groups=2, say=lambda line: None)


@pytest.fixture(scope="session")
def interactions(dataset: Dataset) -> Interactions:
    return dataset.training_view()


@pytest.fixture(scope="session")
def teacher(interactions: Interactions) -> MF:
    """A matrix factorisation trained for some full-batch steps."""
    model = MF(dim=6, loss="softmax")
    model.prepare(interactions, generator(0, "teacher"))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    scorer = model.scorer()
    for _ in range(30):
        loss = scorer.all_scores(interactions.user).logsumexp(1).mean()
        loss = loss - scorer.pair_scores(interactions.user, interactions.item.unsqueeze(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def labels_of(
    model: MF, interactions: Interactions, folder: Path, group: torch.Tensor | None = None, depth: int = 30
) -> SoftLabels:
    """The soft labels of a model, through the store."""
    layout = Layout(interactions.n_items, depth, group, 20)
    return soft_labels(
        folder, teacher="teacher", epoch=1, key="key", layout=layout, interactions=interactions, device=CPU,
        model=lambda: model, about={}, say=lambda line: None,
    )  # fmt: skip


@pytest.fixture(scope="session")
def knowledge(
    dataset: Dataset, interactions: Interactions, teacher: MF, tmp_path_factory: pytest.TempPathFactory
) -> Knowledge:
    """Soft labels of the trained teacher with lists per popularity group (2 groups)."""
    labels = labels_of(teacher, interactions, tmp_path_factory.mktemp("soft_labels"), dataset.group.long())
    return Knowledge({"teacher": Trajectory("teacher", (labels,))}, {})
