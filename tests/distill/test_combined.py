from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from contracts import toys
from contracts.ranking import RankingContract
from plugin.together import Together
from recdistill.distill.base import Distiller
from recdistill.distill.ce_kd import CEKD
from recdistill.distill.combined import Combined
from recdistill.distill.ir_rrd import IRRRD
from recdistill.distill.none import NoDistillation
from recdistill.distill.rd import RD
from recdistill.distill.rrd import RRD
from recdistill.distill.unkd import UnKD
from recdistill.errors import ConfigError
from recdistill.runtime import generator


def parts(**more: Distiller) -> dict[str, Distiller]:
    return {"list": RRD(interesting=4, depth=8), "soft": CEKD(items=5, guide="teacher")} | more


class TestCombined(RankingContract):
    refused: ClassVar[list[dict[str, Any]]] = [{"parts": {}}]

    def make(self, **settings: Any) -> Combined:
        pairs = UnKD(groups=3, pairs=8, mu=3.0, depth=6)
        return Combined(**({"parts": parts(pairs=pairs)} | settings))


def test_the_terms_are_those_of_the_parts_under_their_names() -> None:
    student, knowledge, batch = toys.model(seed=7), toys.knowledge(), toys.batch()
    alone, both = parts(), Combined(parts=parts())
    expected = {}
    for name, part in alone.items():
        part.prepare(knowledge, toys.interactions(), student, generator(0, "distiller"))
        part.on_epoch_start(0, student, generator(0, "distiller", 1))
        expected |= {f"{name}.{term}": value for term, value in part(student.scorer(), batch).items()}
    both.prepare(knowledge, toys.interactions(), student, generator(0, "distiller"))
    both.on_epoch_start(0, student, generator(0, "distiller", 1))
    found = both(student.scorer(), batch)
    assert list(found) == list(expected) == ["list.rrd", "soft.ce_kd"]
    assert all(value.equal(expected[name]) for name, value in found.items())


def test_a_part_of_weight_zero_is_left_out() -> None:
    student = toys.model()
    both = Combined(parts=parts(list=RRD(weight=0.0, interesting=4, depth=8)))
    both.prepare(toys.knowledge(), toys.interactions(), student, generator(0, "distiller"))
    both.on_epoch_start(0, student, generator(0, "distiller", 1))
    assert list(both(student.scorer(), toys.batch())) == ["soft.ce_kd"]


def test_it_needs_what_any_part_needs() -> None:
    made = Combined(
        parts={"a": RRD(depth=150), "b": CEKD(guide="teacher"), "c": IRRRD(depth=60, user_depth=70), "d": UnKD(depth=9)}
    )
    assert made.requires == {"ranking", "scores", "vectors"}
    assert (made.depth, made.user_depth, made.teachers) == (150, 70, 1)
    assert made.group_lists == UnKD(depth=9).group_lists
    assert not made.replaces_base_loss
    assert Combined(parts={"a": NoDistillation()}).teachers is None
    assert Combined(parts={"a": RRD(), "b": RD(reference_quirks=True)}).replaces_base_loss


def test_group_lists_are_kept_as_deep_as_the_deepest_part_wants() -> None:
    made = Combined(parts={"a": UnKD(depth=9), "b": UnKD(depth=70)})
    assert made.group_lists == UnKD(depth=70).group_lists


def test_parts_that_ask_for_different_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match="different popularity groups: 4 by quantile; 3 by quantile"):
        Combined(parts={"a": UnKD(), "b": UnKD(groups=3)})


def test_parts_with_different_numbers_of_teachers_are_refused() -> None:
    class Two(NoDistillation):
        teachers = 2

    with pytest.raises(ConfigError, match="different numbers of teachers"):
        Combined(parts={"a": RRD(), "b": Two()})


def test_the_numbers_and_models_of_parts_keep_their_names() -> None:
    student = toys.model()
    made = Combined(parts={"pairs": UnKD(groups=3, pairs=8, depth=6), "both": Together()})
    made.prepare(toys.knowledge(request=made.group_lists), toys.interactions(), student, generator(0, "distiller"))
    assert set(made.to_record()) == {"pairs.skipped_cells"}
    assert list(made.trained_models(student)) == ["student", "both.teacher"]
    assert any(parameter.shape == torch.Size([toys.N_ITEMS, 4]) for parameter in made.parameters())
