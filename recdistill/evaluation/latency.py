"""How long a model takes to recommend."""

from __future__ import annotations

import time

import numpy as np
import torch

from recdistill.dataset.sampling import SeenItems
from recdistill.models.base import Recommender
from recdistill.ranking import top_k

BATCHES = {"single": 1, "batch": 256}
REPEATS = 50
SECONDS = 0.1  # of measuring per batch size: a run must not notice it


def latency(
    model: Recommender, seen: SeenItems, user: torch.Tensor, n_items: int, k: int = 20
) -> dict[str, dict[str, float]]:
    """Seconds from users to their ready lists of the best k unseen items, for single users and batches.

    The scorer is made before, as a service would: a graph model has propagated, and what is timed is the product,
    the mask, the selection and the copy to the host.

    Args:
        model: prepared.
        seen: what is left out.
        user: [n] int64 users to take turns with, on the model's device.
        n_items: size of the catalogue.
        k: list length.

    Returns:
        For `single` and `batch`: how many `users` at once (256, or all there are), the median `p50` and `p95` in
        seconds, and how many `calls` were timed.
    """
    model.eval()
    found = {}
    with torch.no_grad():
        scorer = model.scorer()
        for name, size in BATCHES.items():
            batch = min(size, len(user))  # a batch is of different users
            turns = torch.arange(batch * (REPEATS + 1), device=user.device).view(-1, batch) % len(user)
            seconds: list[float] = []
            for turn in turns:
                some = user[turn]
                started = time.perf_counter()
                top_k(scorer, seen, some, n_items, k, chunk=batch).item.cpu()
                seconds.append(time.perf_counter() - started)
                if len(seconds) > 3 and sum(seconds) > SECONDS:
                    break
            timed = seconds[1:]  # the first call pays for what later ones find ready
            p50, p95 = np.percentile(timed, [50, 95])
            found[name] = {"users": batch, "p50": float(p50), "p95": float(p95), "calls": len(timed)}
    return found
