"""Fill blanks: digits of which half is missing, several times each, and what that is worth against simpler ways.

``python examples/fill_blanks.py [--epochs N]`` takes about a minute. On the command line the same is
``pyro-vae impute RUN --data FILE``, where NaN marks the blanks, or on a run's own test data
``pyro-vae impute RUN --hide 0.5``.
"""

import argparse

import torch

import pyro_vae
from pyro_vae.inference import gibbs, impute, log_prob_missing
from pyro_vae.objectives import ImportanceWeightedELBO


def train(digits, x, epochs, objective=None, **options):
    torch.manual_seed(0)
    vae = pyro_vae.build(digits.shape, latent_dim=8, hidden_dims=[100], **options)
    vae.initialize(x)
    pyro_vae.fit(vae, x, objective=objective, epochs=epochs, batch_size=50, lr=3e-3, seed=0)
    return vae.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()

    digits = pyro_vae.data.load("digits", pixels="threshold")  # black or white
    vae = train(digits, digits.train, args.epochs)

    # Test digits lose half of their pixels, at random.
    torch.manual_seed(1)
    truth = digits.test[:30]
    hidden = torch.rand(truth.shape) < 0.5
    x = truth.masked_fill(hidden, torch.nan)

    # The decoder's pixels are independent given z, so blanks are summed out of p(x|z) by leaving them out. What is left
    # is to find p(z | x_observed): weights of draws from Gaussians fitted to it, one set for each digit.
    filled = impute(vae, x, num_completions=5, seed=0)
    print(f"log P(x_observed) {filled.evidence.mean:.2f} nats per digit")
    print(f"k-hat is too high in {int((~filled.evidence.reliable).sum())} of {len(x)} digits")

    # Markov chains arrive at the same place, in the long run. R-hat far above 1 says that this one was not long.
    chains = gibbs(vae, x, num_steps=200, seed=0)
    print(f"Gibbs: {chains.acceptance.mean():.0%} accepted, R-hat {chains.rhat.median():.2f} in the median")

    def squared_error(mean):
        return (mean - truth)[hidden].square().mean().item()

    def entropy(p):  # of each pixel alone
        return -(p * p.clamp(min=1e-6).log() + (1 - p) * (1 - p).clamp(min=1e-6).log())

    print("\nmean squared error of")
    print(f"  each pixel's mean                     {squared_error(digits.train.mean(0).expand_as(truth)):.4f}")
    print(f"  p(x_missing | x_observed), Gibbs      {squared_error(chains.mean):.4f}")
    print(f"  the same, importance resampling       {squared_error(filled.mean):.4f}")

    # How probable was the truth? Pixels tell much of each other, so that all together are likelier than one by one.
    score = log_prob_missing(vae, x, truth, observed=filled.evidence, seed=1)
    print(f"\nlog P(x_missing | x_observed) {score.log_prob.mean():.2f} ± {score.se.mean():.2f} nats (Monte Carlo)")
    p = filled.mean.clamp(1e-3, 1 - 1e-3)
    alone = torch.where(truth == 1, p, 1 - p).log().masked_fill(~hidden, 0).sum(1).mean()
    print(f"pixel by pixel                {alone:.2f} nats")

    # One of the digits, with ? where it is blank: two completions. They differ where the model is not sure.
    b = int(entropy(filled.mean).masked_fill(~hidden, 0).sum(1).argmax())
    for pictures in zip(*(v.unflatten(-1, (8, 8)) for v in (x[b], *filled.completions[:2, b])), strict=True):
        print("   ".join("".join("?" if v.isnan() else ".#"[int(v)] for v in line) for line in pictures))

    # If the training data have blanks as well, the encoder is told where, and the bound is on what is observed: with
    # the importance-weighted one this is MIWAE. On the command line: --missing.
    blanks = digits.train.masked_fill(torch.rand(digits.train.shape) < 0.5, torch.nan)
    halved = train(digits, blanks, args.epochs, ImportanceWeightedELBO(num_particles=10), missing=True)
    filled = impute(halved, x, num_starts=2, seed=0)
    print(f"\nmean squared error, trained on such halves too: {squared_error(filled.mean):.4f}")


if __name__ == "__main__":
    main()
