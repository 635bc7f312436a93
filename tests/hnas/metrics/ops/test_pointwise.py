"""The elementwise functions that have a rule: torch must differentiate each of them twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hnas.metrics.ops import pointwise
from hnas.metrics.recorder import OPERATIONS, name_of, named

# In an order that does not depend on hashes, because all test processes must agree on it.
FUNCTIONS = sorted((f for f, known in OPERATIONS.items() if known.rule is pointwise._entrywise), key=name_of)


@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
def test_second_derivatives_match_finite_differences(function: Any) -> None:
    x = torch.linspace(0.11, 0.89, 7, dtype=torch.float64).requires_grad_()  # no kink, and all functions are defined

    def slope(at: torch.Tensor) -> torch.Tensor:
        (result,) = torch.autograd.grad(function(at).sum(), at, create_graph=True)
        return result

    step = 1e-5
    expected = (slope(x + step) - slope(x - step)) / (2 * step)
    second = torch.autograd.grad(slope(x).sum(), x)[0] if slope(x).requires_grad else torch.zeros_like(x)
    torch.testing.assert_close(second, expected.detach(), rtol=1e-6, atol=1e-8)


def test_a_function_that_torch_lacks_cannot_be_registered() -> None:
    with pytest.raises(AttributeError, match="have no tanhh"):
        named("tanh tanhh")
