"""The product of users and a whole catalogue, by either library."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recdistill import products
from recdistill.models.base import InnerProductScorer

ONEDNN = "mkldnn::_linear_pointwise"


def tables(users: int, items: int, dim: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(users + items)
    return torch.randn(users, dim, generator=draws), torch.randn(items, dim, generator=draws)


def operators(work: Callable[[], object]) -> set[str]:
    """The names of torch's operators that it calls."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        work()
    return {event.key for event in seen.key_averages()}


@pytest.fixture
def on_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        pytest.skip("this torch was built without oneDNN")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)


@pytest.mark.usefixtures("on_amd")
@pytest.mark.parametrize(
    ("users", "items", "dim"), [(64, 5000, 64), (9, 700, 300), (7, 333, 5), (1, 10, 3), (0, 10, 4), (5, 7, 0)]
)
def test_both_libraries_err_alike(users: int, items: int, dim: int) -> None:
    left, right = tables(users, items, dim)
    exact = left.double() @ right.double().T
    with torch.no_grad():
        found = products.inner_products(left, right)
    assert found.shape == (users, items)
    assert found.dtype == torch.float32
    errors = [(product.double() - exact).norm() for product in (found, left @ right.T)]
    assert errors[0] <= 2 * errors[1]


@pytest.mark.usefixtures("on_amd")
def test_the_number_of_threads_changes_no_bit() -> None:
    left, right = tables(130, 4001, 24)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.no_grad():
                found.append(products.inner_products(left, right))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.usefixtures("on_amd")
def test_scores_without_a_gradient_are_onednns_and_those_with_one_are_not() -> None:
    left, right = tables(6, 50, 4)
    scorer, user = InnerProductScorer(left, right.requires_grad_()), torch.arange(6)
    with torch.no_grad():
        assert ONEDNN in operators(lambda: scorer.all_scores(user))
    score: list[Tensor] = []
    assert ONEDNN not in operators(lambda: score.append(scorer.all_scores(user)))
    score[0].sum().backward()  # type: ignore[no-untyped-call]  # torch's has no types
    assert right.grad is not None
    torch.testing.assert_close(right.grad, left.sum(0).expand(50, 4))


@pytest.mark.usefixtures("on_amd")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_kept(dtype: torch.dtype) -> None:
    left, right = (table.to(dtype) for table in tables(6, 50, 4))
    with torch.no_grad():
        assert products.inner_products(left, right).dtype == dtype


@pytest.mark.parametrize(
    ("processor", "faster"),
    [
        ("vendor_id\t: AuthenticAMD", True),
        ("AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD", True),
        ("vendor_id\t: HygonGenuine", True),
        ("vendor_id\t: GenuineIntel", False),
        ("arm", False),
        ("amd64", False),
        ("", False),
    ],
)
def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch, processor: str, faster: bool) -> None:
    monkeypatch.setattr(products, "_processor", lambda: processor)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", object(), raising=False)
    for library in ("mkl", "mkldnn"):
        monkeypatch.setattr(f"torch.backends.{library}.is_available", lambda: True)
    assert products.onednn_is_faster.__wrapped__() is faster


@pytest.mark.parametrize("library", ["mkl", "mkldnn"])
def test_a_torch_without_one_of_them_has_no_choice(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setattr(products, "_processor", lambda: "vendor_id : AuthenticAMD")
    monkeypatch.setattr(f"torch.backends.{library}.is_available", lambda: False)
    assert not products.onednn_is_faster.__wrapped__()
