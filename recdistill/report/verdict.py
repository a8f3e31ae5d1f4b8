"""What a run found, in plain words with numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recdistill.report.html import duration, share, signed, size
from recdistill.report.stored import StoredRun

Z95 = 1.959964  # of the normal distribution
FEW_USERS = 30  # below it that distribution is no description of a mean
SAME_LIFT = 0.005  # lifts that print as the same percentage


@dataclass(frozen=True)
class Verdict:
    """The result in one sentence, then what it costs and what it did to popularity."""

    headline: str
    sentences: list[str]


def verdict(run: StoredRun) -> Verdict:
    """The paragraph at the top of a run's page."""
    rest = [_values(run), *_noise(run), *_cost(run), *_lift(run), *_unpopular(run), *_gain(run)]
    return Verdict(_headline(run), rest)


def teacher_of(run: StoredRun) -> str | None:
    """The only teacher, or the best of several by ndcg; None without one that was evaluated."""
    names = [
        name for name in run.models if name.partition(".")[0] == "teacher" and run.metric(name, "ndcg") is not None
    ]
    return max(names, key=lambda name: run.metric(name, "ndcg") or 0.0, default=None)


def gap_closed(run: StoredRun) -> float | None:
    """The share of the teacher's lead over scratch in ndcg that the student has."""
    gaps = run.results["distillation"].get("gap_closed", {})
    value: float | None = gaps.get(f"{run.split}/ndcg@{run.k}")
    return value


def unpopular_group(run: StoredRun) -> str | None:
    """The last popularity group."""
    groups = run.strata("recall", "group")
    return f"recall/group={groups[-1]}" if len(groups) > 1 else None


def group_names(n: int) -> list[str]:
    """What popularity groups of equal training mass are called, most popular first."""
    if n == 2:
        return ["popular half", "unpopular half"]
    ends = {1: " (head)", n: " (tail)"}
    return [f"{g}{ends.get(g, '')}" for g in range(1, n + 1)]


def interval(difference: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean of paired differences [n], normal approximation."""
    half = Z95 * float(difference.std(ddof=1)) / len(difference) ** 0.5
    return float(difference.mean()) - half, float(difference.mean()) + half


def _difference(run: StoredRun, other: str | None) -> np.ndarray | None:
    """[n] ndcg of the student minus another model's, user by user; None where it is not stored."""
    values = run.per_user(f"ndcg@{run.k}")
    if other is None or other not in values or "student" not in values:
        return None
    difference: np.ndarray = values["student"] - values[other]
    return difference


def _clearly(run: StoredRun, other: str | None) -> int | None:
    """1 if the student is above another model beyond the noise between users, -1 below, 0 within; None unknown."""
    difference = _difference(run, other)
    if difference is None or len(difference) < FEW_USERS:
        return None
    low, high = interval(difference)
    return int(low > 0) - int(high < 0)


def _teacher_name(run: StoredRun) -> str:
    """What a sentence calls the teacher that the student is compared with."""
    return "the teacher" if "teacher" in run.models else "the best teacher"


def _headline(run: StoredRun) -> str:
    gap, teacher = gap_closed(run), teacher_of(run)
    student, method = run.metric("student", "ndcg"), run.results["distillation"]["name"]
    best = None if teacher is None else run.metric(teacher, "ndcg")
    reached = f"{student / best:.0%}" if student is not None and best else None
    if method == "none":
        return f"A student trained alone, without distillation: NDCG@{run.k} {student:.3f}."
    if "scratch" not in run.models or run.split == "valid":
        of = "" if reached is None else f", {reached} of its teacher's"
        return f"The student reaches NDCG@{run.k} {student:.3f}{of}; what distillation bought was not measured."
    scratch, gained = run.metric("scratch", "ndcg"), _clearly(run, "scratch")
    if gained is None and student is not None and scratch is not None:
        gained = int(student > scratch) - int(student < scratch)
    if gained == -1:
        return f"Distillation did harm: in NDCG@{run.k} the student is below the same model trained alone."
    if gap is None and "gap_closed" in run.results["distillation"]:
        weak = "teacher is not clearly better than the student trained alone: there is no gap to close."
        return f"Distillation raised NDCG@{run.k}, yet the {weak}" if gained == 1 else f"The {weak}"
    if gained == 0:
        return f"Distillation made no clear difference: what it changed in NDCG@{run.k} is within the noise."
    if gap is None:
        of = "raised" if reached is None else f"brought the student to {reached} of its best teacher's"
        return f"Distillation {of} NDCG@{run.k}."
    if gap > 1 and _clearly(run, teacher) == 0:
        return f"The student is level with its teacher in NDCG@{run.k}, and above the same model trained alone."
    if gap > 1:
        return f"The student passes its teacher: it closes {gap:.0%} of the gap to training alone in NDCG@{run.k}."
    return f"The student closes {gap:.0%} of the gap between training alone and its teacher in NDCG@{run.k}."


def _values(run: StoredRun) -> str:
    where = "the test part" if run.split == "test" else "the validation part (test was not read)"
    parts = []
    if "scratch" in run.models:
        parts.append(f"{run.metric('scratch', 'ndcg'):.4f} of the same model trained alone (scratch)")
    if (teacher := teacher_of(run)) is not None:
        which = "" if teacher == "teacher" else f" ({teacher.partition('.')[2]})"
        parts.append(f"{run.metric(teacher, 'ndcg'):.4f} of {_teacher_name(run)}{which}")
    against = f", against {' and '.join(parts)}" if parts else ""
    return f"On {where} the student reaches {run.metric('student', 'ndcg'):.4f}{against}."


def _noise(run: StoredRun) -> Iterator[str]:
    """Whether the difference to scratch is beyond what users differ by."""
    difference = _difference(run, "scratch")
    if difference is None:
        return
    n = len(difference)
    if n < FEW_USERS:
        yield f"With {n} users nothing can be said about noise."
        return
    if not difference.any():
        yield "For every single user it is as good as scratch."
        return
    low, high = interval(difference)
    beyond = "beyond" if low > 0 or high < 0 else "within"
    yield (
        f"The difference to scratch is {signed(float(difference.mean()), '.4f')} (95% interval over {n:,} users "
        f"{signed(low, '.4f')} to {signed(high, '.4f')}): {beyond} the noise between users. "
        "How much seeds differ, one run cannot tell."
    )


def _cost(run: StoredRun) -> Iterator[str]:
    """Size and latency against the teacher's."""
    student = run.models["student"]
    text = f"The student has {student['parameters']:,} parameters ({size(student['bytes'])})"
    teacher = teacher_of(run)
    if teacher is not None and student["parameters"] and run.models[teacher]["parameters"]:
        text += f", {share(student['parameters'] / run.models[teacher]['parameters'])} of {_teacher_name(run)}'s"
    if (mine := latency(run, "student")) is not None:
        theirs = None if teacher is None else latency(run, teacher)
        against = "" if theirs is None else f", {_teacher_name(run)} in {duration(theirs)}"
        text += f", and ranks one user in {duration(mine)}{against} (median)"
    yield text + "."


def latency(run: StoredRun, model: str) -> float | None:
    """Median milliseconds for one user's list; None where it was not measured."""
    timed = run.models[model].get("latency")
    return None if timed is None else 1000 * float(timed["single"]["p50"])


def _lift(run: StoredRun) -> Iterator[str]:
    """What happened to popularity bias."""
    mine = run.metric("student", "poplift")
    if mine is None:
        return
    others = {
        "scratch": run.metric("scratch", "poplift") if "scratch" in run.models else None,
        _teacher_name(run): None if (teacher := teacher_of(run)) is None else run.metric(teacher, "poplift"),
    }
    told = ", ".join(f"{name} {signed(value)}" for name, value in others.items() if value is not None)
    text = (
        f"Its lists are {abs(mine):.0%} {'more' if mine >= 0 else 'less'} popular than what its users chose themselves"
    )
    text += f" ({told})" if told else ""
    base = others["scratch"]
    if base is None:
        yield text + "."
    elif abs(mine - base) < SAME_LIFT:
        yield text + ": distillation left popularity bias as it was."
    elif min(mine, base) > 0:
        yield text + f": distillation {'added to' if mine > base else 'reduced'} popularity bias."
    else:
        yield text + f": distillation made them {'more' if mine > base else 'less'} popular."


def _unpopular(run: StoredRun) -> Iterator[str]:
    """What happened to the items that few users have."""
    name = unpopular_group(run)
    mine = None if name is None else run.metric("student", name)
    if name is None or mine is None:
        return
    groups = len(run.strata("recall", "group"))
    where = "the unpopular half of interactions" if groups == 2 else f"the least popular of {groups} item groups"
    base = run.metric("scratch", name) if "scratch" in run.models else None
    if base is None:
        yield f"Recall@{run.k} in {where} is {mine:.4f}."
    else:
        before, after = f"{base:.4f}", f"{mine:.4f}"
        went = "rose" if mine > base else "fell"
        changed = f"stayed at {before}" if before == after else f"{went} from {before} (scratch) to {after}"
        yield f"In {where} recall@{run.k} {changed}."


def _gain(run: StoredRun) -> Iterator[str]:
    """Where the hits gained over scratch lie."""
    head = run.results["distillation"].get(f"gain_share@{run.k}/items=head")
    gained = "scratch" in run.models and (run.metric("student", "recall") or 0) > (run.metric("scratch", "recall") or 0)
    if head is None or not gained:
        return
    where = "on the fifth of the items with the most users"
    if head > 1:
        yield f"The whole gain in hits over scratch is {where}; the other items lost hits."
    elif head < 0:
        yield "The fifth of the items with the most users lost hits against scratch; the whole gain is on the others."
    else:
        yield f"Of the hits gained over scratch, {head:.0%} are {where}."
