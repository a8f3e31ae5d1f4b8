from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from contracts import toys
from contracts.recommender import RecommenderContract
from recdistill.models.base import InnerProductScorer
from recdistill.models.lightgcn import LightGCN, _few
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.types import Batch, Interactions


class TestLightGCNWithBPR(RecommenderContract):
    refused: ClassVar[list[dict[str, Any]]] = [{"dim": 0}, {"layers": -1}, {"loss": "hinge"}, {"init_std": 0.0}]

    def make(self) -> LightGCN:
        return LightGCN(dim=4)


class TestLightGCNWithSoftmax(RecommenderContract):
    def make(self) -> LightGCN:
        return LightGCN(dim=4, loss="softmax")


def worked_example(layers: int) -> LightGCN:
    """Two users, two items, edges (0, 0), (0, 1), (1, 1); layer 0 is u = (1, 2), i = (3, 4)."""
    model = LightGCN(dim=1, layers=layers)
    edges = Interactions(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2, 2)
    model.prepare(edges, generator(0, "model"))
    model.load_state_dict({"user_table": torch.tensor([[1.0], [2.0]]), "item_table": torch.tensor([[3.0], [4.0]])})
    return model


@pytest.mark.parametrize(
    ("layers", "users", "items"),
    [
        (0, [1.0, 2.0], [3.0, 4.0]),
        (1, [(1 + 4.121320) / 2, (2 + 2.828427) / 2], [(3 + 0.707107) / 2, (4 + 1.914214) / 2]),
        (2, [2.192809, 2.060660], [2.207107, 3.324958]),
    ],
)
def test_the_layers_of_the_worked_example(layers: int, users: list[float], items: list[float]) -> None:
    scorer = worked_example(layers).scorer()
    assert scorer.user_vectors.flatten().tolist() == pytest.approx(users, abs=1e-6)
    assert scorer.item_vectors.flatten().tolist() == pytest.approx(items, abs=1e-6)


def test_the_score_of_the_worked_example() -> None:
    score = worked_example(2).scorer().pair_scores(torch.tensor([0]), torch.tensor([[0]]))
    assert score.item() == pytest.approx(4.839764, abs=1e-6)


def dense_vectors(users: Tensor, items: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """Mean of A^l E by a dense normalised adjacency matrix."""
    data = toys.interactions()
    n = data.n_users + data.n_items
    adjacency = torch.zeros(n, n, dtype=users.dtype)
    adjacency[data.user, data.n_users + data.item] = 1
    adjacency = adjacency + adjacency.T
    scale = adjacency.sum(1).clamp(min=1).rsqrt()
    adjacency = scale.unsqueeze(1) * adjacency * scale
    layer = total = torch.cat([users, items])
    for _ in range(layers):
        layer = adjacency @ layer
        total = total + layer
    mean = total / (layers + 1)
    return mean[: data.n_users], mean[data.n_users :]


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_vectors_and_gradient_equal_those_through_a_dense_adjacency(layers: int) -> None:
    model = toys.model(LightGCN, layers=layers).double()
    users, items = (table.detach().clone().requires_grad_() for table in (model.user_table, model.item_table))
    expected = torch.cat(dense_vectors(users, items, layers))
    scorer = model.scorer()
    found = torch.cat([scorer.user_vectors, scorer.item_vectors])
    # the degrees' square roots are stored in float32, the vectors are about 1
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    probe = torch.randn(expected.shape, generator=generator(0, "probe"), dtype=expected.dtype)
    (probe * found.tanh()).sum().backward()
    (probe * expected.tanh()).sum().backward()
    torch.testing.assert_close(model.user_table.grad, users.grad, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(model.item_table.grad, items.grad, rtol=1e-6, atol=1e-7)


def test_a_node_without_edges_keeps_its_own_vector_over_the_number_of_layers() -> None:
    model = toys.model(LightGCN, layers=3)
    scorer = model.scorer()
    for vector, own in (
        (scorer.user_vectors[toys.LONELY_USER], model.user_table[toys.LONELY_USER]),
        (scorer.item_vectors[toys.LONELY_ITEM], model.item_table[toys.LONELY_ITEM]),
    ):
        torch.testing.assert_close(vector, own / 4)


def test_without_layers_it_is_matrix_factorisation() -> None:
    batch, user = toys.batch(), torch.arange(toys.N_USERS)
    plain, graph = toys.model(MF), toys.model(LightGCN, layers=0)
    assert graph.scorer().all_scores(user).equal(plain.scorer().all_scores(user))
    for model in (plain, graph):
        model.loss(model.scorer(), batch).backward()
    torch.testing.assert_close(graph.user_table.grad, plain.user_table.grad)


def test_the_graph_is_not_part_of_the_weights() -> None:
    assert set(toys.model(LightGCN).state_dict()) == {"user_table", "item_table"}


def test_tables_that_fill_pages_of_their_own_give_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toys.model(LightGCN, layers=3)
    usual = model.scorer()
    monkeypatch.setattr("recdistill.models.lightgcn.HUGE_PAGE", 64)
    paged = model.scorer()
    assert paged.user_vectors.equal(usual.user_vectors)
    assert paged.item_vectors.equal(usual.item_vectors)


def sparse_world(layers: int, **settings: Any) -> LightGCN:
    """60 users and 80 items, a few of which have most of the edges."""
    draws = generator(0, "edges")
    item = (torch.rand(400, generator=draws) ** 3 * 80).long()
    key = (torch.randint(60, (400,), generator=draws) * 80 + item).unique()
    model = LightGCN(dim=4, layers=layers, **settings)
    model.prepare(Interactions(key // 80, key % 80, 60, 80), generator(0, "model"))
    return model


FEW_OF_BOTH = Batch(torch.tensor([3, 9, 3]), torch.tensor([70, 75, 70]), torch.tensor([[60], [61], [79]]))
FEW_USERS = Batch(torch.tensor([3, 9, 3]).repeat(5), torch.arange(15), torch.arange(15, 30).unsqueeze(1))
FEW_ITEMS = Batch(torch.arange(40), torch.full((40,), 70), torch.full((40, 1), 75))


@pytest.mark.parametrize("layers", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(
    ("batch", "users", "items"), [(FEW_OF_BOTH, 2, 5), (FEW_USERS, 2, 80), (FEW_ITEMS, 60, 2)], ids=["both", "u", "i"]
)
def test_a_batch_alone_gives_the_same_loss_and_gradients_bit_by_bit(
    layers: int, batch: Batch, users: int, items: int
) -> None:
    whole, alone = sparse_world(layers), sparse_world(layers)
    scorer = alone.batch_scorer(batch)
    if layers:
        assert [int(table.isfinite().all(1).sum()) for table in (scorer.user_vectors, scorer.item_vectors)] == [
            users,
            items,
        ]
    losses = [whole.loss(whole.scorer(), batch), alone.loss(scorer, batch)]
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]  # torch's has no types
    assert torch.equal(*losses)
    for one, other in zip(whole.parameters(), alone.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_the_softmax_over_the_catalogue_has_every_row() -> None:
    model = sparse_world(2, loss="softmax")
    scorer = model.batch_scorer(FEW_OF_BOTH)
    assert scorer.item_vectors.isfinite().all()
    assert model.loss(scorer, FEW_OF_BOTH).isfinite()


@pytest.mark.parametrize(
    ("ids", "start", "few"),
    [
        ([1, 1], [0, 1, 2, 3, 4, 5, 6, 7, 8], [1]),
        ([1, 2], [0, 1, 2, 3, 4, 5, 6, 7, 8], [1, 2]),
        ([1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8], None),  # more than a quarter of the rows
        ([1], [0, 1, 7, 7, 7, 7, 7, 7, 8], None),  # more than half of the edges
    ],
)
def test_few_rows_are_a_quarter_of_all_with_half_of_the_edges(
    ids: list[int], start: list[int], few: list[int] | None
) -> None:
    found = _few(torch.tensor(ids), torch.tensor(start, dtype=torch.int32))
    assert (found if found is None else found.tolist()) == few


def test_a_subclass_that_scores_otherwise_is_given_every_row() -> None:
    class Doubled(LightGCN):
        def scorer(self) -> InnerProductScorer:
            made = super().scorer()
            return InnerProductScorer(2 * made.user_vectors, made.item_vectors)

    model = Doubled(dim=4, layers=2)
    model.prepare(toys.interactions(), generator(0, "model"))
    scorer = model.batch_scorer(toys.batch(rows=1))
    assert torch.equal(scorer.user_vectors, model.scorer().user_vectors)
