"""Which column is what: by the names that the field uses, or as the user says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from recdistill.errors import DataError, require

Say = Callable[[str], None]

KNOWN = {
    "user": ("user_id", "user", "userid", "uid", "query_id", "visitorid", "customer_id", "reviewerid"),
    "item": ("item_id", "item", "itemid", "iid", "movieid", "movie_id", "artistid", "artist_id", "business_id",
             "parent_asin", "asin", "product_id", "book_id"),
    "rating": ("rating", "score", "stars", "weight", "label"),
    "timestamp": ("timestamp", "time", "ts", "unixtime", "datetime"),
}  # fmt: skip
POSITIONS = ("user", "item", "rating", "timestamp")  # of a file without a header


class Columns:
    """Names of the columns of a file with a header; null: the common names are recognised in any case.

    Args:
        user: the column of user ids.
        item: the column of item ids.
        rating: the column of ratings; a file may have none.
        timestamp: the column of times, as numbers or as ISO 8601; a file may have none.
        split: the column that says which part a row belongs to: train, valid or test. Used only when named here.
    """

    def __init__(
        self,
        *,
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        timestamp: str | None = None,
        split: str | None = None,
    ) -> None:
        """Check that no column is named twice."""
        named: dict[str, str] = {}
        self.wanted: dict[str, str | None] = {}
        for role, name in (
            ("user", user), ("item", item), ("rating", rating), ("timestamp", timestamp), ("split", split)
        ):  # fmt: skip
            require(name is None or name not in named, role, name, f"another column than {named.get(str(name))}")
            if name is not None:
                named[name] = role
            self.wanted[role] = name


def find_columns(path: Path, header: Sequence[str], columns: Columns, *, extras: bool, say: Say) -> dict[str, int]:
    """Place of each role's column in a header; RecBole's `name:type` may be asked for either way.

    Raises:
        DataError: the user or the item column, or one that was named, is not there or there twice.
    """
    short = [name.strip().split(":")[0] for name in header]
    found: dict[str, int] = {}
    for role, wanted in columns.wanted.items():
        place = _place(header, short, role, wanted)
        if place is None and (wanted is not None or role in ("user", "item")):
            raise _missing(path, short, role, wanted)
        if place is not None and (extras or wanted is not None or role in ("user", "item")):
            found[role] = place
    if found["user"] == found["item"]:
        name = short[found["user"]]
        raise DataError(
            f"{path}: {name!r} would be both the user and the item column",
            "every user would have one item, itself",
            "name two columns: dataset.columns.user=NAME dataset.columns.item=NAME",
        )
    for role, place in found.items():
        if list(header).count(header[place]) > 1:
            raise DataError(
                f"{path} has {list(header).count(header[place])} columns {header[place]!r}",
                f"the {role} column is taken by name",
                f"rename all but one, or name another: dataset.columns.{role}=NAME",
            )
    if "split" not in found and "split" in (lower := [name.lower() for name in short]):
        say(
            f"{path.name} has a column {short[lower.index('split')]!r} that is not used; "
            "to take the split from it: dataset.columns.split=NAME"
        )
    return found


def is_header(fields: Sequence[str], columns: Columns) -> bool:
    """Whether a first row holds names: a known or wanted one, or one with RecBole's type."""
    known = {name for names in KNOWN.values() for name in names}
    wanted = {name for name in columns.wanted.values() if name is not None}
    bare = [field.strip() for field in fields]
    return any(
        field.lower() in known or field in wanted or field.split(":")[0] in wanted or is_typed(field) for field in bare
    )


def is_typed(field: str) -> bool:
    """Whether a field is a name with RecBole's type, such as `user_id:token`."""
    return field.strip().endswith((":token", ":float", ":token_seq", ":float_seq"))


def _place(header: Sequence[str], short: Sequence[str], role: str, wanted: str | None) -> int | None:
    if wanted is not None:
        for names in (short, [name.strip() for name in header]):
            if wanted in names:
                return names.index(wanted)
        return None
    lower = [name.lower() for name in short]
    return next((lower.index(name) for name in KNOWN.get(role, ()) if name in lower), None)


def _missing(path: Path, short: Sequence[str], role: str, wanted: str | None) -> DataError:
    known = f"; known without saying: {', '.join(KNOWN[role])}" if role in KNOWN else ""
    return DataError(
        f"{path} has no {role} column{'' if wanted is None else f' {wanted!r}'}; "
        f"it has {', '.join(repr(name[:40]) for name in short[:20])}",
        f"the {role} column is taken by name{known}",
        f"name it: dataset.columns.{role}=NAME; if the first line is already data, say what it is "
        "(dataset.format=pairs or triples) or add a header",
    )
