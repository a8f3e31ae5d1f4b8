"""On a device the product gives what the CPU gives, mixes no places and waits in no step: on a pretend accelerator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import shelf

PROGRAM = Path(__file__).parent / "contracts" / "accelerator.py"
MODELS = shelf.models()
TRAINED = [name for name, make in MODELS.items() if "live" in make().provides]
DISTILLERS = [name for name in shelf.distillers() if name != "none"]


@pytest.fixture(scope="module")
def outcome() -> dict[str, str]:
    """Case to error."""
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    if not found:
        pytest.skip("this torch has no Python accelerator hook")
    return found


@pytest.mark.parametrize("model", TRAINED)
def test_a_model_is_trained_alone(model: str, outcome: dict[str, str]) -> None:
    assert outcome[f"train/{model}/none"] == ""


@pytest.mark.parametrize("distiller", DISTILLERS)
def test_a_graph_model_is_trained_under_a_distiller(distiller: str, outcome: dict[str, str]) -> None:
    assert outcome[f"train/lightgcn-softmax/{distiller}"] == ""


@pytest.mark.parametrize("distiller", ["none", *DISTILLERS])
def test_row_adam_trains_under_a_distiller(distiller: str, outcome: dict[str, str]) -> None:
    assert outcome[f"train/by rows/{distiller}"] == ""


@pytest.mark.parametrize("distiller", ["none", *DISTILLERS])
def test_a_training_under_a_distiller_is_interrupted_and_continued(distiller: str, outcome: dict[str, str]) -> None:
    assert outcome[f"resume/{distiller}"] == ""


@pytest.mark.parametrize("optimizer", ["adam", "row_adam"])
@pytest.mark.parametrize("places", ["device to cpu", "cpu to device"])
def test_an_interrupted_training_is_continued_elsewhere(places: str, optimizer: str, outcome: dict[str, str]) -> None:
    assert outcome[f"move/{optimizer}/{places}"] == ""


@pytest.mark.parametrize("model", MODELS)
def test_soft_labels_are_extracted(model: str, outcome: dict[str, str]) -> None:
    assert outcome[f"extract/{model}"] == ""


@pytest.mark.parametrize("model", MODELS)
def test_users_are_ranked_in_chunks(model: str, outcome: dict[str, str]) -> None:
    assert outcome[f"rank/{model}"] == ""


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_evaluated(model: str, outcome: dict[str, str]) -> None:
    assert outcome[f"evaluate/{model}"] == ""


@pytest.mark.parametrize("distiller", ["rrd", "unkd"])
def test_a_whole_run_gives_the_same_metrics(distiller: str, outcome: dict[str, str]) -> None:
    assert outcome[f"run/{distiller}"] == ""


@pytest.mark.parametrize(
    ("control", "error"),
    [
        ("control-sync", "Waits: aten._local_scalar_dense"),
        ("control-shape", "Waits: aten._unique2"),
        ("control-mask", "Waits: aten.index"),
        ("control-upload", "Waits: aten._to_copy"),
        ("control-copy", "Waits: aten._to_copy"),
        ("control-mix", "Mixed: aten.add"),
        ("control-index", "Mixed: aten.index"),
        ("control-draw", "Mixed: aten.rand"),
    ],
)
def test_the_pretence_finds_what_it_should(control: str, error: str, outcome: dict[str, str]) -> None:
    assert error in outcome[control]
