"""Loops that draw: negatives, batches, UnKD's pairs, RRD's items."""

from __future__ import annotations

import numpy as np
import torch

from bench_parts import naive
from bench_parts.data import Scale
from bench_parts.knowledge import spread_labels
from bench_parts.measure import Row, Target, in_turn, peak
from recdistill.dataset.sampling import unseen_sampler
from recdistill.distill.rrd import RRD
from recdistill.distill.unkd import UnKD
from recdistill.runtime import generator
from recdistill.training.feed import Feed

MILLION = 1_000_000


def negatives(scale: Scale, device: str) -> Row:
    """One unseen item for each of a million rows: in the order of users, as the feed draws them, and shuffled."""
    data = scale.train
    sampler = unseen_sampler(data, device)
    some = torch.randint(len(data), (MILLION,), generator=generator(0, "bench")).sort().values
    user = data.user[some].to(device)
    shuffled = user[torch.randperm(MILLION, generator=generator(0, "bench")).to(device)]
    seen, users = naive.item_sets(data), shuffled.tolist()
    works = {
        "ours": lambda: sampler.draw(user, generator(0, "negatives", device=device)),
        "naive": lambda: naive.negatives(users, seen, data.n_items),
        "floor": lambda: torch.randint(data.n_items, (MILLION,), device=device),
    }
    seconds = in_turn(works, 3, device=device)
    limit = {"S": 6.0, "L": 8.0}.get(scale.name)
    targets = [Target("times faster", seconds["naive"] / seconds["ours"], limit)] if limit else []
    return Row("negatives", scale.name, "1M draws", seconds, targets, peak(works["ours"], device))


def feeding(scale: Scale, device: str) -> Row:
    """A million triplets, already drawn, in shuffled batches of 1024; the floor copies them once."""
    data = scale.train
    draws = generator(0, "bench")
    some = torch.randint(len(data), (MILLION,), generator=draws).sort().values
    user, item = data.user[some], data.item[some]
    negative = torch.randint(data.n_items, (MILLION, 1), generator=draws)
    few = slice(0, MILLION // 10)
    loader = naive.loader(user[few], item[few], negative[few], 1024)
    rows = tuple(column.to(device) for column in (user, item, negative))
    works = {
        "ours": lambda: _exhaust(Feed.shuffled(*rows, 1024, generator(0, "feed", 1, device))),
        "naive": lambda: _exhaust(loader),
        "floor": lambda: [column.clone() for column in rows],
    }
    seconds = in_turn(works, 3, device=device)
    seconds["naive"] *= 10
    target = Target("times faster", seconds["naive"] / seconds["ours"], 100.0)
    note = "naive on 100k triplets, scaled"
    return Row("feeding", scale.name, "1M triplets", seconds, [target], peak(works["ours"], device), note)


def _exhaust(batches: object) -> None:
    for _ in batches:  # type: ignore[attr-defined]  # any iterable
        pass


def unkd_draws(scale: Scale, device: str) -> Row:
    """The pairs of an epoch; the naive loop on a sample of users."""
    method, labels = UnKD(depth=100), spread_labels(scale, 100, groups=4)
    student = scale.model().to(device)
    method.prepare(labels, scale.train, student, generator(0, "bench"))
    ranked = method.lists.cpu().numpy()
    per_cell = method.pairs // method.groups
    sample = 100
    draws = scale.n_users * method.pairs / MILLION
    works = {
        "ours": lambda: method.on_epoch_start(0, student, generator(0, "distiller", 1, device)),
        "naive": lambda: naive.unkd_draws(ranked, sample, per_cell, method.mu),
    }
    seconds = in_turn(works, 3, device=device)
    seconds = {
        "ours": seconds["ours"] / draws,
        "naive": seconds["naive"] * MILLION / (sample * per_cell * method.groups),
    }
    target = Target("times faster", seconds["naive"] / seconds["ours"], 200.0)
    note = f"naive on {sample} users, scaled"
    return Row("unkd-draws", scale.name, "1M pairs", seconds, [target], peak(works["ours"], device), note)


def rrd_draws(scale: Scale, device: str) -> Row:
    """40 of the top 500 by rank and 40 of the rest for every user; the naive loop on a sample of users."""
    method = RRD(depth=500, temperature=100.0, draw="sampled", rest="sampled")
    student = scale.model().to(device)
    method.prepare(spread_labels(scale, 500), scale.train, student, generator(0, "bench"))
    sample = min(scale.n_users, 500)
    seen, top = naive.item_sets(scale.train), method.top[:sample].cpu().numpy()
    draws = (method.interesting + method.uninteresting) / MILLION
    works = {
        "ours": lambda: method.on_epoch_start(0, student, generator(0, "distiller", 1, device)),
        "naive": lambda: naive.rrd_draws(top, seen, sample, scale.n_items, method.interesting, method.temperature),
    }
    seconds = in_turn(works, 3, device=device)
    seconds = {"ours": seconds["ours"] / (draws * scale.n_users), "naive": seconds["naive"] / (draws * sample)}
    limit = {"S": 3.0, "L": 30.0}.get(scale.name)
    targets = [Target("times faster", seconds["naive"] / seconds["ours"], limit)] if limit else []
    note = f"naive on {sample} users, scaled"
    return Row("rrd-draws", scale.name, "1M draws", seconds, targets, peak(works["ours"], device), note)


np.random.seed(0)  # noqa: NPY002  # the naive variants use the global state, as they are often written
