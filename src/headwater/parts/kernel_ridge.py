"""Kernel ridge regression in closed form, on the features of a network that stays as it is.

Shapes: m samples to learn from, b to predict, f features, d outputs.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from headwater.parts.netpool import Student


def outer(
    net: Student,
    x: Float[Tensor, "m ..."],
    y: Float[Tensor, "m d"],
    real: Float[Tensor, "b ..."],
    truth: Float[Tensor, "b d"],
    regular: float,
) -> Float[Tensor, ""]:
    """The error of what ridge regression on the samples' features says of real ones. The network is as it is (evaluating,
    its weights constant)."""
    net.eval()
    still = {k: v.detach() for k, v in net.body.state_dict().items()}
    features = functional_call(net.body, still, (x,))
    with torch.no_grad():
        seen = functional_call(net.body, still, (real,))
    return F.mse_loss(ridge(features, y, seen, regular), truth)


def ridge(
    features: Float[Tensor, "m f"], y: Float[Tensor, "m d"], seen: Float[Tensor, "b f"], regular: float
) -> Float[Tensor, "b d"]:
    """Kernel ridge regression with a constant among the features; the ridge is a share of the kernel's trace, which is
    taken as given."""
    a, b = (F.pad(z.double(), (0, 1), value=1.0) for z in (features, seen))
    kernel = a @ a.T
    strength = regular * kernel.trace().detach()
    weights = torch.linalg.solve(kernel + strength * torch.eye(len(a), dtype=a.dtype, device=a.device), y.double())
    return (b @ a.T @ weights).to(y.dtype)
