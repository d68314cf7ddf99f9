"""A method of your own: a denoising autoencoder in twenty lines, on any modality, with the engine's promises for free.

python examples/your_own_method.py [--steps 300] [--out runs/denoise]
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import headwater as hw
from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Method
from headwater.data.loader import Loader
from headwater.engine.fit import FitConfig, fit
from headwater.parts.architectures import named
from headwater.parts.encoders import TokenEncoder


class Denoise(Method):
    """Add noise, encode, and let one linear layer say what each patch was."""

    tokens = True

    def __init__(self, encoder: TokenEncoder, noise: float) -> None:
        super().__init__()
        self.encoder, self.noise = encoder, noise
        self.to_patch = nn.Linear(encoder.dim, encoder.tokenizer.patch_dim)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = batch.x[self.encoder.modality]
        assert isinstance(x, torch.Tensor)
        noisy = x + self.noise * step.rng.randn(*x.shape)  # randomness comes from the step, and nowhere else
        guess = self.to_patch(self.encoder(noisy).tokens)
        return Loss((guess - self.encoder.tokenizer.patches(x)).square().mean())


parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--out", default="runs/denoise")
given = parser.parse_args()

data = hw.open("digits")
torch.manual_seed(0)
encoder = named("vit-micro", "image", data.spec["image"]).build()
assert isinstance(encoder, TokenEncoder)
config = FitConfig(steps=given.steps, batch_size=128)
outcome = fit(Denoise(encoder, noise=0.5), Loader(data, 128), config, out=Path(given.out))
first, last = outcome.history[0]["loss"], outcome.history[-1]["loss"]
print(
    f"The loss went from {first:.3f} to {last:.3f}. Killed and called again with resume=True, it ends with the same bits."
)
