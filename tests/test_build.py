"""The check before a run: what a plan holds, and what is refused in it."""

from __future__ import annotations

import json
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from recdistill import build
from recdistill.commands.conf import conf_folder
from recdistill.errors import CacheError, RecDistillError


def composed(*words: str) -> DictConfig:
    import recdistill.commands.train  # noqa: F401  # registers the resolvers of folder names

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return hydra.compose("config", list(words))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run whose student can be a teacher."""
    model = {"_target_": "recdistill.models.mf.MF", "dim": 4}
    (tmp_path / "results.json").write_text(json.dumps({"models": {"student": {"key": "k"}}}))
    (tmp_path / "model.json").write_text(json.dumps({"model": model}))
    return tmp_path


def test_models_are_selected_by_the_largest_cutoff_and_their_keys_say_so() -> None:
    one, other = (build.check(composed(f"evaluation.cutoffs={cutoffs}")) for cutoffs in ("[5,10]", "[5,20]"))
    assert [recipe.select for recipe in (one.teachers["teacher"], one.student, one.scratch)] == ["ndcg@10"] * 3
    assert one.scratch.key("data") != other.scratch.key("data")
    assert one.teachers["teacher"].key("data") != other.teachers["teacher"].key("data")


def test_cutoffs_that_do_not_select_change_no_key() -> None:
    one, other = (build.check(composed(f"evaluation.cutoffs={cutoffs}")) for cutoffs in ("[5,20]", "[10,20]"))
    assert one.scratch.key("data") == other.scratch.key("data")


def test_a_stored_model_cannot_be_the_student(run: Path) -> None:
    words = ["student=mf", "student._target_=recdistill.models.stored.Stored"]
    words += [f"+student.run={run}", "+student.model=student"]
    with pytest.raises(RecDistillError, match="a stored model cannot be the student") as caught:
        build.check(composed(*words))
    assert "teacher=stored" in caught.value.fix


def test_one_column_cannot_hold_users_and_items() -> None:
    words = ["dataset=file", "dataset.path=x.csv", "dataset.columns.user=id", "dataset.columns.item=id"]
    with pytest.raises(RecDistillError, match=r"dataset\.columns\.item='id'") as caught:
        build.check(composed(*words))
    assert "another column than user" in caught.value.why


@pytest.mark.parametrize("content", ["{}", "[]", '{"mod'])
@pytest.mark.parametrize("name", ["model.json", "results.json"])
def test_a_stored_teacher_without_a_usable_description_is_refused(run: Path, name: str, content: str) -> None:
    (run / name).write_text(content)
    with pytest.raises(CacheError, match=r"model\.json|results\.json"):
        build.check(composed("teacher=stored", f"teacher.run={run}", "teacher.model=student"))


def test_a_model_trained_with_fast_products_has_another_key() -> None:
    strict, fast = (build.check(composed(f"matmul={name}")).teachers["teacher"] for name in ("strict", "fast"))
    assert strict.key("data") != fast.key("data")
    with pytest.raises(RecDistillError, match="matmul: 'bf16' is neither strict nor fast"):
        build.check(composed("matmul=bf16"))


def test_row_adam_is_refused_for_a_model_whose_steps_move_all_rows() -> None:
    words = ["teacher=lightgcn", "teacher.trainer.optimizer=row_adam", "trainer.optimizer=row_adam"]
    with pytest.raises(RecDistillError) as caught:
        build.check(composed(*words))
    assert caught.value.what.startswith("teacher.trainer.optimizer: row_adam moves the rows that a batch touches")
    assert "LightGCN" in caught.value.what
    assert caught.value.fix == "set teacher.trainer.optimizer=adam"
    assert build.check(composed("trainer.optimizer=row_adam")).student.trainer.optimizer == "row_adam"


def test_components_in_a_mapping_are_constructed_under_their_names() -> None:
    distiller = build.check(composed("distill=combined", "distill.parts.list.weight=0.7")).distiller
    assert {name: type(part).__name__ for name, part in distiller.members.items()} == {"list": "RRD", "strata": "UnKD"}
    assert distiller.members["list"].weight == 0.7


def test_a_part_can_be_another_choice_or_one_more() -> None:
    words = ["distill=combined", "distill@distill.parts.list=ce_kd", "+distill@distill.parts.more=rd"]
    distiller = build.check(composed(*words)).distiller
    assert [type(part).__name__ for part in distiller.members.values()] == ["CEKD", "UnKD", "RD"]


def test_what_is_wrong_in_components_of_a_mapping_is_reported_together_under_their_paths() -> None:
    words = ["distill=combined", "distill.parts.list.weight=-1", "+distill.parts.strata.grups=3"]
    with pytest.raises(RecDistillError) as caught:
        build.check(composed(*words))
    told = str(caught.value)
    assert "distill.parts.list.weight=-1" in told
    assert "distill.parts.strata.grups" in told
    with pytest.raises(RecDistillError, match="not a Distiller"):
        build.check(composed("distill=combined", "distill.parts.list={_target_:recdistill.models.mf.MF}"))
