from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.dataset.publishers import read_check_ins, read_invoices
from recdistill.errors import DataError

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
CHECK_IN = "470\t{}\tc1\tCaf\xe9\t35.7\t139.7\t540\tTue Apr 03 18:00:{:02} +0000 2012\n"


def write(folder: Path, text: str) -> Path:
    (folder / "file").write_text(text, encoding="latin-1")
    return folder / "file"


def test_check_ins_have_users_venues_and_seconds_in_utc(tmp_path: Path) -> None:
    table = read_check_ins(
        write(tmp_path, CHECK_IN.format("4b", 6) + CHECK_IN.format("5a", 9) + CHECK_IN.format("4b", 9))
    )
    assert table.user.text().tolist() == ["470"] * 3
    assert table.item.text().tolist() == ["4b", "5a", "4b"]
    assert table.timestamp is not None
    assert table.timestamp.tolist() == [1333476006, 1333476009, 1333476009]
    assert table.format == "check-ins"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "470 4b\n",
        "<html>\n",
        CHECK_IN.format("4b", 6) + "470\t4b\n",
        CHECK_IN.format("4b", 6).replace("Apr", "Foo"),
    ],
)
def test_a_file_that_is_not_of_check_ins_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"is empty|cannot be parsed"):
        read_check_ins(write(tmp_path, text))


def test_invoices_become_one_row_per_customer_and_product(tmp_path: Path) -> None:
    lines = [
        "536365,85123A,A,6,12/1/2010 8:26,2.55,17850,United Kingdom",
        "536365,85123a,A,1,12/1/2010 8:26,2.55,17850,United Kingdom",  # the same invoice: counts once
        '536366,85123A,"A, B",2,11/30/2010 23:59,2.55,17850.0,United Kingdom',  # earlier
        "536367,22423,C,1,1/4/2011 10:00,1.00,13047,France",
    ]
    left_out = [
        "C536379,D,Discount,-1,12/1/2010 9:41,27.50,14527,United Kingdom",  # cancelled, and no product
        "C536380,22423,C,1,12/1/2010 9:41,1.00,17850,United Kingdom",
        "536381,22423,C,-1,12/1/2010 9:41,1.00,17850,United Kingdom",
        "536382,22423,C,1,12/1/2010 9:41,0.0,17850,United Kingdom",
        "536383,POST,Postage,1,12/1/2010 9:41,18.00,17850,France",
        "536384,22423,C,1,12/1/2010 9:41,1.00,,France",
        "536385,,C,1,12/1/2010 9:41,1.00,17850,France",
        "536386,22423ABC,C,1,12/1/2010 9:41,1.00,17850,France",
    ]
    table = read_invoices(write(tmp_path, HEADER + "\n".join(left_out + lines) + "\n"))
    assert table.rating is not None
    assert table.timestamp is not None
    rows = zip(table.user.text(), table.item.text(), table.rating.tolist(), table.timestamp.tolist(), strict=True)
    assert list(rows) == [("13047", "22423", 1.0, 1294135200), ("17850", "85123A", 2.0, 1291161540)]
    assert table.format == "invoices"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "user,item\n1,2\n",
        HEADER,
        HEADER + "536365,85123A,A,many,12/1/2010 8:26,2.55,17850,x\n",
        HEADER + "536365,85123A,A,6,yesterday,2.55,17850,x\n",
    ],
)
def test_a_file_that_is_not_of_invoices_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"is empty|cannot be parsed"):
        read_invoices(write(tmp_path, text))
