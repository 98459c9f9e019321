"""How well each method fills half of the pixels of binarized MNIST, missing at random.

Usage: python tests/benchmarks/imputation.py --run RUN [--images 300] [--missing 0.5]

RUN is a run on binarized MNIST, such as ``python -m pyro_vae.train --data mnist`` makes. Its VAE has seen complete
images only. Every method predicts the same missing pixels of the same test images. Two scores, beside the squared error
of the means; in nats per image, higher is better:

joint      log P(x_missing | x_observed), the density of all missing pixels together. For the VAE it is log P(x) - log
           P(x_observed), both by importance sampling; it holds for Metropolis-within-Gibbs as well. For pseudo-Gibbs
           the predictive distribution is the mixture of p(x_missing | z) over the q(z | filled x) that it visits.
           Filling by means or neighbours says nothing of how pixels go together: its predictive distribution is the
           product of Bernoullis with the filled values.
pixelwise  the same for each missing pixel alone, summed: that product, with every method's means (kept from 0 and 1 by
           0.001).

The number of neighbours is the best one for validation images: one for the squared error, one for the scores. Below
each figure is its difference from importance resampling, with the standard error over images of both.
"""

import argparse
import math
import time

import pyro.distributions as dist
import torch

from pyro_vae import data, load
from pyro_vae.inference import gibbs, impute, log_prob_missing
from pyro_vae.inference.blanks import decode, pseudo_gibbs, with_blanks

SMALL = 1e-3


def neighbours(x, train, k):
    """The mean of the k training images nearest in the observed pixels, with the mean image as one more."""
    observed, known = (~x.isnan()).float(), x.nan_to_num()
    distance = observed @ train.square().T - 2 * known @ train.T  # less what is the same for all of them
    nearest = distance.topk(k, largest=False).indices
    return (train[nearest].sum(1) + train.mean(0)) / (k + 1)


def chosen_k(validation, train, fraction):
    """The numbers of neighbours with the smallest squared error, and the largest score, on validation images."""
    truth = validation[:1000]
    hidden = torch.rand(truth.shape) < fraction
    x = truth.masked_fill(hidden, math.nan)
    means = {k: neighbours(x, train, k) for k in (3, 5, 10, 20, 40, 80)}
    return {
        min(means, key=lambda k: squared_error(means[k], truth, hidden).mean()),
        max(means, key=lambda k: pixelwise(means[k], truth, hidden).mean()),
    }


def squared_error(mean, truth, hidden):
    return torch.where(hidden, mean - truth, 0.0).square().sum(1).double() / hidden.sum(1)


def pixelwise(mean, truth, hidden):
    mean = mean.clamp(SMALL, 1 - SMALL)
    return torch.where(hidden, torch.where(truth == 1, mean, 1 - mean).log(), 0.0).double().sum(1)


@torch.no_grad()
def encoder_only(vae, x, truth, steps=500, num_samples=1000):
    r"""Pseudo-Gibbs: the means, and the predictive density of the missing pixels.

    log p(x_missing), the integral of p(x_missing | z) over z from the mixture of all q(z | x_s) that were visited, by
    importance sampling: half the draws from that mixture, and half from q(z | truth), where the integrand is large.
    """
    model, hidden = with_blanks(vae.model), x.isnan()
    filled = pseudo_gibbs(model, vae.guide, x, rounds=20)
    mean, visited = torch.zeros_like(truth), []
    for _ in range(steps):
        visited.append(vae.encoder(filled))
        drawn, means = decode(model, x, {"z": visited[-1].sample((1,))})
        filled, mean = drawn[0], mean + means[0] / steps
    loc, scale = (torch.stack([getattr(q, name) for q in visited], 1) for name in ("mean", "stddev"))  # (B, S, Z)
    log_p = []
    for i in range(len(x)):
        mixture = dist.MixtureSameFamily(
            dist.Categorical(logits=torch.zeros(steps)), dist.Normal(loc[i], scale[i]).to_event(1)
        )
        own = vae.encoder(truth[i])
        z = torch.cat([p.sample((num_samples // 2,)) for p in (mixture, own)])
        likelihood = vae.likelihood.observed_part(vae.likelihood(vae.decoder(z)), hidden[i]).log_prob(truth[i])
        log_mixture = mixture.log_prob(z)
        log_proposal = torch.logaddexp(log_mixture, own.log_prob(z)) - math.log(2)
        log_weights = (likelihood + log_mixture - log_proposal).double()
        log_p.append(log_weights.logsumexp(0) - math.log(len(z)))
    return mean, torch.stack(log_p)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a run on binarized MNIST")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--missing", type=float, default=0.5, help="the fraction of pixels that is missing")
    parser.add_argument("--num_steps", type=int, default=2000, help="of Metropolis-within-Gibbs; 0 leaves it out")
    options = parser.parse_args()
    torch.manual_seed(0)
    mnist, vae = data.load("mnist"), load(options.run)
    truth = mnist.test[: options.images]
    hidden = torch.rand(truth.shape) < options.missing
    x = truth.masked_fill(hidden, math.nan)

    def methods():
        filled = impute(vae, x, seed=0)
        score = log_prob_missing(vae, x, truth, observed=filled.evidence, seed=1)
        monte_carlo = score.se.square().sum().sqrt() / len(x)
        yield f"VAE: importance resampling (Monte Carlo ± {monte_carlo:.2f})", filled.mean, score.log_prob
        if options.num_steps:
            chains = gibbs(vae, x, num_steps=options.num_steps, seed=0)
            yield f"VAE: Metropolis-within-Gibbs, R-hat {chains.rhat.median():.2f}", chains.mean, None
        yield "VAE: encoder only, pseudo-Gibbs", *encoder_only(vae, x, truth)
        for k in sorted(chosen_k(mnist.validation, mnist.train, options.missing)):
            mean = neighbours(x, mnist.train, k)
            yield f"{k} nearest neighbours of {len(mnist.train):,}", mean, pixelwise(mean, truth, hidden)
        mean = mnist.train.mean(0).expand(truth.shape)
        yield "mean filling", mean, pixelwise(mean, truth, hidden)

    print(f"{options.images} test images, {options.missing:.0%} of the pixels missing; ± standard error over images")
    print(f"{'':50}{'squared error':>19}{'joint, nats':>17}{'pixelwise, nats':>17}{'CPU s':>9}", flush=True)
    first, start = None, time.process_time()
    for name, mean, joint in methods():
        scores = [squared_error(mean, truth, hidden), joint, pixelwise(mean, truth, hidden)]
        seconds, start = time.process_time() - start, time.process_time()
        print(f"{name:<50}{cells(scores)}{seconds:>9.0f}", flush=True)
        if first is not None:
            differences = [None if a is None else a - b for a, b in zip(scores, first, strict=True)]
            print(f"{'  less importance resampling':<50}{cells(differences, sign='+')}", flush=True)
        first = first or scores


def cells(scores, sign=""):
    """The mean of each score with its standard error over images; nothing for what is unknown."""
    text = ""
    for score, digits, width in zip(scores, (4, 2, 2), (19, 17, 17), strict=True):
        known = (
            "" if score is None else f"{score.mean():{sign}.{digits}f} ± {score.std() / len(score) ** 0.5:.{digits}f}"
        )
        text += f"{known:>{width}}"
    return text


if __name__ == "__main__":
    main()
