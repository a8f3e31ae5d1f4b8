"""A guard against soft labels of another split."""

from __future__ import annotations

import torch

from recdistill.errors import CacheError
from recdistill.types import Interactions, SoftLabels

USERS = 1000  # enough: of another split, a tenth of a user's items would be among the best of the lists


def refuse_other_split(labels: SoftLabels, interactions: Interactions) -> SoftLabels:
    """The labels, if their lists rank none of the users' training items; looked at are the first users.

    A teacher of another split has trained with items that are held out here, so its lists would tell what they are.

    Raises:
        CacheError: an item of a list is a training item of its user.
    """
    start, item = interactions.csr()
    n = min(USERS, interactions.n_users)
    row, place = (torch.arange(labels.item.shape[1]) < labels.length[:n].unsqueeze(1)).nonzero(as_tuple=True)
    listed = row * interactions.n_items + labels.item[row, place]
    known = interactions.user[: start[n]] * interactions.n_items + item[: start[n]]
    found = torch.isin(listed, known)
    if found.any():
        user, wrong = divmod(int(listed[found][0]), interactions.n_items)
        raise CacheError(
            f"the soft labels of {labels.teacher} rank item {wrong} for user {user}, who trains with it",
            "lists leave out the training items of their own split: these are of another one, whose teacher may have "
            "trained with what is held out here",
            f"remove cache/soft_labels/{labels.key} under paths.outputs and run again",
        )
    return labels
