"""Loops that train: a BPR-MF epoch, a LightGCN step, what a distiller adds to a step."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from bench_parts import naive
from bench_parts.data import DIM, Scale
from bench_parts.knowledge import teacher_labels
from bench_parts.measure import Row, Target, in_turn, peak
from recdistill.dataset.sampling import unseen_sampler
from recdistill.distill.base import Distiller
from recdistill.distill.none import NoDistillation
from recdistill.losses import distinct
from recdistill.models.base import InnerProductScorer, Scorer
from recdistill.models.lightgcn import LightGCN
from recdistill.runtime import generator
from recdistill.training.feed import Feed
from recdistill.training.objective import Objective
from recdistill.training.optimizers import make_optimizer
from recdistill.training.trainer import train_step
from recdistill.types import Batch

BATCH, DECAY, RATE = 1024, 0.001, 0.001
MILLION = 1_000_000
LIST_LOSSES = ("rrd", "rrd-sampled", "ir_rrd", "dcd", "strata")
KD_LIMITS = dict.fromkeys(("unkd", "rd", "cd", "ce_kd", "rce_kd"), 1.5) | dict.fromkeys(LIST_LOSSES, 3.0)
CONF = Path(__file__).parents[2] / "conf" / "distill"


def bpr_epoch(scale: Scale, device: str) -> Row:
    """Feed, draws and steps of matrix factorisation with one negative per row, by the optimizer that suits the scale.

    At L the feed is timed for a whole epoch and the steps for some of them; the naive variant likewise.
    """
    data, kind = scale.train, "row_adam" if scale.name == "L" else "adam"
    steps = {"S": None, "M": 200, "L": 60}[scale.name]
    model = scale.model().to(device)
    model.by_rows = kind == "row_adam"
    objective = Objective(model, NoDistillation(), DECAY)
    optimizer = make_optimizer(kind, objective.parameters(), RATE)
    feed = Feed(data, batch_size=BATCH, negatives=1, seed=0, device=torch.device(device))
    batches = list(islice(feed.epoch(1), steps))
    copy = naive.EmbeddingMF(data.n_users, data.n_items, DIM, DECAY).to(device)
    dense = torch.optim.Adam(copy.parameters(), lr=RATE, foreach=False)
    sampler = unseen_sampler(data)
    # A loader that shuffles five million rows for a few steps would be charged with all of it: it gets only their rows.
    some = torch.randperm(len(data), generator=generator(0, "bench"))[: steps and steps * BATCH]
    triplets = data.user[some], data.item[some], sampler.draw(data.user[some], generator(1, "bench"))
    loader = naive.loader(*triplets, BATCH)

    works = {
        "ours": lambda: [train_step(objective, optimizer, batch) for batch in batches],
        "naive": lambda: naive.train(copy, dense, _on(iter(loader), device)),
        "feed": lambda: [None for _ in feed.epoch(1)],
    }
    taken = in_turn(works, 3, device=device)
    scaled = MILLION / (min(len(batches) * BATCH, len(data)))
    step = taken["ours"] * scaled
    feeding = taken["feed"] * MILLION / len(data)
    seconds = {"ours": step + feeding, "naive": taken["naive"] * scaled, "our feed": feeding}
    limit = {"S": 5.0, "L": 15.0}.get(scale.name)
    targets = [Target("times faster", seconds["naive"] / seconds["ours"], limit)] if limit else []
    note = f"{kind}, {f'{steps} steps, scaled' if steps else 'whole epoch'}"
    return Row("bpr-epoch", scale.name, "1M triplets", seconds, targets, peak(works["ours"], device), note)


def _on(batches: Iterator[tuple[Tensor, ...]], device: str) -> Iterator[tuple[Tensor, ...]]:
    return (tuple(column.to(device).view(-1) for column in batch) for batch in batches)


def lightgcn_step(scale: Scale, device: str) -> Row:
    """Forward and backward of three layers and BPR for 2048 rows, without a teacher; gradients compared."""
    data = scale.train
    model = LightGCN(dim=DIM, layers=3)
    model.prepare(data, generator(0, "bench model"))
    model.to(device)
    batch = next(Feed(data, batch_size=2048, negatives=1, seed=0, device=torch.device(device)).epoch(1))
    graph = naive.adjacency(data).to(device)
    users, items = (table.detach().clone().requires_grad_() for table in (model.user_table, model.item_table))

    def ours() -> None:
        model.zero_grad()
        model.loss(model.batch_scorer(batch), batch).backward()  # type: ignore[no-untyped-call]  # torch's has no types

    def coo() -> None:
        users.grad = items.grad = None
        model.loss(InnerProductScorer(*naive.propagate(graph, users, items, 3)), batch).backward()  # type: ignore[no-untyped-call]  # as above

    works = {"ours": ours, "naive": coo}
    seconds = in_turn(works, {"S": 5, "M": 3, "L": 1}[scale.name], device=device)
    error = max(_relative(model.user_table, users), _relative(model.item_table, items))
    targets = [Target("difference of gradients", error, 1e-6, at_most=True)]
    if scale.name != "S":
        targets.append(Target("times faster", seconds["naive"] / seconds["ours"], 8.0))
    return Row("lightgcn-step", scale.name, "step of 2048 rows", seconds, targets, peak(ours, device))


def _relative(one: Tensor, other: Tensor) -> float:
    assert one.grad is not None
    assert other.grad is not None
    return float((one.grad - other.grad).norm() / other.grad.norm())


def distillers() -> dict[str, Distiller]:
    """Every method in conf/distill with its defaults, and RRD as published."""
    found: dict[str, Distiller] = {}
    for path in sorted(CONF.glob("*.yaml")):
        node: dict[str, Any] = yaml.safe_load(path.read_text())
        if "defaults" in node:  # made of others, which are measured themselves
            continue
        module, _, name = node.pop("_target_").rpartition(".")
        make = getattr(importlib.import_module(module), name)
        if make is not NoDistillation:
            found[path.stem] = make(**node)
        if path.stem == "rrd":
            found["rrd-sampled"] = make(**(node | {"draw": "sampled", "rest": "sampled"}))
    return found


class Counting(Scorer):
    """A scorer that counts the (user, item) pairs it is asked for."""

    def __init__(self, scorer: Scorer) -> None:
        """Wrap one."""
        self.scorer, self.counts = scorer, [0]
        self.user_vectors, self.item_vectors = scorer.user_vectors, scorer.item_vectors

    def pair_scores(self, user: Tensor, item: Tensor) -> Tensor:
        """As the scorer's."""
        self.counts.append(item.numel())
        return self.scorer.pair_scores(user, item)

    def all_scores(self, user: Tensor) -> Tensor:
        """As the scorer's."""
        score = self.scorer.all_scores(user)
        self.counts.append(score.numel())
        return score

    @property
    def pairs(self) -> int:
        """How many so far."""
        return sum(self.counts)

    def transposed(self) -> Scorer:
        """As the scorer's; its pairs count here."""
        return self._counted(self.scorer.transposed())

    def among(self, items: Tensor) -> Scorer:
        """As the scorer's; its pairs count here."""
        return self._counted(self.scorer.among(items))

    def _counted(self, scorer: Scorer) -> Scorer:
        made = Counting(scorer)
        made.counts = self.counts
        return made

    def catalogue_loss(self, user: Tensor, head: Any, row: Tensor | None = None, item: Tensor | None = None) -> Tensor:
        """As the scorer's."""
        assert self.item_vectors is not None
        self.counts.append(len(user) * len(self.item_vectors))
        return self.scorer.catalogue_loss(user, head, row, item)

    def listed_loss(self, user: Tensor, *given: Any, **settings: Any) -> Tensor:
        """As the scorer's; what is listed is part of the whole."""
        assert self.item_vectors is not None
        self.counts.append(len(user) * len(self.item_vectors))
        return self.scorer.listed_loss(user, *given, **settings)


def kd_steps(scale: Scale, device: str) -> Iterator[Row]:
    """What each distiller adds to a step, beside gathers or products that score as many pairs; users as in a batch."""
    student = scale.model().to(device)
    batch = next(Feed(scale.train, batch_size=BATCH, negatives=1, seed=0, device=torch.device(device)).epoch(1))
    for name, method in distillers().items():
        method.prepare(teacher_labels(scale, method), scale.train, student, generator(0, "bench"))
        method.to(device)
        method.on_epoch_start(0, student, generator(0, "distiller", 1, device))
        yield _kd_step(name, method, scale, device, batch)


def _kd_step(name: str, method: Distiller, scale: Scale, device: str, batch: Batch) -> Row:
    student = scale.model().to(device)
    objective, alone = Objective(student, method, DECAY), Objective(student, NoDistillation(), DECAY)
    counting = Counting(student.scorer())
    method(counting, batch)
    user = distinct(batch.user, static=False)[0]
    per_user = -(-counting.pairs // len(user))

    def ours() -> None:
        student.zero_grad()
        terms = method(student.scorer(), batch)
        sum(terms.values()).backward()  # type: ignore[union-attr]  # terms are tensors

    works: dict[str, Callable[[], object]] = {
        "ours": ours,
        "step": lambda: _backward(objective, batch),
        "step without": lambda: _backward(alone, batch),
    }
    if per_user:
        works |= _floors(student.user_table.detach(), student.item_table.detach(), user, per_user)
    seconds = in_turn(works, 7, device=device, steady=True)
    targets = []
    if per_user:
        # A method with an item side scores more pairs per user than there are items: so many products more.
        seconds["floor"] = min(seconds.pop("gather"), seconds.pop("product")) * max(1.0, per_user / scale.n_items)
        if name in KD_LIMITS:
            ratio = seconds["ours"] / seconds["floor"]
            targets.append(Target("times gather or product", ratio, KD_LIMITS[name], at_most=True))
    note = f"{counting.pairs} pairs; step {seconds['step'] / seconds['step without']:.3g} x undistilled"
    return Row(f"kd-step {name}", scale.name, f"step of {BATCH} rows", seconds, targets, peak(ours, device), note)


def _backward(objective: Objective, batch: Batch) -> None:
    objective.zero_grad()
    torch.stack(list(objective(batch).values())).sum().backward()  # type: ignore[no-untyped-call]  # torch's has no types


def _floors(users: Tensor, items: Tensor, user: Tensor, per_user: int) -> dict[str, Callable[[], object]]:
    """Scores of `per_user` items for each user and their gradients to both tables, by gathers or by whole products."""
    few = min(per_user, len(items))
    item = torch.randint(len(items), (len(user), few), generator=generator(0, "bench")).to(users.device)
    flat, pull = item.flatten(), torch.rand(len(user), few, device=users.device)
    rows = users.new_empty(len(flat), users.shape[1])  # a workspace made once

    def gather() -> None:
        torch.index_select(items, 0, flat, out=rows)
        of_user = users.index_select(0, user)
        of_item = rows.view(len(user), few, -1)
        torch.bmm(of_item, of_user.unsqueeze(2))
        torch.zeros_like(users).index_add_(0, user, torch.bmm(pull.unsqueeze(1), of_item).squeeze(1))
        torch.mul(pull.unsqueeze(2), of_user.unsqueeze(1), out=of_item)
        torch.zeros_like(items).index_add_(0, flat, rows)

    full = torch.empty(len(user), len(items), device=users.device)

    def product() -> None:
        of_user = users.index_select(0, user)
        torch.mm(of_user, items.T, out=full)
        torch.zeros_like(users).index_add_(0, user, full @ items)
        torch.mm(full.T, of_user)

    return {"gather": gather, "product": product}
