"""Swap the likelihood p(x|z), and see which figures can be compared.

``python examples/swap_likelihood.py [--epochs N]`` takes some seconds. On the command line the same is
``python -m pyro_vae.train --likelihood Categorical``.
"""

import argparse
import math

import torch

import pyro_vae
from pyro_vae.likelihoods import bits_per_dimension
from pyro_vae.objectives import elbo_terms

# A pixel of these digits has 17 levels: how many of 4 x 4 smaller pixels were black. Each likelihood asks for the
# pixels in the form that it is a distribution of, and that decides what its figure can be compared with.
LIKELIHOODS = {
    "Binomial": {},  # 16 independent smaller pixels of one probability: one number for a pixel
    "Categorical": {},  # a free probability for each level: 17 numbers
    "DiscretizedLogistic": {},  # a bump, cut into levels: a place and a width
    "Gaussian": {"scale": "predicted"},  # a density, so that levels have to be spread over [0, 1] first
    "ContinuousBernoulli": {},  # a density on [0, 1] only
    "Bernoulli": {},  # black or white: other data
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=25)
    args = parser.parse_args()

    print(f"test ELBO in nats per digit, after {args.epochs} epochs\n")
    print(f"{'likelihood':20} {'pixels':12} {'ELBO':>15}   {'ELBO of the levels':>18}   {'bits/pixel':>10}")
    for name, options in LIKELIHOODS.items():
        torch.manual_seed(0)
        wanted = getattr(pyro_vae.likelihoods, name).pixels
        digits = pyro_vae.data.load("digits", preferred=wanted)
        # The one line that changes.
        likelihood = {"class_path": name, "init_args": options}
        vae = pyro_vae.build(
            digits.shape, likelihood=likelihood, latent_dim=8, hidden_dims=[100],
            levels=digits.levels, pixels=digits.pixels,
        )  # fmt: skip
        vae.initialize(digits.train)  # the decoder starts at the pixels' own frequencies, or means
        pyro_vae.fit(vae, digits.train, draw=digits.draw, epochs=args.epochs, batch_size=50, lr=2e-3)

        reconstruction, kl = elbo_terms(vae.model, vae.guide, digits.test)
        elbo, error = (reconstruction - kl).mean().item(), (reconstruction - kl).std().item() / len(kl) ** 0.5
        row = f"{name:20} {digits.pixels:12} {elbo:7.2f} ± {error:5.2f}"
        if digits.pixels != "binarized":
            # A density p of (levels + u) / 17, with u uniform on [0, 1], says of the levels themselves, by Jensen's
            # inequality, log P(levels) = log E_u[p / 17^64] >= E_u[log p] - 64 log 17. So in this column the rows
            # are comparable, with the densities at the disadvantage of that inequality.
            of_levels = elbo - (64 * math.log(digits.levels) if digits.pixels == "dequantized" else 0.0)
            row += f"   {of_levels:18.2f}   {bits_per_dimension(of_levels, 64):10.3f}"
        print(row)
    print(
        "\n± is one standard error over the test digits. The figures of levels can be compared, those of dequantized"
        "\npixels after the conversion to levels, where they are lower bounds. The Bernoulli's is about binarized"
        "\npixels, which are other data with less in them: it compares with none of the others."
    )


if __name__ == "__main__":
    main()
