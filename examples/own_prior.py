"""Write your own prior in ten lines.

``python examples/own_prior.py [--epochs N]`` takes some seconds. From the folder of this file, its class is also
known to the command line: ``python -m pyro_vae.train --prior own_prior.LearnedLaplace --prior.scale 0.5``.
"""

import argparse

import pyro.distributions as dist
import torch
from torch import nn

import pyro_vae
from pyro_vae.objectives import elbo_terms
from pyro_vae.testing import check_prior


# A prior is a module that returns a distribution. What its constructor calls z_dim is filled in (also known are x_dim,
# encoder, levels …); every other parameter is an option, which the command line takes with its type and default.
class LearnedLaplace(pyro_vae.Prior):
    """Independent Laplace distributions, each with a scale of its own that is learned."""

    def __init__(self, z_dim: int, scale: float = 1.0):
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((z_dim,), scale).log())  # trained with the rest, being a Parameter

    def forward(self) -> dist.Distribution:
        # One latent vector: batch shape () and event shape (z_dim,), which is what to_event(1) is for.
        return dist.Laplace(torch.zeros_like(self.log_scale), self.log_scale.exp()).to_event(1)


# The same for a distribution that Pyro does not have needs two methods of torch's Distribution: log_prob, which is
# what training uses, and sample, for new data.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()

    check_prior(LearnedLaplace, scale=0.5)  # raises an error that says what is wrong, if anything is

    digits = pyro_vae.data.load("digits")
    # A part is named by its module and class, and loaded by that name: to save models, keep it in a file of its own.
    torch.manual_seed(0)
    vae = pyro_vae.build(digits.shape, prior=f"{__name__}.LearnedLaplace", latent_dim=8, hidden_dims=[100])
    pyro_vae.fit(vae, digits.train, draw=digits.draw, epochs=args.epochs, batch_size=50, lr=2e-3)

    reconstruction, kl = elbo_terms(vae.model, vae.guide, digits.test)
    elbo = reconstruction - kl
    print(f"test ELBO {elbo.mean():.2f} ± {elbo.std() / len(elbo) ** 0.5:.2f} nats per binarized digit")
    prior = vae.prior
    assert isinstance(prior, LearnedLaplace)
    print("the scales that it learned:", " ".join(f"{scale:.2f}" for scale in prior.log_scale.exp().tolist()))


if __name__ == "__main__":
    main()
