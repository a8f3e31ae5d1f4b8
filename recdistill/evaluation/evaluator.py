"""Ranks with a model and turns the lists into metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recdistill.dataset.sampling import SeenItems
from recdistill.errors import ConfigError
from recdistill.evaluation.accuracy import METRICS, ndcg
from recdistill.evaluation.catalogue import Items, Users
from recdistill.evaluation.popularity_bias import group_recall, list_means, popularity_lift
from recdistill.models.base import Recommender
from recdistill.ranking import HeldOutRanks, top_k, top_k_and_ranks
from recdistill.types import Dataset, EvalResult, Interactions, TopK


@dataclass(frozen=True)
class Evaluation:
    """One model on one split: metrics, the stored lists, and the ranks of held-out items (test only)."""

    result: EvalResult
    lists: TopK
    ranks: HeldOutRanks | None


class Evaluator:
    """Holds the parts of a data set that ranking and metrics need; the only place that reads valid and test.

    Args:
        dataset: with its parts.
        device: where models lie.
        cutoffs: list lengths.
        metrics: names of accuracy metrics.
        stored: length of the lists that are kept.

    Raises:
        ConfigError: a cut-off is larger than the catalogue.
    """

    def __init__(
        self, dataset: Dataset, *, device: torch.device, cutoffs: Sequence[int], metrics: Sequence[str], stored: int
    ) -> None:
        """Prepare masks and keys."""
        n_items = dataset.train.n_items
        if max(cutoffs) > n_items:
            raise ConfigError(
                f"evaluation.cutoffs holds {max(cutoffs)}, but {dataset.name} has {n_items} items",
                "a list cannot be longer than the catalogue",
                f"choose cut-offs up to {n_items}: evaluation.cutoffs=[{min(min(cutoffs), n_items)}]",
            )
        self.dataset, self.device = dataset, device
        self.cutoffs, self.metrics, self.stored = list(cutoffs), list(metrics), min(stored, n_items)
        self.primary = max(cutoffs)
        train, valid = dataset.train, dataset.valid
        self._seen = {"valid": SeenItems(train, device), "test": SeenItems(_union(train, valid), device)}
        self._held_out = {"valid": valid, "test": dataset.test}
        self._user = {name: torch.unique_consecutive(part.user) for name, part in self._held_out.items()}
        self.items = Items.of(dataset.popularity.numpy(), dataset.group.numpy())
        self.users = Users.of(self.items, train.user.numpy(), train.item.numpy(), train.n_users)

    def validate(self, model: Recommender) -> float:
        """valid/ndcg at the largest cut-off; what models are selected by."""
        user = self._user["valid"]
        lists = top_k(
            model.scorer(), self._seen["valid"], user.to(self.device), self.dataset.train.n_items, self.primary
        )
        hit, relevant = self._hits(lists, "valid")
        return float(ndcg(hit, relevant).mean())

    def evaluate(self, model: Recommender, split: str) -> Evaluation:
        """All metrics on `valid` or `test`; on test also the ranks of the held-out items."""
        user, n_items = self._user[split].to(self.device), self.dataset.train.n_items
        model.eval()
        with torch.no_grad():
            scorer = model.scorer()
            if split == "test":
                lists, ranks = top_k_and_ranks(
                    scorer, self._seen[split], self._held_out[split], user, n_items, self.stored
                )
            else:
                lists, ranks = top_k(scorer, self._seen[split], user, n_items, self.primary), None
        return Evaluation(self._result(lists, split), lists, ranks)

    def _result(self, lists: TopK, split: str) -> EvalResult:
        hit, relevant = self._hits(lists, split)
        per_user = {f"{name}@{k}": METRICS[name](hit[:, :k], relevant) for k in self.cutoffs for name in self.metrics}
        overall: dict[str, float | None] = {name: float(value.mean()) for name, value in per_user.items()}
        item, length, user = lists.item.cpu().numpy(), lists.length.cpu().numpy(), self._user[split].numpy()
        for k in self.cutoffs:
            recommended = list_means(self.items.popularity, item[:, :k], np.minimum(length, k))
            overall[f"poplift@{k}"] = popularity_lift(recommended, self.users.profile[user])
            overall |= self._group_recalls(item[:, :k], hit[:, :k], split, k)
        return EvalResult(overall, per_user, user, self.dataset.train.n_users - len(user))

    def _group_recalls(self, item: np.ndarray, hit: np.ndarray, split: str, k: int) -> dict[str, float | None]:
        held_out, user, group = self._held_out[split], self._user[split], self.dataset.group.numpy()
        row = torch.searchsorted(user, held_out.user).numpy()
        recalls = {}
        for g in range(int(group.max()) + 1):
            relevant = np.bincount(row[group[held_out.item.numpy()] == g], minlength=len(user))
            recalls[f"recall@{k}/group={g}"] = group_recall((hit & (group[item] == g)).sum(1), relevant)
        return recalls

    def _hits(self, lists: TopK, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Hit [n, K] bool and relevant [n] int."""
        held_out = self._held_out[split]
        item, length = lists.item.cpu(), lists.length.cpu()
        key = held_out.user * held_out.n_items + held_out.item  # sorted: interactions are
        wanted = (self._user[split] * held_out.n_items).unsqueeze(1) + item
        place = torch.searchsorted(key, wanted).clamp(max=len(key) - 1)
        hit = (key[place] == wanted) & (torch.arange(item.shape[1]) < length.unsqueeze(1))
        relevant = held_out.user.bincount(minlength=held_out.n_users)[self._user[split]]
        return hit.numpy(), relevant.numpy()


def overlap(lists: TopK, other: TopK, k: int) -> float:
    """Mean share of the first k items that two models' lists of the same users have in common."""
    inside = (torch.arange(k) < lists.length.cpu().unsqueeze(1)).unsqueeze(2)
    same = (lists.item[:, :k].cpu().unsqueeze(2) == other.item[:, :k].cpu().unsqueeze(1)) & inside
    same &= (torch.arange(k) < other.length.cpu().unsqueeze(1)).unsqueeze(1)
    return float((same.any(2).sum(1) / k).double().mean())


def _union(train: Interactions, valid: Interactions) -> Interactions:
    key = torch.cat([part.user * train.n_items + part.item for part in (train, valid)]).sort().values
    user = torch.div(key, train.n_items, rounding_mode="floor")
    return Interactions(user, key % train.n_items, train.n_users, train.n_items)
