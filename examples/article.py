"""The article's experiment three times: as a Pyro program, with the KL in closed form, and written by hand in PyTorch.

``python examples/article.py --data mnist --epochs 25`` trains on the article's data, in some minutes (MNIST is
downloaded, or read from the folder PYRO_VAE_DATA); without options, on scikit-learn's small digits, in seconds.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from pyro import distributions as dist
from pyro.infer import ELBO, SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.nn import functional as F

from pyro_vae import VAE, Encoder, data, mlp
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.priors import StandardNormal
from pyro_vae.training.optim import FusedOptim

Z_DIM, HIDDEN, BATCH_SIZE = 20, 400, 128
ADAM = {"lr": 1e-3, "fused": True}


class LogVarNormal(Encoder):
    """N(mu(x), sigma^2(x)) from a network that puts out log sigma^2, as the article's does."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    @staticmethod
    def num_outputs(z_dim: int) -> int:
        return 2 * z_dim

    def forward(self, x: Tensor) -> dist.Distribution:
        loc, log_var = self.network(x).chunk(2, dim=-1)
        return dist.Normal(loc, (0.5 * log_var).exp()).to_event(1)


# Each variant holds its networks, takes a step, and has a loss: nats of a batch, from one z for each image.
class Program:
    """The VAE as a Pyro program."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, objective: ELBO):
        prior, likelihood = StandardNormal(Z_DIM), Bernoulli(grey=True)
        self.vae = VAE(prior=prior, encoder=LogVarNormal(encoder), decoder=decoder, likelihood=likelihood)
        self.decoder = decoder
        svi = SVI(self.vae.model, self.vae.guide, FusedOptim(torch.optim.Adam, ADAM), loss=objective)
        self.step: Callable[[Tensor], float] = svi.step

    def loss(self, x: Tensor) -> float:
        return TraceMeanField_ELBO(max_plate_nesting=1).loss(self.vae.model, self.vae.guide, x)


class ByHand:
    """The VAE as the article's PyTorch has it."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        self.encoder, self.decoder = encoder, decoder
        self.adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], **ADAM)

    def forward(self, x: Tensor) -> Tensor:
        mu, log_var = self.encoder(x).chunk(2, dim=-1)
        z = mu + (0.5 * log_var).exp() * torch.randn_like(mu)
        bce = F.binary_cross_entropy(self.decoder(z).squeeze(-1).sigmoid(), x, reduction="sum")
        kld = -0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())
        return bce + kld

    def step(self, x: Tensor) -> float:
        self.adam.zero_grad()
        loss = self.forward(x)
        loss.backward()
        self.adam.step()
        return loss.item()

    def loss(self, x: Tensor) -> float:
        return self.forward(x).item()


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="digits", help="digits, mnist, or another name that pyro_vae.data.load knows.")
parser.add_argument("--epochs", type=int, default=25)
parser.add_argument("--out", type=Path, default=Path("article"), help="The folder to save the pictures in.")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
pyro.enable_validation(False)  # the grey values were checked when they were read

torch.manual_seed(args.seed)
images = data.load(args.data, pixels="grey", validation=0)
x_dim = images.train.shape[1]
encoder, decoder = mlp(x_dim, [HIDDEN], 2 * Z_DIM), mlp(Z_DIM, [HIDDEN], (x_dim, 1))
variants: dict[str, Program | ByHand] = {
    "Pyro, Trace_ELBO": Program(*copy.deepcopy((encoder, decoder)), Trace_ELBO(max_plate_nesting=1)),
    "Pyro, TraceMeanField_ELBO": Program(*copy.deepcopy((encoder, decoder)), TraceMeanField_ELBO(max_plate_nesting=1)),
    "PyTorch, BCE + KLD": ByHand(*copy.deepcopy((encoder, decoder))),
}
# The decoder's means for the same z ~ N(0, I) each time: digits that nobody wrote.
z = torch.randn(40, Z_DIM)
samples: dict[tuple[int, str], Tensor] = {}
curves: dict[str, list[float]] = {name: [] for name in variants}
steps, furthest_apart = 0, 0.0

for epoch in range(1, args.epochs + 1):
    for batch in images.train[torch.randperm(len(images.train))].split(BATCH_SIZE):
        losses, noise = {}, torch.get_rng_state()
        for name, variant in variants.items():
            torch.set_rng_state(noise)  # all three see the same batches, and draw the same eps
            losses[name] = variant.step(batch)
        steps += 1
        if steps <= 50:  # the closed form and the code by hand are one function; later rounding drives them apart
            _, closed_form, by_hand = losses.values()
            furthest_apart = max(furthest_apart, abs(closed_form - by_hand) / by_hand)
            assert furthest_apart < 1e-4, f"step {steps}: {closed_form} and {by_hand} nats"
    for name, variant in variants.items():
        with torch.no_grad(), torch.random.fork_rng([]):
            torch.manual_seed(args.seed)
            curves[name].append(sum(variant.loss(x) for x in images.test.split(1000)) / len(images.test))
            if epoch in (1, 5, 10, 25, args.epochs):
                samples[epoch, name] = variant.decoder(z).squeeze(-1).sigmoid()
    print(f"epoch {epoch:2}:", ", ".join(f"{name} {curve[-1]:.2f}" for name, curve in curves.items()), flush=True)

print(f"\nTraceMeanField_ELBO and BCE + KLD with equal noise: equal to {furthest_apart:.0e} (relative)", end=" ")
print(f"at each of the first {min(steps, 50)} steps\n")
epochs = sorted({epoch for epoch, _ in samples})
print(f"{'test loss, nats per image':27}" + "".join(f"{f'epoch {epoch}':>10}" for epoch in epochs))
for name, curve in curves.items():
    print(f"{name:27}" + "".join(f"{curve[epoch - 1]:10.2f}" for epoch in epochs))
print(f"BCE + KLD over the {len(images.test):,} test images: the article's loss on grey pixels, not a density.")

figure = Figure(figsize=(6, 3.6), layout="constrained")
axes = figure.subplots()
for (name, curve), style in zip(curves.items(), ("-", "--", ":"), strict=True):
    axes.plot(range(1, args.epochs + 1), curve, style, label=name)
axes.set(xlabel="epoch", ylabel="test loss, nats per image", title="The article's loss on grey pixels, not a density")
axes.legend(frameon=False)
figure.savefig(args.out / "curves.png", dpi=150)

figure = Figure(figsize=(10, 1.6 * len(epochs)), layout="constrained")
for row, epoch in zip(figure.subplots(len(epochs), len(variants), squeeze=False), epochs, strict=True):
    for axes, name in zip(row, variants, strict=True):
        digits = F.pad(samples[epoch, name].reshape(4, 10, *images.shape[1:]), (0, 1, 0, 1), value=1.0)
        axes.imshow(digits.transpose(1, 2).flatten(0, 1).flatten(1).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"epoch {epoch}: {name}", fontsize=8)
        axes.set_axis_off()
figure.savefig(args.out / "samples.png", dpi=150)
print("saved curves.png and samples.png in", args.out)
