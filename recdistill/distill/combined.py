"""Combined: a weighted sum of distillers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from recdistill.distill.base import Distiller
from recdistill.errors import ConfigError, require
from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, GroupLists, Interactions, Knowledge


class Combined(Distiller):
    """The sum of several distillers' terms, each under its own weight.

        loss = sum over parts p of loss_p,  each with the weight that the part has

    A term `rrd` of a part `list` is named `list.rrd`, in the history as in the results. The teacher must provide what
    any part requires. The base loss is left out if any part leaves it out. Parts draw one after the other from one
    stream of random numbers, so a part does not draw what it would draw alone.

    Cost per step: that of the parts together; the student's propagation is shared.

    Args:
        parts: distillers by name; in YAML a choice for each: `- /distill@parts.list: rrd`.
    """

    def __init__(self, *, parts: dict[str, Distiller]) -> None:
        """Gather what the parts need."""
        super().__init__()
        require(len(parts) >= 1, "parts", sorted(parts), "at least one distiller")
        self.parts = nn.ModuleDict(parts)  # as children
        self.members = parts  # by their type
        each = list(parts.values())
        self.requires = frozenset().union(*(one.requires for one in each))  # type: ignore[misc]  # of the parts
        self.depth = max(one.depth for one in each)
        self.user_depth = max(one.user_depth for one in each)
        self.group_lists = _one_request([one.group_lists for one in each if one.group_lists is not None])
        self.teachers = _one_number([one.teachers for one in each if one.teachers is not None])
        self.replaces_base_loss = any(one.replaces_base_loss for one in each)

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Prepare the parts in order."""
        for part in self.members.values():
            part.prepare(knowledge, interactions, student, generator)

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Start the parts' epoch in order."""
        for part in self.members.values():
            part.on_epoch_start(epoch, student, generator)

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """All terms, under the names of their parts."""
        return {
            f"{name}.{term}": value
            for name, part in self.members.items()
            for term, value in part(scorer, batch).items()
        }

    def trained_models(self, student: Recommender) -> dict[str, Recommender]:
        """The student, and what any part trains beside it."""
        trained = {"student": student}
        for name, part in self.members.items():
            own = part.trained_models(student).items()
            trained |= {f"{name}.{key}": model for key, model in own if key != "student"}
        return trained

    def to_record(self) -> dict[str, float]:
        """The parts' numbers, under their names."""
        return {
            f"{name}.{key}": value for name, part in self.members.items() for key, value in part.to_record().items()
        }


def _one_request(requests: Sequence[GroupLists]) -> GroupLists | None:
    """One request that serves all parts."""
    if not requests:
        return None
    depth = max(one.depth for one in requests)
    merged = {replace(one, depth=depth) for one in requests}
    if len(merged) > 1:
        found = "; ".join(f"{one.groups} by {one.partition}" for one in requests)
        raise ConfigError(
            f"the parts ask for different popularity groups: {found}",
            "soft labels hold one set of lists per popularity group",
            "give the parts the same groups and partition",
        )
    return merged.pop()


def _one_number(teachers: Sequence[int]) -> int | None:
    """How many teachers all parts take."""
    if len(set(teachers)) > 1:
        raise ConfigError(
            f"the parts take different numbers of teachers: {sorted(set(teachers))}",
            "all parts learn from the teachers of the run",
            "combine distillers that take as many teachers as each other",
        )
    return teachers[0] if teachers else None
