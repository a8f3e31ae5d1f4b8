"""Readers of two files in formats of their publishers' own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recdistill.dataset.files import reading, unparsable
from recdistill.dataset.table import Ids, RawTable

INVOICE_COLUMNS = ["InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"]


def read_check_ins(path: Path) -> RawTable:
    """Read Foursquare's `dataset_TSMC2014_TKY.txt`: Latin-1, tab-separated, no header, eight columns.

    User, venue, category's id and name, latitude, longitude, minutes from UTC, and the time in UTC as in
    `Tue Apr 03 18:00:06 +0000 2012`. Every row is one check-in; users come back to a venue.

    Raises:
        DataError: the file is missing, empty or of another format.
    """
    with reading(path), _parsing(path):
        frame = _frame(path, header=None, sep="\t", names=range(8), usecols=[0, 1, 7], quoting=3)
        moment = pd.to_datetime(frame[7], format="%a %b %d %H:%M:%S %z %Y", errors="coerce", utc=True)
        bad = frame[0].isna() | frame[1].isna() | moment.isna()
        if bad.any():
            raise unparsable(path, f"line {int(bad.to_numpy().argmax()) + 1} is no check-in")
    return RawTable(
        Ids.of(frame[0].to_numpy(object)), Ids.of(frame[1].to_numpy(object)), None, _seconds(moment), format="check-ins"
    )


def read_invoices(path: Path) -> RawTable:
    """Read the invoice lines of UCI's Online Retail as CSV, and make one row of each (customer, product).

    Lines without a customer, cancellations (`C...`), lines without a positive quantity and price, and codes that name
    no product (other than five digits and letters) are left out; codes are in upper case. The rating is the number of
    distinct invoices with the product, the timestamp that of the first, in seconds of the shop's clock.

    Raises:
        DataError: the file is missing, empty or of another format.
    """
    with reading(path), _parsing(path):
        frame = _frame(path, usecols=lambda name: name in INVOICE_COLUMNS)
        if len(frame.columns) < len(INVOICE_COLUMNS):
            raise unparsable(path, f"it needs the columns {', '.join(INVOICE_COLUMNS)}")
        frame["StockCode"] = frame["StockCode"].str.strip().str.upper()
        frame["CustomerID"] = frame["CustomerID"].str.removesuffix(".0")
        sold = (pd.to_numeric(frame["Quantity"]) > 0) & (pd.to_numeric(frame["UnitPrice"]) > 0)
        product = frame["StockCode"].str.fullmatch(r"\d{5}[A-Z]{0,2}").fillna(False).astype(bool)
        kept = frame[frame["CustomerID"].notna() & ~frame["InvoiceNo"].str.startswith("C") & sold & product]
        if kept.empty:
            raise unparsable(path, "no line is a sale")
        moment = pd.to_datetime(kept["InvoiceDate"], format="%m/%d/%Y %H:%M")
        rows = kept.assign(time=_seconds(moment)).groupby(["CustomerID", "StockCode"], sort=True)
        pairs = rows.agg(rating=("InvoiceNo", "nunique"), time=("time", "min")).reset_index()
    return RawTable(
        Ids.of(pairs["CustomerID"].to_numpy(object)),
        Ids.of(pairs["StockCode"].to_numpy(object)),
        pairs["rating"].to_numpy(np.float64),
        pairs["time"].to_numpy(np.int64),
        format="invoices",
    )


@contextmanager
def _parsing(path: Path) -> Iterator[None]:
    """Turn what pandas says of text, numbers and times that it cannot read into a `DataError`."""
    try:
        yield
    except ValueError as error:
        raise unparsable(path, str(error).strip()) from error


def _frame(path: Path, **settings: Any) -> pd.DataFrame:
    """Columns of text; an empty field is missing."""
    frame: pd.DataFrame = pd.read_csv(
        path, dtype=str, encoding="latin-1", keep_default_na=False, na_values=[""], **settings
    )
    return frame


def _seconds(moment: pd.Series) -> np.ndarray:
    """[n] int64 seconds since 1970."""
    stamp: np.ndarray = moment.dt.tz_localize(None).to_numpy("datetime64[s]").astype(np.int64)
    return stamp
