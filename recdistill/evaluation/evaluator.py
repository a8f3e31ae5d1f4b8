"""Ranks with a model and turns the lists into metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recdistill.dataset.sampling import SeenItems
from recdistill.errors import ConfigError, DataError
from recdistill.evaluation.accuracy import ndcg
from recdistill.evaluation.catalogue import Items, Users
from recdistill.evaluation.latency import latency
from recdistill.evaluation.measures import Ranked, measure
from recdistill.evaluation.popularity_bias import inside
from recdistill.models.base import Recommender
from recdistill.ranking import HeldOutRanks, top_k, top_k_and_ranks
from recdistill.types import Dataset, EvalResult, Interactions, TopK


@dataclass(frozen=True)
class Evaluation:
    """One model on one split: metrics, the stored lists, and the ranks of held-out items (test only).

    `ranked` holds the same lists and ranks as arrays; `seconds` is what ranking took, without metrics.
    """

    result: EvalResult
    lists: TopK
    ranks: HeldOutRanks | None
    ranked: Ranked
    seconds: float


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
        DataError: popularity was counted with held-out interactions.
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
        if not torch.equal(dataset.popularity, dataset.train.popularity()):
            raise DataError(
                f"the popularity of {dataset.name} is not the count of its training users",
                "a count that saw valid or test interactions tells a model, and a popularity metric, what is held out",
                "count popularity over the training part: dataset.train.popularity()",
            )
        self.dataset, self.device = dataset, device
        self.cutoffs, self.metrics, self.stored = list(cutoffs), list(metrics), min(stored, n_items)
        self.primary = max(cutoffs)
        train, valid = dataset.train, dataset.valid
        self._seen = {"valid": SeenItems(train, device), "test": SeenItems(_union(train, valid), device)}
        self._held_out = {"valid": _HeldOut(valid), "test": _HeldOut(dataset.test)}
        self.items = Items.of(dataset.popularity.numpy(), dataset.group.numpy())
        self.users = Users.of(self.items, train.user.numpy(), train.item.numpy(), train.n_users)

    def validate(self, model: Recommender) -> float:
        """valid/ndcg at the largest cut-off; what models are selected by."""
        user = self._held_out["valid"].user.to(self.device)
        lists = top_k(model.scorer(), self._seen["valid"], user, self.dataset.train.n_items, self.primary)
        ranked = self._ranked(lists.item.cpu().numpy(), lists.length.cpu().numpy(), None, "valid")
        return float(ndcg(ranked.hit, ranked.n_relevant).mean())

    def evaluate(self, model: Recommender, split: str) -> Evaluation:
        """All metrics on `valid` or `test`; on test also the ranks of the held-out items."""
        held_out, n_items = self._held_out[split], self.dataset.train.n_items
        user = held_out.user.to(self.device)
        model.eval()
        started = time.perf_counter()
        with torch.no_grad():
            scorer = model.scorer()
            if split == "test":
                lists, ranks = top_k_and_ranks(scorer, self._seen[split], held_out.pairs, user, n_items, self.stored)
            else:
                lists, ranks = top_k(scorer, self._seen[split], user, n_items, self.primary), None
        item, length = lists.item.cpu().numpy(), lists.length.cpu().numpy()  # waits for the device
        seconds = time.perf_counter() - started
        ranked = self._ranked(item, length, ranks, split)
        overall, per_user = measure(ranked, self.items, self.users, self.cutoffs, self.metrics)
        result = EvalResult(overall, per_user, ranked.user, self.dataset.train.n_users - len(ranked.user))
        return Evaluation(result, lists, ranks, ranked, seconds)

    def latency(self, model: Recommender) -> dict[str, dict[str, float]]:
        """Seconds for the top 20 of one user and of a batch, as `latency.latency` measures them."""
        user = self._held_out["valid"].user.to(self.device)
        return latency(model, self._seen["valid"], user, self.dataset.train.n_items)

    def _ranked(self, item: np.ndarray, length: np.ndarray, ranks: HeldOutRanks | None, split: str) -> Ranked:
        """Lists [n, K] beside what was held out."""
        held_out = self._held_out[split]
        hit = held_out.hits(item) & inside(item, length)
        rank = None if ranks is None else ranks.rank.numpy()
        return Ranked(held_out.user.numpy(), item, length, hit, held_out.row, held_out.pairs.item.numpy(), rank)


class _HeldOut:
    """The held-out pairs of one split, and which entries of lists are among them.

    Few are: most are told by a table of the keys' last bits, of which at most an eighth is set, the others searched.
    """

    def __init__(self, pairs: Interactions) -> None:
        self.pairs = pairs
        self.user, row = torch.unique_consecutive(pairs.user, return_inverse=True)
        self.row = row.numpy()
        self.key = (pairs.user * pairs.n_items + pairs.item).numpy()  # sorted: interactions are
        self.last_bits = (1 << (8 * len(self.key)).bit_length()) - 1
        self.table = np.zeros(self.last_bits + 1, bool)
        self.table[self.key & self.last_bits] = True

    def hits(self, item: np.ndarray) -> np.ndarray:
        """[n, K] bool: which entries of the users' lists [n, K] are held out."""
        key = self.user.numpy()[:, None] * self.pairs.n_items + item
        hit: np.ndarray = self.table[key & self.last_bits]
        near = hit.nonzero()
        place = np.searchsorted(self.key, key[near])
        hit[near] = self.key.take(place, mode="clip") == key[near]
        return hit


def _union(train: Interactions, valid: Interactions) -> Interactions:
    key = torch.cat([part.user * train.n_items + part.item for part in (train, valid)]).sort().values
    user = torch.div(key, train.n_items, rounding_mode="floor")
    return Interactions(user, key % train.n_items, train.n_users, train.n_items)
