"""How well each method fills half of the pixels of binarized MNIST, missing at random.

Usage: python tests/benchmarks/imputation.py --run RUN [--images 200] [--missing 0.5]

RUN is a run on binarized MNIST, such as ``python -m pyro_vae.train --data mnist`` makes. Its VAE has seen complete
images only. Every method predicts the same missing pixels of the same test images. Two scores, in nats per image:

joint      log P(x_missing | x_observed), the density of all missing pixels together. For the VAE it is log P(x) - log
           P(x_observed), both by importance sampling. For pseudo-Gibbs the predictive distribution is the mixture of
           p(x_missing | z) over the z that the chains visit. Filling by means or neighbours says nothing of how pixels
           go together: its predictive distribution is the product of Bernoullis with the filled values.
pixelwise  the same for each missing pixel alone, summed: that product, with every method's means (kept from 0 and 1 by
           0.001).
"""

import argparse
import math
import time

import torch

from pyro_vae import data, load
from pyro_vae.inference import gibbs, impute, log_prob_missing
from pyro_vae.inference.blanks import decode, pseudo_gibbs, with_blanks
from pyro_vae.program import draw

SMALL = 1e-3


def neighbours(x, train, k):
    """The mean of the k training images nearest in the observed pixels, with the mean image as one more."""
    observed, known = (~x.isnan()).float(), x.nan_to_num()
    distance = observed @ train.square().T - 2 * known @ train.T  # less what is the same for all of them
    nearest = distance.topk(k, largest=False).indices
    return (train[nearest].sum(1) + train.mean(0)) / (k + 1)


def chosen_k(validation, train, fraction):
    """The number of neighbours that predicts validation images best."""
    truth = validation[:500]
    hidden = torch.rand(truth.shape) < fraction
    x = truth.masked_fill(hidden, math.nan)
    return max((3, 5, 10, 20, 40), key=lambda k: pixelwise(neighbours(x, train, k), truth, hidden).mean())


def pixelwise(mean, truth, hidden):
    mean = mean.clamp(SMALL, 1 - SMALL)
    return torch.where(hidden, torch.where(truth == 1, mean, 1 - mean).log(), 0.0).double().sum(1)


@torch.no_grad()
def encoder_only(vae, x, truth, steps=500):
    """Pseudo-Gibbs: the means, and the predictive density, over the z that it visits."""
    model, hidden = with_blanks(vae.model), x.isnan()
    filled = pseudo_gibbs(model, vae.guide, x, rounds=20)
    mean, log_sum = torch.zeros_like(truth), truth.new_full((len(x),), -math.inf, dtype=torch.float64)
    for _ in range(steps):
        z, _ = draw(vae.guide, filled, 1)
        drawn, means = decode(model, x, z)
        filled, mean = drawn[0], mean + means[0] / steps
        p = vae.likelihood.observed_part(vae.likelihood(vae.decoder(z["z"])), hidden)
        log_sum = torch.logaddexp(log_sum, p.log_prob(truth)[0].double())
    return mean, log_sum - math.log(steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a run on binarized MNIST")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--missing", type=float, default=0.5, help="the fraction of pixels that is missing")
    parser.add_argument("--num_steps", type=int, default=2000, help="of Metropolis-within-Gibbs; 0 leaves it out")
    options = parser.parse_args()
    torch.manual_seed(0)
    mnist, vae = data.load("mnist"), load(options.run)
    truth = mnist.test[: options.images]
    hidden = torch.rand(truth.shape) < options.missing
    x = truth.masked_fill(hidden, math.nan)

    def methods():
        mean = mnist.train.mean(0).expand(truth.shape)
        yield "mean filling", mean, pixelwise(mean, truth, hidden)
        k = chosen_k(mnist.validation, mnist.train, options.missing)
        mean = neighbours(x, mnist.train, k)
        yield f"{k} nearest neighbours of {len(mnist.train):,}", mean, pixelwise(mean, truth, hidden)
        yield "VAE: encoder only, pseudo-Gibbs", *encoder_only(vae, x, truth)
        if options.num_steps:
            chains = gibbs(vae, x, num_steps=options.num_steps, seed=0)
            name = f"VAE: Metropolis-within-Gibbs, R-hat {chains.rhat.median():.2f}"
            yield name, chains.mean, None
        filled = impute(vae, x, seed=0)
        score = log_prob_missing(vae, x, truth, observed=filled.evidence, seed=1)
        monte_carlo = score.se.square().sum().sqrt() / len(x)
        yield f"VAE: importance resampling (joint ± {monte_carlo:.2f} Monte Carlo)", filled.mean, score.log_prob

    print(f"{options.images} test images, {options.missing:.0%} of the pixels missing; ± standard error over images")
    print(f"{'':56}{'squared error':>18}{'joint, nats':>18}{'pixelwise, nats':>18}{'seconds':>9}", flush=True)
    start = time.perf_counter()
    for name, mean, joint in methods():
        error = torch.where(hidden, mean - truth, 0.0).square().sum(1) / hidden.sum(1)
        scores = [(error, 4), (joint, 2), (pixelwise(mean, truth, hidden), 2)]
        cells = ["" if s is None else f"{s.mean():.{d}f} ± {s.std() / math.sqrt(len(s)):.{d}f}" for s, d in scores]
        seconds, start = time.perf_counter() - start, time.perf_counter()
        print(f"{name:<56}{cells[0]:>18}{cells[1]:>18}{cells[2]:>18}{seconds:>9.0f}", flush=True)


if __name__ == "__main__":
    main()
