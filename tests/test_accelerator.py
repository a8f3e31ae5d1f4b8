"""No step of the product mixes devices or waits for one: shown on a pretend accelerator, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import shelf
from contracts.accelerator import DENSE_AND_SPARSE

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
def test_a_step_of_a_model_alone(model: str, outcome: dict[str, str]) -> None:
    assert outcome[f"step/{model}/none"] == ""


@pytest.mark.parametrize("distiller", DISTILLERS)
@pytest.mark.parametrize("model", ["mf-bpr", "lightgcn-softmax"])
def test_a_step_under_a_distiller(model: str, distiller: str, outcome: dict[str, str]) -> None:
    assert outcome[f"step/{model}/{distiller}"] == ""


@pytest.mark.parametrize("distiller", ["none", *DISTILLERS])
def test_a_step_of_row_adam_under_a_distiller(distiller: str, outcome: dict[str, str]) -> None:
    found = outcome[f"step/by rows/{distiller}"]
    if DENSE_AND_SPARSE in found:
        pytest.skip(DENSE_AND_SPARSE)
    assert found == ""


@pytest.mark.parametrize("model", MODELS)
def test_soft_labels_are_extracted(model: str, outcome: dict[str, str]) -> None:
    assert outcome[f"extract/{model}"] == ""


@pytest.mark.parametrize("model", MODELS)
def test_users_are_ranked_in_chunks(model: str, outcome: dict[str, str]) -> None:
    assert outcome[f"rank/{model}"] == ""


@pytest.mark.parametrize(
    ("control", "error"),
    [
        ("control-sync", "DataDependentOutputException"),
        ("control-mix", "FakeTensorDeviceMismatchError"),
        ("control-shape", "DynamicOutputShapeException"),
    ],
)
def test_the_pretence_finds_what_it_should(control: str, error: str, outcome: dict[str, str]) -> None:
    assert error in outcome[control]
