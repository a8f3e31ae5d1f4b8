"""The way each loop is often written: what the product's functions are compared with."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from recdistill.types import Interactions


def item_sets(data: Interactions) -> list[set[int]]:
    """Each user's items as a Python set."""
    sets: list[set[int]] = [set() for _ in range(data.n_users)]
    for user, item in zip(data.user.tolist(), data.item.tolist(), strict=True):
        sets[user].add(item)
    return sets


def negatives(users: list[int], seen: list[set[int]], n_items: int) -> list[int]:
    """One unseen item per user, by rejection against a set."""
    found = []
    for user in users:
        item = random.randrange(n_items)
        while item in seen[user]:
            item = random.randrange(n_items)
        found.append(item)
    return found


def loader(user: Tensor, item: Tensor, negative: Tensor, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    """Shuffled batches of triplets."""
    return DataLoader(TensorDataset(user, item, negative), batch_size=batch_size, shuffle=True)


class EmbeddingMF(nn.Module):
    """Matrix factorisation with BPR as a tutorial has it."""

    def __init__(self, n_users: int, n_items: int, dim: int, weight_decay: float) -> None:
        """Two tables."""
        super().__init__()
        self.users, self.items = nn.Embedding(n_users, dim), nn.Embedding(n_items, dim)
        nn.init.normal_(self.users.weight, std=0.1)
        nn.init.normal_(self.items.weight, std=0.1)
        self.weight_decay = weight_decay

    def forward(self, user: Tensor, item: Tensor, negative: Tensor) -> Tensor:
        """Loss of a batch."""
        u, i, j = self.users(user), self.items(item), self.items(negative)
        loss = -nn.functional.logsigmoid((u * i).sum(1) - (u * j).sum(1)).mean()
        penalty = u.pow(2).sum() + i.pow(2).sum() + j.pow(2).sum()
        return loss + self.weight_decay / 2 * penalty / len(user)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterator[tuple[Tensor, ...]]) -> None:
    """The steps of a tutorial's epoch."""
    for batch in batches:
        optimizer.zero_grad()
        loss = model(*batch)
        loss.backward()
        optimizer.step()


def adjacency(data: Interactions) -> Tensor:
    """D^-1/2 R D^-1/2 of the bipartite graph as one sparse COO matrix."""
    n_users, size = data.n_users, data.n_users + data.n_items
    row = torch.cat([data.user, data.item + n_users])
    column = torch.cat([data.item + n_users, data.user])
    scale = row.bincount(minlength=size).clamp(min=1).rsqrt()
    index, value = torch.stack([row, column]), scale[row] * scale[column]
    return torch.sparse_coo_tensor(index, value, (size, size), check_invariants=False).coalesce()


def propagate(graph: Tensor, users: Tensor, items: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """LightGCN's mean of layers, kept one by one."""
    kept = [torch.cat([users, items])]
    for _ in range(layers):
        kept.append(torch.sparse.mm(graph, kept[-1]))
    mean = torch.stack(kept, 1).mean(1)
    return mean[: len(users)], mean[len(users) :]


def rank(
    users: np.ndarray, items: np.ndarray, seen: list[np.ndarray], wanted: list[set[int]], chosen: np.ndarray
) -> list[float]:
    """Top 20 with seen items masked, then NDCG by Python sets."""
    found: list[float] = []
    for first in range(0, len(chosen), 1000):
        part = chosen[first : first + 1000]
        score = users[part] @ items.T
        for row, user in enumerate(part):
            score[row, seen[user]] = -np.inf
        top = np.argpartition(score, -20, axis=1)[:, -20:]
        order = np.argsort(-np.take_along_axis(score, top, 1), axis=1)
        top = np.take_along_axis(top, order, 1)
        for user, listed in zip(part, top.tolist(), strict=True):
            relevant = wanted[user]
            hits = [place for place, item in enumerate(listed) if item in relevant]
            ideal = sum(1 / np.log2(place + 2) for place in range(min(20, len(relevant))))
            found.append(sum(1 / np.log2(place + 2) for place in hits) / ideal)
    return found


def soft_labels(users: np.ndarray, items: np.ndarray, seen: list[set[int]], chosen: np.ndarray, depth: int) -> None:
    """Per user: product, full argsort, seen items filtered out in Python."""
    for user in chosen:
        score = items @ users[user]
        ranked = [item for item in np.argsort(-score).tolist() if item not in seen[user]][:depth]
        score[ranked]


def unkd_draws(ranked: np.ndarray, users: int, pairs: int, mu: float) -> None:
    """One np.random.choice per pair, in each group of each user: ranked [U, G, D]."""
    depth = ranked.shape[2]
    weight = np.exp(-np.arange(depth) / mu)
    weight /= weight.sum()
    for user in range(users):
        for group in range(ranked.shape[1]):
            for _ in range(pairs):
                first, second = np.random.choice(depth, 2, p=weight)  # noqa: NPY002  # as it is written
                ranked[user, group, first], ranked[user, group, second]


def rrd_draws(top: np.ndarray, seen: list[set[int]], users: int, n_items: int, number: int, temperature: float) -> None:
    """np.random.choice per user: interesting items by rank, uninteresting ones from everything else."""
    depth = top.shape[1]
    weight = np.exp(-np.arange(depth) / temperature)
    weight /= weight.sum()
    for user in range(users):
        place = np.sort(np.random.choice(depth, number, replace=False, p=weight))  # noqa: NPY002  # as it is written
        top[user, place]
        allowed = np.ones(n_items, bool)
        allowed[top[user]] = False
        allowed[list(seen[user])] = False
        np.random.choice(allowed.nonzero()[0], number, replace=False)  # noqa: NPY002  # as it is written
