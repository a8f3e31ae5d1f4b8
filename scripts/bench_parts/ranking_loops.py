"""Loops over whole catalogues: ranking with metrics, soft labels, exact list losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench_parts import naive
from bench_parts.data import Scale
from bench_parts.knowledge import spread_labels
from bench_parts.measure import Row, Target, in_turn, peak
from recdistill.catalogue import CHUNK_BYTES, CHUNK_ROWS
from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.sampling import SeenItems
from recdistill.distill.rrd import RRD
from recdistill.evaluation.accuracy import METRICS
from recdistill.evaluation.evaluator import Evaluator
from recdistill.evaluation.measures import measure
from recdistill.losses import distinct
from recdistill.models.base import Recommender, own_loss
from recdistill.products import inner_products
from recdistill.ranking import chunk_rows
from recdistill.runtime import generator
from recdistill.soft_labels.extract import Layout, extract
from recdistill.types import Batch, Dataset, Interactions

DEPTH = 500


def ranking(scale: Scale, device: str) -> Row:
    """Top 20 of unseen items and NDCG, as training validates; and what all metrics cost. At L for a sample of users."""
    held_out, number = scale.parts[1], {"S": 6_000, "M": 3_000, "L": 1_000}[scale.name]
    user = _some(held_out.user.unique(), number)
    held_out = _of_users(held_out, user)
    model = scale.model().to(device)
    evaluator = _evaluator(scale, held_out, device)
    users, items = (table.detach().cpu().numpy() for table in (model.user_table, model.item_table))
    seen = [np.array(sorted(own), dtype=np.int64) for own in naive.item_sets(scale.train)]
    wanted, chosen = naive.item_sets(held_out), user.numpy()
    ranked = evaluator.evaluate(model, "valid").ranked
    of = evaluator.items, evaluator.users, evaluator.cutoffs, evaluator.metrics
    works = {
        "ours": lambda: _validate(evaluator, model),
        "naive": lambda: naive.rank(users, items, seen, wanted, chosen),
        "floor": _products(model.user_table.detach(), model.item_table.detach(), user.to(device)),
        "all metrics": lambda: measure(ranked, *of),
    }
    taken = in_turn(works, 5 if scale.name != "L" else 3, device=device)
    seconds = {name: value * 1000 / len(user) for name, value in taken.items()}
    targets = []
    if scale.name != "M":
        limit = {"S": 2.3, "L": 2.5}[scale.name]
        targets.append(Target("times faster", seconds["naive"] / seconds["ours"], limit))
    if scale.name == "S":
        targets.append(Target("times the product alone", seconds["ours"] / seconds["floor"], 3.5, at_most=True))
    share = seconds["all metrics"] / (seconds["ours"] + seconds["all metrics"])
    if scale.name == "L":  # what is asked of 100k users; a smaller catalogue takes less to rank and no less to measure
        targets.append(Target("share of metrics", share, 0.1, at_most=True))
    note = f"{len(user)} users; all metrics are {share:.2g} of it and them"
    return Row("ranking", scale.name, "1000 users", seconds, targets, peak(works["ours"], device), note)


def soft_labels(scale: Scale, device: str) -> Row:
    """The 500 best unseen items of a block of users; the floor is product and topk without masks or order of ties."""
    number, sample = {"S": 2_000, "M": 2_000, "L": 500}[scale.name], {"S": 200, "M": 200, "L": 30}[scale.name]
    user = _some(torch.arange(scale.n_users), number).to(device)
    model, layout = scale.model().to(device), Layout(scale.n_items, DEPTH)
    seen, scorer = SeenItems(scale.train, device), model.scorer()
    tables = model.user_table.detach(), model.item_table.detach()
    users, items = (table.cpu().numpy() for table in tables)
    sets, chosen = naive.item_sets(scale.train), user[:sample].cpu().numpy()

    def ours() -> object:
        with torch.no_grad():
            return extract(scorer, seen, user, layout)

    works = {
        "ours": ours,
        "naive": lambda: naive.soft_labels(users, items, sets, chosen, DEPTH),
        "floor": _products(*tables, user, k=DEPTH),
    }
    taken = in_turn(works, 3, device=device)
    seconds = {name: value * 1000 / (sample if name == "naive" else number) for name, value in taken.items()}
    targets = [Target("times product and topk", seconds["ours"] / seconds["floor"], 2.0, at_most=True)]
    if scale.name != "M":
        limit = {"S": 4.0, "L": 12.0}[scale.name]
        targets.append(Target("times faster", seconds["naive"] / seconds["ours"], limit))
    note = f"{number} users, naive {sample}"
    return Row("soft-labels", scale.name, "1000 users", seconds, targets, peak(works["ours"], device), note)


def softmax(scale: Scale, device: str) -> Row:
    """Forward and backward of the softmax base loss for 1024 rows, against the three products of its shape."""
    batch = _batch(scale, 1024, device)
    model = scale.model().to(device)

    def ours() -> None:
        model.zero_grad()
        own_loss("softmax", model.scorer(), batch).backward()  # type: ignore[no-untyped-call]  # torch's has no types

    return _list_loss("softmax", scale, device, ours, batch)


def rrd_all(scale: Scale, device: str) -> Row:
    """Forward and backward of RRD with `rest: all` for 1024 rows, against the three products of its shape."""
    batch = _batch(scale, 1024, device)
    model, method = scale.model().to(device), RRD()
    method.prepare(spread_labels(scale, method.depth), scale.train, model, generator(0, "bench"))

    def ours() -> None:
        model.zero_grad()
        method(model.scorer(), batch)["rrd"].backward()  # type: ignore[no-untyped-call]  # torch's has no types

    return _list_loss("rrd-rest-all", scale, device, ours, batch)


def _list_loss(name: str, scale: Scale, device: str, ours: object, batch: Batch) -> Row:
    model = scale.model().to(device)
    users = model.user_table.detach()[distinct(batch.user)[0]]
    items = model.item_table.detach()
    rows = min(len(users), max(CHUNK_ROWS, CHUNK_BYTES // (4 * len(items))))  # as the loss has them
    parts = list(users.split(rows))
    scores = torch.empty(rows, len(items), device=device)
    out = torch.empty_like(items)

    def products() -> None:
        for part in parts:
            score = torch.mm(part, items.T, out=scores[: len(part)])
            score @ items
            torch.mm(score.T, part, out=out)

    works = {"ours": ours, "floor": products}
    seconds = in_turn(works, 5 if scale.name != "L" else 3, device=device)  # type: ignore[arg-type]  # functions
    target = Target("times the products", seconds["ours"] / seconds["floor"], 2.5, at_most=True)
    return Row(name, scale.name, "step of 1024 rows", seconds, [target], peak(ours, device))  # type: ignore[arg-type]  # a function


def _products(users: torch.Tensor, items: torch.Tensor, user: torch.Tensor, k: int = 0) -> object:
    """All scores of some users in chunks of ranking's size, by its library; and their k best where k > 0."""
    parts = [users[part] for part in user.split(chunk_rows(len(items), user.device))]

    def run() -> None:
        for part in parts:
            with torch.no_grad():
                score = inner_products(part, items)
            if k:
                score.topk(k, dim=1)

    return run


def _batch(scale: Scale, rows: int, device: str) -> Batch:
    draws = generator(0, "bench batch")
    some = torch.randint(scale.n_train, (rows,), generator=draws)
    negative = torch.randint(scale.n_items, (rows, 1), generator=draws)
    return Batch(scale.train.user[some].to(device), scale.train.item[some].to(device), negative.to(device))


@torch.no_grad()
def _validate(evaluator: Evaluator, model: Recommender) -> float:
    return evaluator.validate(model)


def _evaluator(scale: Scale, held_out: Interactions, device: str) -> Evaluator:
    train = scale.train
    ids = np.arange(0).astype(str)
    count = train.popularity()
    data = Dataset(scale.name, train, held_out, held_out, count, popularity_groups(count, 2), ids, ids, "bench", Path())
    return Evaluator(data, device=torch.device(device), cutoffs=[10, 20], metrics=list(METRICS), stored=100)


def _some(ids: torch.Tensor, number: int) -> torch.Tensor:
    chosen = torch.randperm(len(ids), generator=generator(0, "bench users"))[:number]
    return ids[chosen.sort().values]


def _of_users(data: Interactions, user: torch.Tensor) -> Interactions:
    kept = torch.isin(data.user, user)
    return Interactions(data.user[kept], data.item[kept], data.n_users, data.n_items)
