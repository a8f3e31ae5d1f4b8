from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recdistill.dataset.catalog import File, Synthetic
from recdistill.dataset.columns import Columns
from recdistill.dataset.filters import Filter
from recdistill.dataset.named import Named
from recdistill.dataset.splits import Ratio
from recdistill.dataset.table import RawTable, contiguous, table_hash
from recdistill.errors import SettingsError

COMMON: dict[str, Any] = {"filter": Filter(), "split": Ratio()}


def synthetic(**settings: Any) -> Synthetic:
    return Synthetic(**({"n_users": 80, "n_items": 50, "n_interactions": 1200} | settings), **COMMON)


def read(source: Any, folder: Path, data: Path | None = None) -> RawTable:
    return source.table(data or folder / "data", folder / "downloads", lambda line: None)


def ids(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


def test_a_table_hash_does_not_depend_on_rows_order_or_repeats() -> None:
    one = RawTable.of(ids("u", "v", "u"), ids("a", "b", "b"), timestamp=np.array([3, 2, 1]))
    other = RawTable.of(ids("u", "u", "v", "u"), ids("b", "a", "b", "b"), timestamp=np.array([1, 3, 2, 9]))
    assert table_hash(one) == table_hash(other)


@pytest.mark.parametrize(
    "other",
    [
        RawTable.of(ids("u", "v"), ids("a", "a"), timestamp=np.array([3, 2])),
        RawTable.of(ids("u", "w"), ids("a", "b"), timestamp=np.array([3, 2])),
        RawTable.of(ids("u", "v"), ids("a", "b"), timestamp=np.array([3, 4])),
        RawTable.of(ids("u", "v"), ids("a", "b")),
    ],
)
def test_a_table_hash_changes_with_pairs_ids_and_times(other: RawTable) -> None:
    assert table_hash(RawTable.of(ids("u", "v"), ids("a", "b"), timestamp=np.array([3, 2]))) != table_hash(other)


def test_a_file_is_named_after_itself_and_read_with_its_columns(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("who,what\na,x\nb,y\n")
    source = File(path=str(tmp_path / "shop.csv"), columns=Columns(user="who", item="what"), **COMMON)
    assert source.name == "shop"
    assert read(source, tmp_path).item.text().tolist() == ["x", "y"]


def test_a_files_signature_changes_with_size_and_columns_and_is_none_without_the_file(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"

    def signature(user: str | None = None) -> Any:
        return File(path=str(path), columns=Columns(user=user), **COMMON).signature(tmp_path, tmp_path)

    assert signature() is None
    path.write_text("user,item\na,x\n")
    before = signature()
    assert before == signature() != signature("item")
    path.write_text("user,item\na,x\nb,x\n")
    assert signature() != before


def test_two_kinds_of_source_on_one_path_have_two_signatures(tmp_path: Path) -> None:
    path = tmp_path / "u.inter"
    path.write_text("user\titem\n1\t2\n")
    kinds = (
        Named(name="ml-1m", path=str(path), **COMMON),
        Named(name="ml-20m", path=str(path), **COMMON),
        File(name="c", path=str(path), **COMMON),
    )
    assert len({str(source.signature(tmp_path, tmp_path)) for source in kinds}) == 3


def test_one_column_for_users_and_items_is_refused() -> None:
    with pytest.raises(SettingsError, match="item='id'"):
        Columns(user="id", item="id")


def test_synthetic_data_have_the_stated_size_and_enough_items_per_user(tmp_path: Path) -> None:
    pairs = contiguous(read(synthetic(n_interactions=800), tmp_path))
    assert len(pairs.user) == pytest.approx(800, rel=0.1)
    assert len(pairs.user_ids) == 80
    assert np.bincount(pairs.user).min() >= 5


def test_synthetic_data_are_made_by_their_settings(tmp_path: Path) -> None:
    assert table_hash(read(synthetic(), tmp_path)) == table_hash(read(synthetic(), tmp_path))
    assert table_hash(read(synthetic(), tmp_path)) != table_hash(read(synthetic(seed=1), tmp_path))
    assert synthetic().signature(tmp_path, tmp_path) != synthetic(seed=1).signature(tmp_path, tmp_path)


def test_the_planted_popularity_bias_makes_some_items_popular(tmp_path: Path) -> None:
    def share_of_the_top_fifth(popularity: float) -> float:
        count = np.bincount(contiguous(read(synthetic(popularity=popularity), tmp_path)).item, minlength=50)
        return float(np.sort(count)[::-1][:10].sum() / count.sum())

    assert share_of_the_top_fifth(3.0) > share_of_the_top_fifth(0.0) + 0.15


@pytest.mark.parametrize(
    ("setting", "value"),
    [("n_users", 0), ("n_items", 0), ("n_interactions", 4001), ("rank", 0), ("taste", -1.0), ("popularity", -0.1)],
)
def test_a_setting_of_synthetic_data_out_of_range_is_named(setting: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"{setting}={value}"):
        synthetic(**{setting: value})
