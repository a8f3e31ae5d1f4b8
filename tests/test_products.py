"""The product of users and a whole catalogue, by either library."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recdistill import products
from recdistill.models.base import InnerProductScorer


def tables(users: int, items: int, dim: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(users + items)
    return torch.randn(users, dim, generator=draws), torch.randn(items, dim, generator=draws)


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that Intel did not make."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        pytest.skip("this torch was built without oneDNN")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize(("users", "items", "dim"), [(64, 5000, 64), (7, 333, 5), (1, 10, 3), (0, 10, 4), (5, 7, 0)])
def test_both_libraries_err_alike(users: int, items: int, dim: int) -> None:
    left, right = tables(users, items, dim)
    exact = left.double() @ right.double().T
    with torch.no_grad():
        found = products.inner_products(left, right)
    assert found.shape == (users, items)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6 * max(dim, 1))


@pytest.mark.usefixtures("onednn")
def test_threads_and_company_change_no_bit() -> None:
    left, right = tables(130, 4001, 24)
    before = torch.get_num_threads()
    with torch.no_grad():
        torch.set_num_threads(1)
        one = products.inner_products(left, right)
        torch.set_num_threads(2)
        two = products.inner_products(left, right)
        torch.set_num_threads(before)
    assert torch.equal(one, two)


@pytest.mark.usefixtures("onednn")
def test_a_gradient_still_flows() -> None:
    left, right = tables(6, 50, 4)
    right.requires_grad_()
    InnerProductScorer(left, right).all_scores(torch.arange(6)).sum().backward()  # type: ignore[no-untyped-call]  # torch's has no types
    assert right.grad is not None
    torch.testing.assert_close(right.grad, left.sum(0).expand(50, 4))


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_kept(dtype: torch.dtype) -> None:
    left, right = (table.to(dtype) for table in tables(6, 50, 4))
    with torch.no_grad():
        assert products.inner_products(left, right).dtype == dtype


@pytest.mark.parametrize(
    ("vendor", "machine", "faster"),
    [("AuthenticAMD", "x86_64", True), ("GenuineIntel", "x86_64", False), ("AuthenticAMD", "aarch64", False)],
)
def test_the_processor_alone_decides(monkeypatch: pytest.MonkeyPatch, vendor: str, machine: str, faster: bool) -> None:
    monkeypatch.setattr(products, "_maker", lambda: vendor)
    monkeypatch.setattr("platform.machine", lambda: machine)
    for library in ("mkl", "mkldnn"):
        monkeypatch.setattr(f"torch.backends.{library}.is_available", lambda: True)
    assert products.onednn_is_faster.__wrapped__() is faster
