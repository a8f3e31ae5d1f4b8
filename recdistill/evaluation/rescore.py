"""Other cut-offs, metrics and conventions for the lists and ranks that a run stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recdistill.errors import ConfigError, nearest
from recdistill.evaluation.accuracy import METRICS
from recdistill.evaluation.definitions import NAMES
from recdistill.evaluation.measures import Values, hits
from recdistill.evaluation.profiles import Profile
from recdistill.evaluation.stored import StoredRun, remade

WITHOUT_CUTOFF = ("pru", "pri")


def rescored(run: StoredRun, names: Sequence[str], cutoffs: Sequence[int], profile: Profile) -> dict[str, Values]:
    """Metrics of all models of a run on test, in the order asked for.

    Args:
        run: the stored run.
        names: as in results.json without split and cut-off: `ndcg`, `recall/group=0`, `poplift/users=niche`, `pru`.
        cutoffs: list lengths. Accuracy comes from the ranks of held-out items, so any up to the catalogue will do;
            the other metrics need lists of that length.
        profile: whose accuracy formulas.

    Returns:
        By model, values by `METRIC@K...`; None where one does not exist.

    Raises:
        ConfigError: test was not read, a name is unknown, or a cut-off is beyond the stored lists or the catalogue.
        CacheError: a table of the run cannot be read.
    """
    _check(run, names, cutoffs, profile)
    keys = [_key(name, k) for name in names for k in ([None] if name in WITHOUT_CUTOFF else cutoffs)]
    accuracy = [name for name in names if name in METRICS]
    found = {model: _accuracy(run, model, accuracy, cutoffs, profile) for model in run.results["models"]}
    if len(accuracy) < len(names):
        of_lists, bought = remade(run, [k for k in cutoffs if k <= run.depth], [])
        found = {model: values | of_lists[model] for model, values in found.items()}
        found["student"] |= {key: value for key, value in bought.items() if key != "gap_closed"}
        if unknown := [key for key in keys if all(key not in values for values in found.values())]:
            raise _unknown(unknown[0], {key for values in found.values() for key in values})
    return {model: {key: values.get(key) for key in keys} for model, values in found.items()}


def _key(name: str, k: int | None) -> str:
    metric, slash, group = name.partition("/")
    return name if k is None else f"{metric}@{k}{slash}{group}"


def _accuracy(run: StoredRun, model: str, names: Sequence[str], cutoffs: Sequence[int], profile: Profile) -> Values:
    if not names:
        return {}
    row, rank = run.ranks(model)
    relevant = np.bincount(row)
    hit = hits(row, rank, len(relevant), max(cutoffs))
    length = run.ranked(model).length if set(names) & set(profile.list_formulas) else relevant
    n_users = run.results["dataset"]["n_users"]
    return {
        f"{name}@{k}": profile.value(name, hit[:, :k], relevant, np.minimum(length, k), n_users)
        for name in names
        for k in cutoffs
    }


def _check(run: StoredRun, names: Sequence[str], cutoffs: Sequence[int], profile: Profile) -> None:
    if not run.results["config"]["evaluation"]["test"]:
        raise ConfigError(
            f"{run.folder} was run with evaluation.test=false",
            "lists and ranks are stored of test users",
            "repeat the run with evaluation.test=true once its settings are chosen",
        )
    for name in names:
        if name.partition("/")[0] not in NAMES:
            raise _unknown(name, set(NAMES))
    n_items = run.results["dataset"]["n_items"]
    if min(cutoffs) < 1 or max(cutoffs) > n_items:
        raise ConfigError(
            f"--k {','.join(map(str, cutoffs))}: cut-offs go from 1 to {n_items:,}",
            f"{run.results['dataset']['name']} has {n_items:,} items",
            f"choose cut-offs within, such as --k {min(20, n_items)}",
        )
    of_lists = [
        name for name in names if (name not in METRICS and name not in WITHOUT_CUTOFF) or name in profile.list_formulas
    ]
    if of_lists and max(cutoffs) > run.depth:
        of_ranks = [name for name in names if name not in of_lists]
        raise ConfigError(
            f"--k {max(cutoffs)} is beyond the stored lists of {run.depth} items, which {', '.join(of_lists)} need",
            "the first evaluation.stored items of each list are kept; only the ranks of held-out items go further",
            f"choose --k up to {run.depth}, or metrics of ranks alone: --metrics {','.join(of_ranks or METRICS)}, "
            f"or repeat the run with evaluation.stored={max(cutoffs)}",
        )


def _unknown(name: str, known: set[str]) -> ConfigError:
    return ConfigError(
        f"there is no metric {name}{nearest(name, known)}",
        "metrics are named as in results.json, without split and cut-off; docs/metrics.md has them all",
        f"choose of {', '.join(sorted({key.partition('@')[0].partition('/')[0] for key in known}))}",
    )
