"""`recdistill datasets`: lists, descriptions and downloads, over real files and a real server."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from misbehaving import Server, serving
from packed import zipped
from recdistill import cli
from recdistill.dataset.origins import ORIGINS

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the public data sets in ../shared/data")
RATINGS = b"".join(b"%d::%d::5::%d\n" % (user, item, 10 * user + item) for user in range(3) for item in range(4))


@pytest.fixture
def say(tmp_path, monkeypatch, capfd):
    """Run a command line in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capfd.readouterr()
        return (cli.main(["datasets", *words]), *capfd.readouterr())

    return run


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    """A real server that has ml-1m."""
    archive = zipped(**{"ml-1m__ratings.dat": RATINGS})
    with serving() as made:
        made.files["/ml-1m.zip"] = archive
        remote = replace(
            ORIGINS["ml-1m"].remotes[0], url=f"{made.address}/ml-1m.zip", md5=hashlib.md5(archive).hexdigest()
        )
        monkeypatch.setitem(ORIGINS, "ml-1m", replace(ORIGINS["ml-1m"], remotes=(remote,)))
        yield made


def table_of(out: str) -> dict[str, str]:
    return {line[:13].strip(): line for line in out.splitlines()}


def test_every_named_data_set_is_listed_with_size_licence_place_and_check(say):
    code, out, err = say("ls")
    assert (code, err) == (0, "")
    lines = table_of(out)
    assert set(ORIGINS) <= set(lines)
    for part in ("138,493", "26,744", "20,000,263", "research only", "to fetch", "md5"):
        assert part in lines["ml-20m"]
    assert "unverified" in lines["gowalla"]


def test_the_list_fits_a_terminal_of_80_columns(say):
    _, out, _ = say("ls")
    assert max(map(len, out.splitlines())) <= 80


def test_the_list_says_the_same_as_json(say):
    code, out, _ = say("ls", "--json")
    found = {entry["name"]: entry for entry in json.loads(out)}
    assert code == 0
    assert set(found) == set(ORIGINS)
    assert (found["ml-1m"]["check"], found["ml-1m"]["verified"], found["ml-1m"]["where"]) == ("md5", True, "to fetch")
    assert (found["yelp2018"]["check"], found["yelp2018"]["verified"]) == ("unverified", False)
    assert found["ml-1m"]["urls"] == ["https://files.grouplens.org/datasets/movielens/ml-1m.zip"]


@needs_shared
def test_copies_that_are_here_are_listed_as_here(say):
    found = {entry["name"]: entry for entry in json.loads(say("ls", "--json", f"paths.data={SHARED}")[1])}
    assert {name for name, entry in found.items() if entry["where"] == "here"} == {
        "ml-100k", "citeulike-a", "citeulike-t", "lastfm-hetrec", "online-retail"
    }  # fmt: skip
    assert found["citeulike-t"]["files"] == [str(SHARED / "citeulike-t" / "original" / "users.dat")]


def test_the_list_is_made_without_torch(tmp_path):
    code = "import sys; from recdistill.cli import main; main(['datasets', 'ls']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_data_set_is_fetched_into_the_cache_and_then_listed_as_fetched(say, server):
    code, out, err = say("fetch", "ml-1m")
    assert code == 0
    assert "ml-1m: 3 users, 4 items, 12 interactions" in out
    assert "research use, no redistribution" in err
    assert Path("outputs/cache/downloads/ml-1m/ratings.dat").read_bytes() == RATINGS
    assert "fetched" in table_of(say("ls")[1])["ml-1m"]
    code, out, _ = say("fetch", "ml-1m", "--json")
    assert json.loads(out)["files"] == ["outputs/cache/downloads/ml-1m/ratings.dat"]
    assert len(server.asked) == 1


def test_fetching_what_the_server_does_not_have_is_an_error_of_three_lines(say, server):
    server.files.clear()
    code, out, err = say("fetch", "ml-1m")
    assert (code, out) == (1, "")
    assert "HTTP error 404" in err
    assert "Fix: put ratings.dat into data/ml-1m" in err


def test_what_nobody_publishes_is_not_fetched(say):
    code, _, err = say("fetch", "synthetic")
    assert code == 2
    assert "synthetic is not fetched" in err


@needs_shared
def test_a_description_has_the_statistics_of_the_unfiltered_table(say):
    code, out, err = say("describe", "citeulike-t", "--json", f"paths.data={SHARED}")
    found = json.loads(out)
    assert code == 0
    assert (found["n_users"], found["n_items"], found["n_interactions"]) == (7_947, 25_584, 134_860)
    assert (found["format"], found["filtered"], found["n_rows"]) == ("users.dat", False, 134_860)
    assert round(found["density"], 6) == 0.000663
    assert (found["history"]["min"], found["history"]["median"]) == (3, 7)
    assert "order of their ids" in found["warnings"][0]
    assert "users.dat: read as CiteULike users.dat" in err


@needs_shared
def test_a_filter_that_is_asked_for_is_applied(say):
    found = json.loads(say("describe", "citeulike-t", "--json", f"paths.data={SHARED}", "dataset.filter.user_min=5")[1])
    assert (found["n_users"], found["n_items"], found["n_interactions"]) == (5_219, 25_181, 125_580)
    assert found["filtered"] is True


@needs_shared
def test_a_description_is_a_table_of_80_columns(say):
    code, out, _ = say("describe", "ml-100k", f"paths.data={SHARED}")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for part in ("u.data", "943", "1,682", "100,000", "6.3047%", "0.629", "64.7%", "1997-09-20", "popularity groups"):
        assert part in out


def test_a_file_of_any_name_is_described(say, tmp_path):
    path = tmp_path / "my 'own', data=$1.csv"
    path.write_text("who,item,time\n" + "".join(f"u{n % 4},i{n % 7},{n}\n" for n in range(28)))
    code, out, _ = say("describe", str(path), "--json", "dataset.columns.user=who")
    found = json.loads(out)
    assert (code, found["n_users"], found["n_items"], found["format"]) == (0, 4, 7, "csv")
    assert "4 users have every item" in found["warnings"][0]


@needs_shared
def test_a_folder_with_a_split_of_ones_own_is_described(say):
    folder = SHARED / "lastfm-hetrec" / "original" / "lightgcn_adjacency"
    found = json.loads(say("describe", str(folder), "--json")[1])
    assert (found["n_users"], found["n_items"], found["n_interactions"]) == (1_885, 17_388, 91_779)
    assert found["format"] == "adjacency"


def test_what_is_neither_a_data_set_nor_a_file_is_refused_with_the_nearest_name(say):
    code, out, err = say("describe", "ml-100")
    assert (code, out) == (2, "")
    assert "ml-100 is neither a data set nor a file; did you mean ml-100k?" in err
    code, out, err = say("describe", "long" * 100)  # longer than any file's name
    assert (code, out) == (2, "")
    assert "is neither a data set nor a file" in err


@pytest.mark.parametrize("words", [("describe",), ("fetch", "dataset.filter.user_min=5"), ("fetch", "ml-1m", "ml-20m")])
def test_one_name_is_asked_for(say, words):
    code, out, err = say(*words)
    assert (code, out) == (2, "")
    assert f"datasets {words[0]} needs one name, not {0 if len(words) < 3 else 2}" in err


def test_a_flag_that_is_none_is_told_in_three_lines(say):
    code, _, err = say("ls", "--jsn")
    assert code == 2
    assert err.splitlines() == [
        "ConfigError: unrecognized arguments: --jsn",
        "Why: that is not how recdistill datasets is used",
        "Fix: recdistill datasets --help",
    ]


def test_a_data_set_of_ones_own_yaml_is_described(say, tmp_path):
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    (tmp_path / "mine" / "dataset" / "tiny.yaml").write_text(
        "defaults: [filter: default, split: ratio, _self_]\n"
        "_target_: recdistill.dataset.catalog.Synthetic\nname: tiny\nn_users: 20\nn_items: 30\nn_interactions: 300\n"
    )
    code, out, _ = say("describe", "--config-dir", "mine", "tiny", "--json", "dataset.n_users=25")
    found = json.loads(out)
    assert (code, found["name"], found["n_users"], found["format"]) == (0, "tiny", 25, None)


def test_a_setting_that_is_none_is_refused(say):
    code, _, err = say("describe", "synthetic", "dataset.filter.user_mni=5")
    assert code == 2
    assert "did you mean dataset.filter.user_min" in err


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_popularity_of_items_is_drawn(say, tmp_path, ending):
    pytest.importorskip("matplotlib")
    code, _, err = say("describe", "synthetic", "--plot", f"plots/a.{ending}")
    assert code == 0
    assert f"plots/a.{ending}" in err
    content = (tmp_path / "plots" / f"a.{ending}").read_bytes()
    assert content.startswith(b"\x89PNG" if ending == "png" else b"<?xml")
    if ending == "svg":
        assert b"</svg>" in content


def test_a_plot_without_matplotlib_is_an_error_before_anything_is_read(say, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = say("describe", "synthetic", "--plot", "a.svg")
    assert code == 2
    assert "matplotlib, which is not installed" in err


def test_a_plot_of_another_ending_is_refused(say):
    pytest.importorskip("matplotlib")
    code, _, err = say("describe", "synthetic", "--plot", "a.xyz")
    assert code == 2
    assert "use .svg, .png or .pdf" in err
