"""Estimate log P(X) of a trained VAE, with an error bar for each digit, and find out whether to trust it.

``python examples/log_evidence.py [--epochs N]`` takes some seconds. On the command line the same is
``pyro-vae evaluate RUN``, with ``--proposal Refined`` or ``--estimator ais``.
"""

import argparse

import torch

import pyro_vae
from pyro_vae.evidence import ais, defensive, laplace, log_evidence, refined


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()

    torch.manual_seed(0)
    digits = pyro_vae.data.load("digits")  # black or white pixels, so that P(X) is a probability
    vae = pyro_vae.build(digits.shape, latent_dim=8, hidden_dims=[100])
    vae.initialize(digits.train)
    pyro_vae.fit(vae, digits.train, draw=digits.draw, epochs=args.epochs, batch_size=50, lr=3e-3, seed=0)

    # The ELBO is below log P(X) by KL[q(z|x) || p(z|x)], which nobody knows. But the weights w = p(x, z) / q(z|x)
    # of draws from q have the mean P(x), exactly: their average over K draws estimates it, one digit at a time.
    evidence = log_evidence(vae, digits.test, num_samples=1000, seed=0)
    print(f"ELBO      {evidence.elbo.mean():.3f} nats per digit")
    print(f"log P(X)  {evidence.mean:.3f}, so that q costs {evidence.gap.mean():.3f} nats on average")

    # Two errors, told apart. Other test digits would change the mean by this much, and more draws never help:
    print(f"\nstandard error over digits  {evidence.mean_se:.3f}")
    # other draws for the same digits would change it by this much only:
    print(f"of which Monte Carlo        {evidence.mean_mc_se:.4f}")

    # That second figure is itself estimated, from the very weights that may have missed something. k-hat looks at
    # the largest weights: where they grow too fast, the sum is ruled by a few, and neither figure can be believed.
    doubtful = (~evidence.reliable).nonzero().squeeze(1)
    print(f"\nk-hat is too high in {len(doubtful)} of {len(digits.test)} digits, at most {evidence.khat.max():.2f}")
    worst = int(evidence.ess.argmin())
    print(f"the fewest draws count in digit {worst}: {evidence.ess[worst]:.0f} of 1000")

    # The ways out: draw more where it is needed, and only there …
    doubled = log_evidence(vae, digits.test, num_samples=1000, target_se=0.05, max_num_samples=16_000, seed=0)
    draws = doubled.num_samples
    print(
        f"\nfor a standard error of 0.05 in each: {draws.double().mean():.0f} draws on average, {draws.max()} at most"
    )
    print(f"log P(X)  {doubled.mean:.3f}; digits that need still more: {len(doubled.failed)}")

    # … or draw from something better than q. Fitted to each digit, or mixed with the prior, it stays honest: the
    # weights are those of new draws (so the seeds differ). All are lower bounds in expectation: the highest is best.
    # Annealed importance sampling walks from one density to the other by Hamiltonian Monte Carlo, and is the
    # reference where it may take thousands of steps; the few of here leave it with a larger error than the others.
    x = digits.test[:50]
    print(f"\n{'the first 50 digits, from':32} {'ELBO':>8} {'log P(X)':>9} {'Monte Carlo':>12} {'worst k-hat':>12}")
    for name, proposal in {
        "the encoder": vae.guide,
        "the encoder, 10 % prior": defensive(vae.model, vae.guide, 0.1),
        "q refined for each digit": refined(vae.model, vae.guide, x, steps=80, full_rank=True, seed=1),
        "a Gaussian at each mode": laplace(vae.model, vae.guide, x, steps=80, seed=1),
    }.items():
        result = log_evidence(vae.model, proposal, x, num_samples=1000, seed=0)
        elbo, khat = result.elbo.mean(), result.khat.max()
        print(f"{name:32} {elbo:8.3f} {result.mean:9.3f} {result.mean_mc_se:12.4f} {khat:12.2f}")
    reference = ais(vae.model, x, guide=vae.guide, num_temperatures=80, num_leapfrog=5, seed=0)
    print(f"{'AIS, from the encoder':32} {'':8} {reference.mean:9.3f} {reference.mean_mc_se:12.4f}")

    # As a score of how odd a digit is (upside down, 0, 1 and 8 are as good as upright):
    flipped = log_evidence(vae, digits.test.reshape(-1, 8, 8).flip(1).flatten(1), num_samples=100, seed=0)
    part = (flipped.log_evidence < evidence.log_evidence.quantile(0.05)).double().mean()
    print(f"\nless likely than 95 % of the digits: {part:.0%} of the digits upside down")


if __name__ == "__main__":
    main()
