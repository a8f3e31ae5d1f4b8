"""`report.html`: the page of one run, from what its folder stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recdistill import __version__
from recdistill.report.html import duration, render, share, signed, size, value, write_page
from recdistill.report.plots import Look, looks
from recdistill.report.sections import Numbers, label, sections
from recdistill.report.stored import StoredRun, read_run
from recdistill.report.verdict import gap_closed, group_names, latency, teacher_of, unpopular_group, verdict

PAGE = "report.html"


@dataclass(frozen=True)
class ModelRow:
    """A row of the main table: role, what the model is, its cells, and whether it is the student's."""

    name: str
    kind: str
    look: Look
    cells: list[str]
    marked: bool


@dataclass(frozen=True)
class MainTable:
    """The main table; `primary` is the column that selects models."""

    lead: str
    columns: list[str]
    primary: str
    rows: list[ModelRow]


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run's folder, from its stored files alone.

    Returns:
        The page.

    Raises:
        ConfigError: the folder is no finished run.
        CacheError: a file cannot be read or written.
    """
    run = read_run(folder)
    write_page(folder / PAGE, page(run))
    return folder / PAGE


def page(run: StoredRun) -> str:
    """The page's HTML."""
    results = run.results
    return render(
        "report.html.j2",
        title=f"{_title(run)} - recdistill",
        about=_about(run),
        verdict=verdict(run),
        facts=_facts(run),
        main=_main_table(run),
        bought=_bought(run),
        metrics=_every_metric(run),
        sections=sections(run),
        provenance=_provenance(run),
        definitions=[(name, _definition(parts)) for name, parts in results["definitions"].items()],
        config=yaml.safe_dump(dict(results["config"]), sort_keys=False, allow_unicode=True),
        footer=f"Made by recdistill {__version__} from the files of {results['run']['dir']}.",
        labelled=label,
    )


def _title(run: StoredRun) -> str:
    return " · ".join(f"{name} {text}" for name, text in _about(run)[:4])


def _about(run: StoredRun) -> list[tuple[str, str]]:
    """What was run, for the head of the page."""
    models = run.models
    teachers = [name for name in models if name.partition(".")[0] == "teacher"]
    return [
        ("data", run.results["dataset"]["name"]),
        ("teacher", " + ".join(_kind(models[name]) for name in teachers) or "none"),
        ("student", _kind(models["student"])),
        ("distiller", run.results["distillation"]["name"]),
        ("seed", str(run.results["run"]["seed"])),
        ("finished", run.finished[:10]),
    ]


def _kind(model: Mapping[str, Any]) -> str:
    """What a model is, with its dimension."""
    return " ".join(str(part) for part in (model["kind"], model.get("dim")) if part is not None)


def _facts(run: StoredRun) -> list[tuple[str, str]]:
    """The numbers that a reader takes away, each with what it is."""
    facts = []
    if (gap := gap_closed(run)) is not None:
        facts.append((f"{gap:.0%}".replace("-", "\N{MINUS SIGN}"), f"of the gap in NDCG@{run.k} closed"))
    facts.append((value(run.metric("student", "ndcg")), f"NDCG@{run.k}{_others(run, 'ndcg')}"))
    student, teacher = run.models["student"], teacher_of(run)
    if teacher is not None and student["bytes"] and run.models[teacher]["bytes"]:
        part = student["bytes"] / run.models[teacher]["bytes"]
        facts.append((size(student["bytes"]), f"model size, {share(part)} of the teacher's"))
    if (mine := latency(run, "student")) is not None:
        facts.append((duration(mine), "median time to rank one user"))
    if (lift := run.metric("student", "poplift")) is not None:
        facts.append((signed(lift), f"popularity lift{_others(run, 'poplift')}"))
    if (name := unpopular_group(run)) is not None and run.metric("student", name) is not None:
        facts.append((value(run.metric("student", name)), f"recall of unpopular items{_others(run, name)}"))
    return facts


def _others(run: StoredRun, metric: str) -> str:
    """The references' values of a metric, in brackets."""
    text = signed if metric == "poplift" else value
    names = {"scratch": "scratch" if "scratch" in run.models else None, "teacher": teacher_of(run)}
    told = [f"{role} {text(run.metric(name, metric))}" for role, name in names.items() if name is not None]
    return f" ({', '.join(told)})" if told else ""


def _main_table(run: StoredRun) -> MainTable:
    look = looks(list(run.models))
    names = {f"NDCG@{run.k}": "ndcg", f"Recall@{run.k}": "recall"}
    times = {name: latency(run, name) for name in run.models}
    timed = any(one is not None for one in times.values())
    rows = []
    for name, model in run.models.items():
        cells = [value(run.metric(name, metric)) for metric in names.values()]
        cells += [signed(run.metric(name, "poplift"), ".1%"), f"{model['parameters']:,}", size(model["bytes"])]
        if timed:
            cells.append("-" if (one := times[name]) is None else duration(one))
        rows.append(
            ModelRow(label(name), "" if model["kind"] == name else _kind(model), look[name], cells, name == "student")
        )
    columns = ["model", *names, "popularity lift", "parameters", "size", *(["latency"] if timed else [])]
    where = "test part" if run.split == "test" else "validation part: test was not read"
    lead = f"All on the {where}. Models are selected by NDCG@{run.k} on the validation part."
    if "scratch" not in run.models:
        lead += " Scratch is missing: it was switched off (scratch.enabled=false)."
    return MainTable(lead, columns, next(iter(names)), rows)


def _bought(run: StoredRun) -> list[tuple[str, str]]:
    """What results.json tells of the distillation, for the largest cut-off."""
    told, k = run.results["distillation"], run.k
    rows = []
    if gaps := told.get("gap_closed"):
        gaps = {name.removeprefix(f"{run.split}/"): gap for name, gap in gaps.items() if name.endswith(f"@{k}")}
        text = ", ".join(f"{name} {share(gap)}" for name, gap in gaps.items() if gap is not None)
        rows.append(("gap closed", text or "undefined: the teacher does not lead scratch by two standard errors"))
    if f"users_better@{k}" in told:
        better, worse, equal = (told[f"users_{how}@{k}"] for how in ("better", "worse", "equal"))
        text = f"{better:,} better, {worse:,} worse, {equal:,} the same"
        rows.append((f"users' NDCG@{k} against scratch", text))
    for kind, names in _strata_names(run).items():
        parts = {one: told.get(f"gain_share@{k}/{kind}={one}") for one in names}
        if any(part is not None for part in parts.values()):
            text = ", ".join(f"{names[one]} {share(part)}" for one, part in parts.items())
            rows.append((f"gain in hits, by share of {'interactions' if kind == 'group' else 'items'}", text))
    if f"overlap@{k}" in told:
        rbo = told.get(f"rbo@{k}")
        text = f"{share(told[f'overlap@{k}'])} of the items" + (
            "" if rbo is None else f"; rank-biased overlap {rbo:.3f}"
        )
        rows.append((f"in common with the teacher's top {k}", text))
    return rows


def _strata_names(run: StoredRun) -> dict[str, dict[str, str]]:
    """What the strata of items are called, by kind."""
    groups, items = run.strata("recall", "group"), run.strata("recall", "items")
    return {
        "group": dict(zip(groups, group_names(len(groups)), strict=True)),
        "items": {one: one for one in items},
    }


def _every_metric(run: StoredRun) -> Numbers:
    names = list(dict.fromkeys(name for model in run.models.values() for name in model["metrics"]))
    rows = [[name, *(value(model["metrics"].get(name)) for model in run.models.values())] for name in names]
    return Numbers(["metric", *map(label, run.models)], rows)


def _definition(parts: Mapping[str, str]) -> str:
    return "; ".join(text if name == "formula" else f"{name}: {text}" for name, text in parts.items())


def _provenance(run: StoredRun) -> list[tuple[str, str]]:
    results = run.results
    data, about, config, versions = results["dataset"], results["run"], results["config"], results["versions"]
    marks = results["fingerprints"]
    return [
        ("command", " ".join(["recdistill train", *run.overrides])),
        ("finished", run.finished),
        ("data", f"{data['name']}: {data['n_users']:,} users, {data['n_items']:,} items, {data['n_train']:,} train, "
                 f"{data['n_valid']:,} valid, {data['n_test']:,} test interactions"),
        ("seeds", f"student and distiller {about['seed']}; teacher {_seed(config['teacher'])}; "
                  f"split {config['dataset'].get('split', {}).get('seed', '-')}"),
        ("device", f"{about['device']}, {about['dtype']}, {about['threads']} threads"),
        ("seconds", ", ".join(f"{stage} {seconds:,.1f}" for stage, seconds in about["seconds"].items())
                    + (f" (student from epoch {after + 1} on)" if (after := about.get("resumed_after_epoch")) else "")),
        ("peak memory", size(about.get("peak_bytes"))),
        ("recdistill", f"{versions['recdistill']}, commit {versions.get('commit') or '-'}"),
        ("versions", ", ".join(f"{name} {text}" for name, text in versions.items()
                               if name not in ("recdistill", "commit") and text)),
        ("fingerprint of the data", data["fingerprint"]),
        ("fingerprint of the config", marks["config"]),
        ("keys of the teachers", _keys(marks["teacher"])),
        ("keys of the soft labels", _keys(marks["soft_labels"])),
    ]  # fmt: skip


def _seed(teacher: Mapping[str, Any]) -> str:
    """The teacher's seed, or one for each of several."""
    members = teacher.get("members")
    if not members:
        return str(teacher.get("seed", "-"))
    return ", ".join(f"{name} {one.get('seed', '-')}" for name, one in members.items())


def _keys(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {key}" for name, key in found.items())
