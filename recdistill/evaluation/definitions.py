"""What every metric means, as data: stored with each result, so that numbers of unlike definitions are not compared."""

from __future__ import annotations

from recdistill.evaluation.distillation import PERSISTENCE

DEFINITIONS: dict[str, dict[str, str]] = {
    "recall": {"formula": "hits / relevant"},
    "ndcg": {"discount": "1/log2(rank+1)", "ideal": "min(k, relevant)", "gain": "binary"},
    "hit": {"formula": "at least one hit"},
    "precision": {"formula": "hits / k"},
    "mrr": {"formula": "1/rank of the first hit, else 0"},
    "map": {"formula": "sum of precision at the hits / min(k, relevant)"},
    "poplift": {"formula": "(GAP of lists - GAP of profiles) / GAP of profiles", "popularity": "distinct train users"},
    "group_recall": {"formula": "macro: mean over users with a relevant item in the group of hits / relevant in it"},
    "ranking": {"candidates": "all items unseen in train (valid) or in train and valid (test)", "ties": "item index"},
    "average": {"over": "users with at least one relevant item"},
    "poplift_vs_teacher": {"formula": "(GAP of lists - GAP of the teacher's lists) / GAP of the teacher's lists"},
    "arp": {"formula": "mean over users of the mean popularity of the list"},
    "arp_relative": {"formula": "arp / mean popularity of the catalogue"},
    "aplt": {"formula": "mean over users of the share of the list in the long tail", "long_tail": "items=mid|tail"},
    "aclt": {"formula": "mean over users of the number of items of the list in the long tail"},
    "coverage": {"formula": "items in any list / catalogue"},
    "tail_coverage": {"formula": "long-tail items in any list / long-tail items"},
    "gini": {"formula": "sum_j (2j - n - 1) x_j / (n sum x) of exposures x, rising", "over": "the whole catalogue"},
    "entropy": {"formula": "-sum p log p of exposure shares", "unit": "nats"},
    "kl_uniform": {"formula": "log(catalogue) - entropy"},
    "exposure": {"formula": "places in lists that the item group takes / all places"},
    "recall_micro": {"formula": "hits in the group / relevant items in the group, over all users"},
    "recall_all_users": {"formula": "as group_recall, users without a relevant item in the group count 0"},
    "group_ndcg": {"formula": "hits in the group at their places in the list, ideal min(k, relevant in the group)",
                   "average": "macro"},
    "group_precision": {"formula": "hits in the group / k"},
    "pru": {"formula": "-mean over users of Spearman(popularity, rank) of the user's relevant items"},
    "pri": {"formula": "-Spearman(popularity, mean rank where relevant) over items"},
    "item_groups": {"group=G": "equal training mass, 0 = head", "items=head": "fifth of the items with most users",
                    "items=tail": "fifth with fewest", "items=mid": "the others"},
    "user_groups": {"users=niche": "fifth of the users with the smallest share of items=head in the profile",
                    "users=blockbuster": "fifth with the largest", "users=diverse": "the others",
                    "users=binN": "tenths of the users by mean profile popularity, bin0 the least popular"},
    "gap_closed": {"formula": "(student - scratch) / (teacher - scratch)",
                   "null": "teacher <= scratch or lead below twice its standard error"},
    "overlap": {"formula": "common items of the student's and the teacher's first k / k"},
    "rbo": {"formula": "rank-biased overlap of student and teacher, extrapolated", "p": str(PERSISTENCE)},
    "gain_share": {"formula": "(student's - scratch's hits in the item group) / (student's - scratch's hits)"},
    "users_better": {"formula": "users with a higher ndcg@k than with scratch"},
    "users_worse": {"formula": "users with a lower ndcg@k than with scratch"},
    "users_equal": {"formula": "users with the same ndcg@k as with scratch"},
}  # fmt: skip

NAMES = tuple(  # of metrics, as results.json spells them
    name
    for name in DEFINITIONS
    if name not in ("ranking", "average", "item_groups", "user_groups", "gap_closed") and name[:6] != "group_"
)
