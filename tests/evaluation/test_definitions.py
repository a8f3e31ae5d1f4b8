from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.evaluation.accuracy import METRICS
from recdistill.evaluation.catalogue import KINDS, TAILS
from recdistill.evaluation.definitions import DEFINITIONS, NAMES
from recdistill.evaluation.profiles import PROFILES

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_names_are_of_metrics_and_each_has_its_definition() -> None:
    assert set(METRICS) < set(NAMES) < set(DEFINITIONS)
    assert not {"ranking", "average", "item_groups", "user_groups", "group_recall", "gap_closed"} & set(NAMES)
    assert all(text for parts in DEFINITIONS.values() for text in parts.values())


@pytest.mark.skipif(not PAGE.is_file(), reason="needs the source tree")
def test_the_page_of_metrics_has_every_name_group_and_profile() -> None:
    text = PAGE.read_text(encoding="utf-8")
    keys = [name if name in ("pru", "pri") else f"{name}@k" for name in NAMES]
    groups = [f"/items={name}" for name in TAILS] + [f"/users={name}" for name in KINDS]
    missing = [word for word in (*keys, *groups, *PROFILES, "gap_closed") if f"`{word}" not in text]
    assert not missing
