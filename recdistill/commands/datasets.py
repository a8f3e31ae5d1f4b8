"""`recdistill datasets`: which data sets there are by name, what a table looks like, and fetching."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, open_dict

from recdistill.commands import overrides
from recdistill.commands.conf import conf_folder, members
from recdistill.commands.parser import Parser
from recdistill.errors import ConfigError, nearest

if TYPE_CHECKING:
    import numpy as np

    from recdistill.dataset.catalog import Source
    from recdistill.dataset.describe import Description, Spread

HELP = """ls: data sets by name, their licences, which are here
describe NAME|PATH: statistics and warnings, unfiltered
  unless dataset.filter.KEY=VALUE says otherwise
fetch NAME: download one now and check it"""


def datasets(words: Sequence[str]) -> int:
    """List, describe or fetch data sets.

    Raises:
        RecDistillError: there is no such data set, or it cannot be read or fetched.
    """
    parser = Parser(
        "recdistill datasets",
        description="Data sets by name, and any file of your own.",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("action", choices=["ls", "describe", "fetch"], help=HELP)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="NAME KEY=VALUE",
        help="then settings, such as paths.data=FOLDER or dataset.format=csv",
    )
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of your own YAML laid over ours")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="describe: popularity of items, log-log (.svg, .png)")
    arguments = parser.parse_intermixed_args(list(words))
    named = [word for word in arguments.words if "=" not in word or _is_there(word)]
    settings = [word for word in arguments.words if word not in named]
    flags = ["--config-dir", arguments.config_dir] if arguments.config_dir else []
    hydra_words, _ = overrides.parse([*flags, *settings])
    if arguments.action == "ls":
        return _ls(_compose(hydra_words), as_json=arguments.json)
    if len(named) != 1:
        raise ConfigError(
            f"recdistill datasets {arguments.action} needs one name, not {len(named)}",
            "it is about one data set" + (" or file" if arguments.action == "describe" else ""),
            "recdistill datasets ls lists the names",
        )
    source, config = _source(named[0], hydra_words)
    if arguments.action == "fetch":
        return _fetch(source, config, as_json=arguments.json)
    return _describe(source, config, settings, as_json=arguments.json, plot=arguments.plot)


def _is_there(name: str) -> bool:
    from recdistill.dataset.files import is_file, is_folder

    return is_file(Path(name)) or is_folder(Path(name))


def _compose(arguments: argparse.Namespace) -> DictConfig:
    """The config of the words, every name in them checked."""
    overrides.check(arguments, full=False)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = overrides.compose("config", arguments.overrides)
    with open_dict(config):
        config.pop("hydra")
    return config


def _folders(config: DictConfig) -> tuple[Path, Path]:
    """Where one's own copies lie, and where fetched files lie."""
    return Path(config.paths.data), Path(config.paths.outputs) / "cache" / "downloads"


def _say(line: str) -> None:
    """One line to the user, beside what other programs read."""
    print(line, file=sys.stderr)


def _ls(config: DictConfig, *, as_json: bool) -> int:
    from recdistill.dataset.named import find, recorded
    from recdistill.dataset.origins import ORIGINS
    from recdistill.report.tables import print_table

    data, downloads = _folders(config)
    found = []
    for name, origin in ORIGINS.items():
        files = find(name, data, downloads)
        where = "to fetch" if files is None else "fetched" if downloads in files[0].parents else "here"
        found.append(
            {
                "name": name,
                "n_users": origin.n_users,
                "n_items": origin.n_items,
                "n_interactions": origin.n_interactions,
                "licence": origin.licence,
                "terms": origin.terms,
                "citation": origin.citation,
                "where": where,
                "files": [str(file) for file in files or ()],
                "check": origin.check,
                "verified": origin.check != "unverified",
                "recorded": recorded(downloads / name),
                "urls": [remote.url for remote in origin.remotes],
            }
        )
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    columns = ["name", "users", "items", "rows", "licence", "where", "check"]
    keys = ["name", "n_users", "n_items", "n_interactions", "licence", "where", "check"]
    print_table(f"named data sets (your copies: {data})", columns, [[one[key] for key in keys] for one in found])
    print("check: by the sha256 of the data, or by the md5 that the publisher states;")
    print("unverified: neither is known, and the sha256 is noted at the first fetch.")
    return 0


def _source(name: str, arguments: argparse.Namespace) -> tuple[Source, DictConfig]:
    """The source of a named data set, or of a file or folder."""
    known = members("dataset", (conf_folder(), *([Path(arguments.config_dir)] if arguments.config_dir else [])))
    if name in known:
        chosen = [f"dataset={name}"]
    elif _is_there(name):
        chosen = ["dataset=file"]
    else:
        raise ConfigError(
            f"{name} is neither a data set nor a file{nearest(name, known)}",
            f"the data sets are {', '.join(known)}",
            "recdistill datasets ls, or the path of a file or folder that is there",
        )
    arguments.overrides = [*chosen, *arguments.overrides]
    config = _compose(arguments)
    if name not in known:
        config.dataset.path = name  # not as an override: any name is a file's name, quotes and all
    from recdistill import build

    return build.check(config).source, config


def _fetch(source: Source, config: DictConfig, *, as_json: bool) -> int:
    from recdistill.dataset.named import Named, recorded

    name = source.name
    if not isinstance(source, Named):
        raise ConfigError(
            f"{name} is not fetched", "only data sets of others are", "recdistill datasets ls lists what can be fetched"
        )
    data, downloads = _folders(config)
    table = source.table(data, downloads, _say)
    files = [str(file) for file in source.files(data, downloads) or ()]
    about = {
        "name": name,
        "files": files,
        "n_users": len(table.user.names),
        "n_items": len(table.item.names),
        "n_rows": len(table),
        "check": source.origin.check,
        "recorded": recorded(downloads / name),
    }
    if as_json:
        print(json.dumps(about, indent=2))
    else:
        print(f"{name}: {about['n_users']:,} users, {about['n_items']:,} items, {len(table):,} interactions")
        print(f"check: {source.origin.check}; {', '.join(files)}")
    return 0


def _describe(source: Source, config: DictConfig, settings: Sequence[str], *, as_json: bool, plot: Path | None) -> int:
    import numpy as np

    from recdistill.dataset.describe import describe
    from recdistill.dataset.table import contiguous

    if plot is not None:
        _check_can_plot(plot)
    table = source.table(*_folders(config), say=_say)
    raw = contiguous(table)
    filtered = any(word.lstrip("+~").startswith(("dataset.filter", "dataset/filter")) for word in settings)
    kept = source.filter.apply(raw) if filtered else raw
    found = describe(table, raw, kept, groups=config.evaluation.groups)
    about = {"name": source.name, "format": table.format, "filtered": filtered, **asdict(found)}
    if as_json:
        print(json.dumps(about, indent=2))
    else:
        _print(source.name, table.format, found, filtered=filtered)
    if plot is not None:
        _plot(np.bincount(kept.item), source.name, plot)
        _say(f"popularity of items: {plot}")
    return 0


def _print(name: str, format: str | None, found: Description, *, filtered: bool) -> None:
    from recdistill.report.tables import print_table

    rows: list[list[Any]] = [
        ["format", format or "made by recdistill"],
        ["users", f"{found.n_users:,}"],
        ["items", f"{found.n_items:,}"],
        ["interactions", f"{found.n_interactions:,}"],
        ["rows", f"{found.n_rows:,}"],
        ["density", f"{found.density:.4%}"],
        ["Gini of item popularity", f"{found.gini:.3f}"],
        ["on the top 20 % of the items", f"{found.top20_share:.1%}"],
    ]
    if found.time is not None:
        rows += [["first, UTC", found.time[0]], ["last, UTC", found.time[1]]]
    print_table(name, ["statistic", "filtered" if filtered else "unfiltered"], rows)
    columns = ["distribution", "min", "5 %", "25 %", "median", "75 %", "95 %", "max", "mean"]
    print_table("", columns, [_row("items of a user", found.history), _row("users of an item", found.popularity)])
    rows = [
        [number, group.n_items, group.n_interactions, f"{group.least_popular:,} to {group.most_popular:,}"]
        for number, group in enumerate(found.groups)
    ]
    print_table("popularity groups of equal mass", ["group", "items", "interactions", "users of an item"], rows)
    for warning in found.warnings:
        print(f"warning: {warning}")


def _row(label: str, spread: Spread) -> list[str]:
    texts = (f"{v:,.0f}" if v >= 100 or v == int(v) else f"{v:,.1f}" for v in asdict(spread).values())
    return [label, *(f"{text:>6}" for text in texts)]


def _check_can_plot(path: Path) -> None:
    """Before a large table is read for nothing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "--plot needs matplotlib, which is not installed",
            "it is an optional dependency",
            "pip install matplotlib, or leave --plot out",
        ) from error
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise ConfigError(
            f"--plot {path} has an ending that is no picture's", "the ending tells the format", "use .svg, .png or .pdf"
        )


def _plot(popularity: np.ndarray, name: str, path: Path) -> None:
    """Users of an item against its popularity rank, both on log scales."""
    import numpy as np
    from matplotlib.figure import Figure

    from recdistill.store import atomic

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.add_subplot(
        xscale="log", yscale="log", xlabel="popularity rank of the item", ylabel="users of the item", title=name
    )
    axes.plot(np.arange(1, len(popularity) + 1), np.sort(popularity)[::-1], marker=".", markersize=3, linestyle="none")
    axes.grid(alpha=0.3)
    with atomic(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
