"""Write your own likelihood in ten lines.

``python examples/own_likelihood.py [--epochs N]`` takes some seconds. From the folder of this file, its class is also
known to the command line: ``python -m pyro_vae.train --likelihood own_likelihood.ZeroInflatedBinomial``.
"""

import argparse

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

import pyro_vae
from pyro_vae.objectives import elbo_terms
from pyro_vae.testing import check_likelihood


# A likelihood is a module that turns the decoder's raw outputs into a distribution of one datum. What its constructor
# calls levels is filled in from the data (also known are x_dim, z_dim …); other parameters would be options.
class ZeroInflatedBinomial(pyro_vae.Likelihood):
    """White with some probability, and otherwise as many black smaller pixels as a binomial says."""

    params_per_element = 2  # raw numbers for each pixel, which the decoder will put out

    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels
        self.support = constraints.integer_interval(0, levels - 1)  # other data are refused before the training
        self.accepts = f"whole numbers from 0 to {levels - 1}"  # with these words

    def forward(self, raw: Tensor) -> dist.Distribution:
        # raw is (..., 64, 2). One datum is one event, hence to_event(1).
        black = dist.Binomial(self.levels - 1, logits=raw[..., 0])
        return dist.ZeroInflatedDistribution(black, gate_logits=raw[..., 1]).to_event(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()

    check_likelihood(ZeroInflatedBinomial, levels=17)  # raises an error that says what is wrong, if anything is

    digits = pyro_vae.data.load("digits", pixels="levels")
    print(f"{(digits.train == 0).float().mean():.0%} of the pixels are white")
    # A part is named by its module and class, and loaded by that name: to save models, keep it in a file of its own.
    for likelihood in ("Binomial", f"{__name__}.ZeroInflatedBinomial"):
        torch.manual_seed(0)
        vae = pyro_vae.build(
            digits.shape, likelihood=likelihood, latent_dim=8, hidden_dims=[100], levels=digits.levels, pixels="levels"
        )
        pyro_vae.fit(vae, digits.train, epochs=args.epochs, batch_size=50, lr=2e-3)
        reconstruction, kl = elbo_terms(vae.model, vae.guide, digits.test)
        elbo = reconstruction - kl
        # Both are probabilities of the same 17 levels, so the figures can be compared; those of binarized pixels,
        # which the Bernoulli likelihood is about, could not be compared with them.
        name = likelihood.rpartition(".")[2]
        error = elbo.std() / len(elbo) ** 0.5
        print(f"{name:21} test ELBO {elbo.mean():8.2f} ± {error:.2f} nats per digit of 17 levels")


if __name__ == "__main__":
    main()
