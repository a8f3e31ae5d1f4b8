"""The config tree: every YAML binds to its class, each fact stands once, and everything trains for one epoch."""

import dataclasses
import importlib
import inspect

import hydra
import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from recdistill import build, cli, config
from recdistill.commands.conf import GROUPS, conf_folder, first_comment, members
from recdistill.models.base import Recommender

CONF = conf_folder()
FILES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
CHOICES = [(group, name) for group in GROUPS for name in members(group, (CONF,))]
NEEDED = {("dataset", "file"): ["dataset.path=x.csv"], ("teacher", "mostpop"): ["distill=none"]}
ROLES = ("teacher", "student")


def composed(*overrides):
    import recdistill.commands.train  # noqa: F401  # registers the resolvers of folder names

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def read(name):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def constructor(target):
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_passes_the_check(group, name, tmp_path):
    if (group, name) == ("teacher", "stored"):
        pytest.skip("needs a finished run; tests/test_pipeline.py has one")
    words = {
        "model": [f"+model@student={name}"],
        "sweep": [],  # a sweep's file holds settings of Hydra's sweeper
    }.get(group, [f"{group}={name}", *NEEDED.get((group, name), [])])
    if group == "model" and not issubclass(constructor(read(f"model/{name}")["_target_"]), Recommender):
        pytest.fail("a model is a Recommender")
    if group == "model" and name not in members("student", (CONF,)):
        return  # reached by its teacher's file
    if group == "model":
        words = [f"student={name}"]
    build.check(composed(*words, f"paths.outputs={tmp_path}"))


@pytest.mark.parametrize("name", FILES)
def test_every_file_starts_with_a_comment_that_says_what_it_is_for(name):
    assert len(first_comment(CONF / f"{name}.yaml")) > 15


@pytest.mark.parametrize("name", FILES)
def test_every_file_ends_with_a_line_break_and_has_no_tabs(name):
    text = (CONF / f"{name}.yaml").read_text()
    assert text.endswith("\n")
    assert "\t" not in text


def nodes(node, path):
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, inner in node.items():
            yield from nodes(inner, f"{path}.{key}")


COMPONENTS = [
    (path, node)
    for name in FILES
    if not name.startswith("hydra/") and "defaults" not in (read(name) or {})  # those say only what they add
    for path, node in nodes(read(name), name)
]


@pytest.mark.parametrize(("path", "node"), COMPONENTS, ids=[path for path, _ in COMPONENTS])
def test_keys_are_the_constructors_keywords_in_the_same_order_with_its_defaults(path, node):
    cls = constructor(node["_target_"])
    parameters = {} if cls.__init__ is torch.nn.Module.__init__ else inspect.signature(cls).parameters
    assert all(one.kind is one.KEYWORD_ONLY for one in parameters.values()), "settings are given by name"
    pulled_in = {str(next(iter(entry))) for entry in node.get("defaults", []) if isinstance(entry, dict)}
    keys = [key for key in node if key not in ("_target_", "defaults")]
    assert [key for key in keys if key not in pulled_in] == [key for key in parameters if key not in pulled_in]
    for key in keys:
        default = parameters[key].default
        if default is not inspect.Parameter.empty and not isinstance(node[key], dict) and key != "name":
            assert node[key] == default, key


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("trainer/default", config.TrainerConfig),
        ("soft_labels/default", config.SoftLabelsConfig),
        ("evaluation/default", config.EvaluationConfig),
    ],
)
def test_a_sections_file_holds_the_defaults_of_its_dataclass_in_the_same_order(name, schema):
    assert list(read(name).items()) == list(dataclasses.asdict(schema()).items())


def test_the_roots_values_are_the_defaults_of_its_dataclass():
    root, default = read("config"), dataclasses.asdict(config.RunConfig())
    for key in ("seed", "device", "threads", "plugins", "paths"):
        assert root[key] == default[key]
    assert root["scratch"]["enabled"] == default["scratch"]["enabled"]


def test_the_root_has_exactly_the_keys_of_its_dataclass():
    assert set(composed()) == {field.name for field in dataclasses.fields(config.RunConfig)}


def test_bare_train_is_what_the_documentation_says():
    plain = OmegaConf.to_container(composed())
    assert plain["dataset"]["name"] == "ml-100k"
    assert (plain["teacher"]["_target_"], plain["teacher"]["dim"]) == ("recdistill.models.mf.MF", 64)
    assert (plain["student"]["_target_"], plain["student"]["dim"]) == ("recdistill.models.mf.MF", 8)
    assert plain["distill"]["_target_"] == "recdistill.distill.rrd.RRD"
    assert plain["soft_labels"]["depth"] == 200
    assert plain["trainer"] == plain["scratch"]["trainer"]
    assert plain["teacher"]["trainer"] == plain["trainer"] | {"learning_rate": 0.003}


def test_role_files_say_only_what_the_role_adds():
    for role in ROLES:
        for name in members(role, (CONF,)):
            node = read(f"{role}/{name}")
            if "defaults" in node:
                assert set(node) <= {"defaults", "dim", "seed", "checkpoints", "members"}, f"{role}/{name}"


def test_every_teacher_trains_every_distiller_for_an_epoch(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    distillers = ",".join(members("distill", (CONF,)))
    teachers = [name for name in members("teacher", (CONF,)) if name not in ("stored", "mostpop")]
    words = ["debug=smoke", "device=cpu", "dataset.n_users=40", "dataset.n_interactions=600"]
    code = cli.main(["train", "-m", f"distill={distillers}", f"teacher={','.join(teachers)}", *words])
    out, err = capfd.readouterr()
    assert code == 0, err
    assert out.count(" valid/ndcg@20=") == len(teachers) * (distillers.count(",") + 1)
    assert cli.main(["train", "teacher=mostpop", "distill=rrd", *words]) == 0
