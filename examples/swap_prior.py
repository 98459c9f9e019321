"""Swap the prior p(z), and see what it is worth.

``python examples/swap_prior.py [--epochs N]`` takes some seconds. On the command line the same is
``python -m pyro_vae.train --prior GaussianMixture --prior.components 30``.
"""

import argparse

import torch

import pyro_vae
from pyro_vae.objectives import elbo_terms

PRIORS = {
    # The article's: everything that the encoder says about a digit costs its distance from one Gaussian.
    "StandardNormal": {},
    # Independent and heavy-tailed: the odd digit may lie far out at a smaller cost.
    "StudentT": {"df": 5.0},
    # Clusters, which are learned together with the rest: ten kinds of digits need not share one Gaussian.
    "GaussianMixture": {"components": 30},
    # The same, with each component the posterior q(z|u) of a made-up digit u, which is what is learned.
    "VampPrior": {"components": 30},
    # Any shape: a Gaussian, bent by an invertible network.
    "FlowPrior": {"flow": "maf", "hidden_dims": [32]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=25)
    args = parser.parse_args()

    # Black or white pixels: log P(x|z) is that of a Bernoulli, and each figure below is in the same nats.
    digits = pyro_vae.data.load("digits")
    print(f"test ELBO on {len(digits.test)} binarized digits, nats per digit, after {args.epochs} epochs\n")
    print(f"{'prior':16} {'ELBO':>13}   {'= log P(x|z)':>14} {'- KL':>6}   {'gain over the first':>19}")
    first = None
    for name, options in PRIORS.items():
        torch.manual_seed(0)
        # The one line that changes. Encoder, decoder, likelihood and objective know nothing of it.
        prior = {"class_path": name, "init_args": options}
        vae = pyro_vae.build(digits.shape, prior=prior, latent_dim=8, hidden_dims=[100])
        vae.initialize(digits.train)  # the VampPrior's made-up digits start as real ones
        pyro_vae.fit(vae, digits.train, draw=digits.draw, epochs=args.epochs, batch_size=50, lr=3e-3)

        reconstruction, kl = elbo_terms(vae.model, vae.guide, digits.test)
        elbo = reconstruction - kl
        error = elbo.std() / len(elbo) ** 0.5
        first = elbo if first is None else first
        # On the same digits the differences vary much less than the figures themselves, so each datum is
        # compared with itself.
        gain = elbo - first
        gained = f"{gain.mean():+.2f} ± {gain.std() / len(gain) ** 0.5:.2f}" if gain.any() else ""
        terms = f"{reconstruction.mean():14.2f} {kl.mean():6.2f}"
        print(f"{name:16} {elbo.mean():6.2f} ± {error:.2f}   {terms}   {gained:>19}".rstrip())
    print(
        "\nAll are lower bounds on log P(X) of the same data, and comparable. ± is one standard error over the test"
        "\ndigits; another seed of the training moves each figure by some 0.2 nats besides, so one run ranks no priors."
    )


if __name__ == "__main__":
    main()
