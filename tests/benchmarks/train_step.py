"""The time of a training step, beside the same network written by hand in PyTorch.

Usage: python tests/benchmarks/train_step.py [--repeats 5] [--steps 200]

All train 784-400-20-400-784 with ReLU on MNIST in memory (uniform noise in its place where there is no MNIST),
with batches of 128 gathered at random and Adam at 1e-3. They take turns, and the figures are medians over the turns.
"""

import argparse
import statistics
import time

import pyro
import torch
import torch.nn.functional as F
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyro_vae import VAE, data, mlp
from pyro_vae.encoders import DiagonalNormal
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.priors import StandardNormal
from pyro_vae.training import Training

BATCH = 128


def images() -> torch.Tensor:
    try:
        return data.load("mnist", pixels="grey").train
    except FileNotFoundError:
        print("no MNIST here: uniform noise in its place")
        return torch.rand(55_000, 784)


class ByHand(nn.Module):
    """The article's network and loss in plain PyTorch."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

    def loss(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        kl = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
        return F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum") + kl


def by_hand(x, fused):
    model = ByHand()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)

    def run(steps):
        total = 0.0
        for indices in torch.randint(len(x), (steps, BATCH)):
            optimizer.zero_grad()
            loss = model.loss(x[indices])
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total / steps / BATCH

    return run


def make_vae():
    return VAE(
        prior=StandardNormal(20),
        encoder=DiagonalNormal(mlp(784, [400], 40)),
        decoder=mlp(20, [400], (784, 1)),
        likelihood=Bernoulli(grey=True),
    )


def plain_pyro(x):
    vae = make_vae()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO(max_plate_nesting=1))
    return lambda steps: sum(svi.step(x[i]) for i in torch.randint(len(x), (steps, BATCH))) / steps / BATCH


def ours(x):
    svi = Training(make_vae(), x, batch_size=BATCH, device="cpu").svi

    def run(steps):
        with pyro.validation_enabled(False):  # as in training: the data were checked before
            return sum(svi.step(x[i]) for i in torch.randint(len(x), (steps, BATCH))) / steps / BATCH

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    x = images()
    torch.manual_seed(0)
    programs = {
        "PyTorch by hand": by_hand(x, fused=False),
        "PyTorch by hand, fused Adam": by_hand(x, fused=True),
        "pyro_vae": ours(x),
        "Pyro's SVI and optimiser": plain_pyro(x),
    }
    seconds = {name: [] for name in programs}
    losses = {}
    for run in programs.values():
        run(20)  # warm up
    for _ in range(options.repeats):
        for name, run in programs.items():
            start = time.perf_counter()
            losses[name] = run(options.steps)
            seconds[name].append(time.perf_counter() - start)
    reference = statistics.median(seconds["PyTorch by hand"])
    print(f"{'':<30}{'ms a step':>10}{'ratio':>8}{'mean loss of the last turn':>30}")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:<30}{1000 * median / options.steps:>10.2f}{median / reference:>8.2f}{losses[name]:>30.1f}")
    spread = max(losses.values()) - min(losses.values())
    assert spread < 0.03 * max(losses.values()), "they should train to the same loss"


if __name__ == "__main__":
    main()
