"""Use this project's objectives and estimates on a Pyro model that is none of its own: two layers of latent variables.

``python examples/two_layers.py [--epochs N]`` takes some seconds.
"""

import argparse

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_vae.data import load
from pyro_vae.evidence import log_evidence
from pyro_vae.networks import bounded_exp, mlp
from pyro_vae.objectives import ImportanceWeightedELBO


def gaussian(outputs: Tensor) -> dist.Distribution:
    """Read a network's outputs as a diagonal Gaussian."""
    loc, log_scale = outputs.chunk(2, dim=-1)
    return dist.Normal(loc, bounded_exp(log_scale)).to_event(1)


class TwoLayers(nn.Module):
    """p(top) p(bottom | top) p(x | bottom), and the guide q(bottom | x) q(top | bottom)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = mlp(4, [50], 2 * 8)  # top to bottom
        self.decoder = mlp(8, [100], 64)
        self.encoder = mlp(64, [100], 2 * 8)
        self.up = mlp(8, [50], 2 * 4)  # bottom to top

    # What the objectives ask of a program: one plate of data at dim -1 with every sample site in it, and networks that
    # take any leading dimensions, since K samples come as a first one: z is (K, B, z_dim).
    def model(self, x: Tensor) -> None:
        pyro.module("model", nn.ModuleList([self.down, self.decoder]))
        with pyro.plate("data", len(x), dim=-1):
            top = pyro.sample("top", dist.Normal(x.new_zeros(4), 1.0).to_event(1))
            bottom = pyro.sample("bottom", gaussian(self.down(top)))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(bottom)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("guide", nn.ModuleList([self.encoder, self.up]))
        with pyro.plate("data", len(x), dim=-1):
            bottom = pyro.sample("bottom", gaussian(self.encoder(x)))
            pyro.sample("top", gaussian(self.up(bottom)))


def train(objective: ELBO, epochs: int) -> TwoLayers:
    pyro.clear_param_store()  # the names above are the same for each model trained
    torch.manual_seed(0)
    program = TwoLayers()
    svi = SVI(program.model, program.guide, pyro.optim.Adam({"lr": 2e-3}), loss=objective)  # as for any ELBO of Pyro
    for _ in range(epochs):
        for batch in digits.draw(digits.train)[torch.randperm(len(digits.train))].split(50):
            svi.step(batch)
    return program


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=30)
args = parser.parse_args()
digits = load("digits")
assert digits.draw is not None

for title, objective in {
    "Trace_ELBO": Trace_ELBO(max_plate_nesting=1),
    # log-mean-exp of K = 8 weights is a tighter bound, and asks less of q. Its plain gradient for q drowns in noise as
    # K grows; the doubly reparameterised one ("dreg") does not, for any number of latent sites.
    "ImportanceWeightedELBO": ImportanceWeightedELBO(num_particles=8, gradient="dreg"),
}.items():
    program = train(objective, args.epochs)
    # Trained on different bounds, the models are compared by the same figures: nats per binarized test digit.
    evidence = log_evidence(program.model, program.guide, digits.test, num_samples=500, seed=0)
    elbo, error = evidence.elbo, evidence.elbo.std() / len(evidence.elbo) ** 0.5
    estimate = f"log P(X) {evidence.mean:.2f} ± {evidence.mean_se:.2f}"
    print(f"{title:23} test ELBO {elbo.mean():.2f} ± {error:.2f}, {estimate} nats per binarized digit")
print("\n± is one standard error over the digits; log P(X) by importance sampling, K = 500: on average a lower bound.")
