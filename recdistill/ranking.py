"""Full ranking of unseen items, users in chunks: for soft labels, evaluation and distillers alike."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from recdistill.dataset.sampling import SeenItems
from recdistill.errors import OutOfMemory
from recdistill.models.base import Scorer
from recdistill.runtime import fitting_rows, for_ranking, free_memory, is_out_of_memory
from recdistill.types import Interactions, TopK

CHUNK_BYTES = 6 << 20  # of scores: they stay in the cache between the product and the selection
CHUNK_ROWS = 64  # and at least so many users: a product of fewer rows reads the items' table for too little
WIDE_ROWS, WIDE_BYTES = 128, 64 << 20  # or so many where so much holds them: a fifth less at 100k items
DEVICE_CHUNK_BYTES = 1 << 28  # off the CPU, where a smaller product costs as much: the launches of its kernels
FOLD = 8  # columns to a maximum; a row is folded while more than 2k of them remain
T = TypeVar("T")
Bits = TypeVar("Bits", Tensor, np.ndarray)
log = logging.getLogger("recdistill")


@dataclass(frozen=True)
class HeldOutRanks:
    """Ranks of held-out items among a user's unseen items.

    Shapes:
        user, item, rank: [n] int64; rank 1 = best.
    """

    user: Tensor
    item: Tensor
    rank: Tensor


def by_chunk(
    scorer: Scorer,
    seen: SeenItems,
    user: Tensor,
    n_items: int,
    work: Callable[[Tensor, Tensor], T],
    chunk: int | None = None,
) -> list[T]:
    """What `work` makes of each chunk: its users [B] and their scores [B, I] with seen items at -inf.

    Every chunk has the same number of rows (the last is filled up with repeats and cut), since the last bits of a
    product depend on its shape. A chunk that memory does not hold is halved, for the rest of the run, and the same
    users are done again, so `work` may overwrite the scores but must change nothing else.

    Raises:
        OutOfMemory: memory does not hold one user's scores.
    """
    wanted = min(chunk or chunk_rows(n_items, user.device), max(len(user), 1))
    done: list[T] = []
    first = 0
    while first < len(user):
        rows = min(wanted, fitting_rows.get(n_items, wanted))
        part = user[first : first + rows]
        try:
            done.append(work(part, _unseen_scores(scorer, seen, part, rows)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if rows == 1:
                raise _too_large(n_items, user.device) from error
        else:
            first += rows
            continue
        fitting_rows[n_items] = rows // 2  # behind the handler: until then the error keeps the chunk's values
        log.warning(f"memory does not hold {rows} users x {n_items:,} scores: chunks of {rows // 2} from here on")
    return done


def _unseen_scores(scorer: Scorer, seen: SeenItems, part: Tensor, rows: int) -> Tensor:
    filled = part if len(part) == rows else torch.cat([part, part[-1:].expand(rows - len(part))])
    # float32, as a selection wants it: a distiller's student may have another precision.
    return leave_out(scorer.all_scores(filled)[: len(part)].float().contiguous(), *seen.flat(part))


def _too_large(n_items: int, device: torch.device) -> OutOfMemory:
    size, free = 4 * n_items / 1e6, free_memory(device) / 1e6
    return OutOfMemory(
        f"the scores of one user for {n_items:,} items do not fit into the memory of {device}",
        f"they take {size:,.1f} MB, their selection a few times that; {free:,.1f} MB are free",
        "free memory there, raise a limit that is set for the process (ulimit -v), use device=cpu, or leave out rare"
        " items (dataset.filter.item_min)",
    )


def chunk_rows(n_items: int, device: torch.device) -> int:
    """Users per product, from the size of the catalogue and the kind of device alone: the same on every machine."""
    fitting = (CHUNK_BYTES if device.type == "cpu" else DEVICE_CHUNK_BYTES) // (4 * n_items)
    return max(WIDE_ROWS if WIDE_ROWS * 4 * n_items <= WIDE_BYTES else CHUNK_ROWS, fitting)


def leave_out(score: Tensor, row: Tensor, item: Tensor) -> Tensor:
    """Set entries to -inf; rows at or beyond the last (padding) are ignored.

    Shapes:
        score: [B, I], changed in place where it owns its memory. row, item: [n]. Returns: [B, I].
    """
    n_rows, n_items = score.shape
    if score.device.type == "cpu":
        score.view(-1).index_fill_(0, row * n_items + item, -torch.inf)
        return score
    padded = torch.cat([score.reshape(-1), score.new_zeros(1)])
    padded.index_fill_(0, torch.where(row < n_rows, row * n_items + item, n_rows * n_items), -torch.inf)
    return padded[:-1].view(n_rows, n_items)


def select_top(score: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns of each row, ties by lower column.

    Shapes:
        score: [B, I] float32. Returns: column [B, k] int64 and score [B, k], both best first.
    """
    k = min(k, score.shape[1])
    column = _top_of_rows(score, k) if score.device.type == "cpu" else _exact_top(score, k)
    return column, score.gather(1, column)


def _top_of_rows(score: Tensor, k: int) -> Tensor:
    """[B, k] columns by (score falling, column rising) on the CPU, where only what can be among the k is sorted."""
    values = score.contiguous().numpy()
    n_rows, n_items = values.shape
    row, column, unbound = _at_least_kth(values, k)
    found = np.empty((n_rows, k), np.int64)
    if len(row):
        count = np.bincount(row, minlength=n_rows)
        most = count.max()
        start = np.arange(n_rows) * most - (count.cumsum() - count)  # of each row's keys, less where its entries start
        bits = (values.ravel().take(row * n_items + column) + 0.0).view(np.int32)
        key = np.full(n_rows * most, np.iinfo(np.int64).max)
        key[start[row] + np.arange(len(row))] = (~_in_order(bits)).astype(np.int64) << 32 | column
        key = key.reshape(n_rows, most)  # integers in the order of the list
        key.sort(axis=1)
        found[:] = key[:, :k] & 0xFFFFFFFF
    if len(unbound):
        found[unbound] = _exact_top(score[torch.from_numpy(unbound)], k).numpy()
    return torch.from_numpy(found)


def _at_least_kth(score: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (rising) and columns of all entries at or above a bound, so low that k entries of their row reach it.

    A wide row is folded, and what it is folded to again: the k-th of the maxima over FOLD columns each is such a bound,
    and what reaches it lies under maxima that reach it. So a score is read once, and few are looked at again.

    Shapes:
        score: [B, I] float32. Returns: row [n], column [n], and the rows without a bound, of which nothing is told:
        more than 2k of their maxima (-inf where a user has few unseen items) reach it.
    """
    folds = [score]
    while folds[-1].shape[1] // FOLD > 2 * k:
        folds.append(_folded(folds[-1]))
    width = folds[-1].shape[1]
    bound = np.partition(folds[-1], width - k, axis=1)[:, width - k]
    place = np.flatnonzero(folds[-1] >= bound[:, None])
    row = place // width
    column = place - row * width
    count = np.bincount(row, minlength=len(score))
    unbound = (count < k) | (count > 2 * k)  # fewer: NaN
    if unbound.any():
        bounded = ~unbound[row]
        row, column = row[bounded], column[bounded]
    for fold in reversed(folds[:-1]):
        n_columns = fold.shape[1]
        width, rest = divmod(n_columns, FOLD)
        if rest:  # behind the maxima stand the last columns themselves
            column = np.where(column < width, column, column + n_columns - rest - width)
        step = np.arange(0, FOLD * width, width)[:, None]
        under = fold.ravel().take(step + (row * n_columns + column), mode="clip")  # [FOLD, n]
        reached = under >= bound[row]
        if rest:
            reached[1:] &= column < width
        kept = np.flatnonzero(reached.T)
        above = kept // FOLD
        row, column = row[above], column[above] + width * (kept - FOLD * above)
    return row, column, unbound.nonzero()[0]


def _folded(score: np.ndarray) -> np.ndarray:
    """[B, I // FOLD + I % FOLD]: maxima over every (I // FOLD)-th column, then the last columns."""
    n_rows, n_columns = score.shape
    width, rest = divmod(n_columns, FOLD)
    peak = np.empty((n_rows, width + rest), score.dtype)
    score[:, : width * FOLD].reshape(n_rows, FOLD, width).max(1, out=peak[:, :width])
    peak[:, width:] = score[:, width * FOLD :]
    return peak


def _exact_top(score: Tensor, k: int) -> Tensor:
    """[B, k] columns by (score falling, column rising), through one integer key per entry."""
    n_items = score.shape[1]
    column = torch.arange(n_items - 1, -1, -1, device=score.device)
    bits = (score + 0.0).view(torch.int32)
    return (_in_order(bits).long() * n_items + column).topk(k, dim=1).indices


def _in_order(bits: Bits) -> Bits:
    """int32 in the order of float32 scores, from their bits; of `score + 0.0`, for which -0.0 and 0.0 are one score."""
    ordered: Bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # of a negative number all bits but the sign are turned over
    return ordered


@for_ranking()
def top_k(scorer: Scorer, seen: SeenItems, user: Tensor, n_items: int, k: int, chunk: int | None = None) -> TopK:
    """The best unseen items of some users, ties by item index.

    Args:
        scorer: of the model.
        seen: what is left out.
        user: [n] int64, on the scorer's device.
        n_items: size of the catalogue.
        k: list length; users with fewer unseen items get shorter lists, padded with 0.
        chunk: users per product (None: by memory).

    Returns:
        On the device of `user`; [n, min(k, I)].
    """
    found = by_chunk(scorer, seen, user, n_items, lambda _, score: select_top(score, k), chunk)
    return _top(user, *map(torch.cat, zip(*found, strict=True)))


@for_ranking()
def top_k_and_ranks(
    scorer: Scorer, seen: SeenItems, held_out: Interactions, user: Tensor, n_items: int, k: int
) -> tuple[TopK, HeldOutRanks]:
    """Top-K lists and the exact ranks of held-out items from one pass over the scores.

    The rank of an item is 1 + the unseen items that score higher, or equal with a lower index.
    """
    start, all_items = held_out.csr()
    degree = start.diff()

    def lists_and_ranks(part: Tensor, score: Tensor) -> tuple[Tensor, ...]:
        lists = select_top(score, k)
        on_cpu = part.cpu()
        count = degree[on_cpu]
        row = torch.repeat_interleave(torch.arange(len(part)), count)
        place = torch.arange(len(row)) - (count.cumsum(0) - count)[row] + start[on_cpu][row]
        target = all_items[place]
        return *lists, on_cpu[row], target, _ranks(score, row.to(score.device), target.to(score.device)).cpu()

    found = by_chunk(scorer, seen, user, n_items, lists_and_ranks)
    items, scores, *held = map(torch.cat, zip(*found, strict=True))
    return _top(user, items, scores), HeldOutRanks(*held)


def _ranks(score: Tensor, row: Tensor, item: Tensor) -> Tensor:
    """[n] ranks of (row, item) entries."""
    return (_ranks_one_by_one if score.device.type == "cpu" else _ranks_in_blocks)(score, row, item)


def _ranks_one_by_one(score: Tensor, row: Tensor, item: Tensor) -> Tensor:
    """On the CPU, where one pass over a row that lies in the cache is far cheaper than a copy of it.

    Of equal items those before the own one are ahead of it: `>=` to its left, `>` to its right.
    """
    rows, ahead = score.numpy(), np.empty(len(row), np.int64)
    for n, (own_row, column) in enumerate(zip(row.tolist(), item.tolist(), strict=True)):
        line = rows[own_row]
        own = line[column]
        ahead[n] = np.count_nonzero(line[:column] >= own) + np.count_nonzero(line[column + 1 :] > own)
    return torch.from_numpy(ahead + 1)


def _ranks_in_blocks(score: Tensor, row: Tensor, item: Tensor) -> Tensor:
    """On a device, in blocks, so that no more than one chunk of scores is copied."""
    ranks = []
    index = torch.arange(score.shape[1], device=score.device)
    own_score = score[row, item].unsqueeze(1)
    for some in torch.split(torch.arange(len(row), device=row.device), max(score.shape[0], 1)):
        own, others = own_score[some], score.index_select(0, row[some])
        # Counted in float32, whose sums are several times faster than those of booleans and exact up to 2^24 items.
        ahead = torch.gt(others, own, out=torch.empty_like(others)).sum(1)
        level = torch.ge(others, own, out=torch.empty_like(others)).sum(1)
        rank = ahead.long() + 1
        tied = (level - ahead > 1).nonzero().squeeze(1)
        if len(tied):
            before = (others[tied] == own[tied]) & (index < item[some][tied].unsqueeze(1))
            rank[tied] += before.sum(1)
        ranks.append(rank)
    return torch.cat(ranks) if ranks else row


def _top(user: Tensor, item: Tensor, score: Tensor) -> TopK:
    found = score > -torch.inf
    return TopK(user, torch.where(found, item, torch.zeros_like(item)), score, found.sum(1))
