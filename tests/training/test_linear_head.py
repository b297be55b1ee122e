"""Tests of the closed forms of a linear head against scikit-learn and automatic differentiation."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge

from dd_bench.training.linear_head import head_gradient, one_hot, ridge_weights, unit_rows


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "d"), [(6, 20), (20, 6), (8, 8)])
def test_ridge_weights_are_those_of_scikit_learn(n, d):
    z, targets, strength = normal(n, d), normal(n, 3, seed=1), 0.03
    penalty = strength * float(z.square().sum(1).mean())
    expected = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky").fit(z.numpy(), targets.numpy())
    assert torch.allclose(
        ridge_weights(z, targets, strength), torch.from_numpy(expected.coef_).T, rtol=1e-9, atol=1e-12
    )


def test_ridge_weights_are_differentiable():
    z, targets = normal(4, 6).requires_grad_(), normal(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda z: ridge_weights(z, targets, 0.1), z)


def test_gradient_of_the_head_is_that_of_automatic_differentiation():
    z, y = normal(7, 5), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    weight, bias = normal(3, 5, seed=1).requires_grad_(), normal(3, seed=2).requires_grad_()
    loss = F.cross_entropy(F.linear(z, weight, bias), y)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [weight, bias])])
    assert torch.allclose(head_gradient(z, y, weight, bias), expected, rtol=0, atol=1e-15)


def test_derivative_of_the_gradient_is_the_second_derivative():
    """This is what the released code of LGM computes by a second backward pass."""
    z, y = normal(4, 5).requires_grad_(), torch.tensor([0, 1, 2, 0])
    weight, bias, direction = (
        normal(3, 5, seed=1).requires_grad_(),
        torch.zeros(3, dtype=torch.float64),
        normal(15, seed=3),
    )
    (twice,) = torch.autograd.grad(F.cross_entropy(F.linear(z, weight, bias), y), weight, create_graph=True)
    (expected,) = torch.autograd.grad(twice.flatten() @ direction, z)
    (actual,) = torch.autograd.grad(head_gradient(z, y, weight, bias)[:15] @ direction, z)
    assert torch.allclose(actual, expected, rtol=0, atol=1e-15)


def test_unit_rows_and_targets():
    assert torch.allclose(unit_rows(normal(4, 3)).norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert torch.equal(unit_rows(torch.zeros(2, 3)), torch.zeros(2, 3))
    assert one_hot(torch.tensor([1, 0]), 2, torch.float32).tolist() == [[0, 1], [1, 0]]
    soft = torch.tensor([[0.25, 0.75]])
    assert torch.equal(one_hot(soft, 2, torch.float32), soft)
