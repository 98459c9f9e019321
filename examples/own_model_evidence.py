"""Estimate log P(X) of a Pyro model of your own, which shares no code with the VAE of this package.

``python examples/own_model_evidence.py [--epochs N]`` takes some seconds. Its question: are digits better described
by a kind of digit and a style, or by a style alone?
"""

import argparse
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
from torch import Tensor

from pyro_vae.data import load
from pyro_vae.evidence import log_evidence, widened

STYLES = 6


def model(x: Tensor, kinds: int) -> None:
    """p(kind) p(style) p(x | kind, style): a mixture of factor analysers with black or white pixels."""
    bias = pyro.param(f"bias{kinds}", lambda: x.mean(0).clamp(0.05, 0.95).logit() + torch.randn(kinds, x.shape[1]))
    factors = pyro.param(f"factors{kinds}", lambda: 0.1 * torch.randn(STYLES, x.shape[1]))
    with pyro.plate("data", len(x)):
        kind = pyro.sample("kind", dist.Categorical(torch.ones(kinds) / kinds))
        style = pyro.sample("style", dist.Normal(torch.zeros(STYLES), 1).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=bias[kind] + style @ factors).to_event(1), obs=x)


def guide(x: Tensor, kinds: int) -> None:
    """q(kind | x) q(style | x), both read off the pixels by a linear map."""
    to_kind = pyro.param(f"to_kind{kinds}", lambda: torch.zeros(x.shape[1], kinds))
    to_loc = pyro.param(f"to_loc{kinds}", lambda: torch.zeros(x.shape[1], STYLES))
    log_scale = pyro.param(f"log_scale{kinds}", lambda: torch.zeros(STYLES))
    with pyro.plate("data", len(x)):
        pyro.sample("kind", dist.Categorical(logits=(x - 0.5) @ to_kind))
        pyro.sample("style", dist.Normal((x - 0.5) @ to_loc, log_scale.exp()).to_event(1))


def one_scale(x: Tensor) -> None:
    """A model with a latent that all data share."""
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.0, scale))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()
    pyro.clear_param_store()
    digits, results, elbo = load("digits"), [], TraceEnum_ELBO(max_plate_nesting=1)
    print(f"{'kinds':>5} {'ELBO':>8} {'log P(X)':>9} {'std. error':>11} {'Monte Carlo':>12} {'k-hat too high':>15}")
    for kinds in (1, 10):
        pyro.set_rng_seed(0)
        programs = partial(model, kinds=kinds), partial(guide, kinds=kinds)
        # While training, the kinds are summed over; what comes after needs nothing but the two programs.
        svi = SVI(programs[0], config_enumerate(programs[1]), pyro.optim.Adam({"lr": 0.01}), elbo)
        for _ in range(args.epochs):
            for batch in digits.draw(digits.train)[torch.randperm(len(digits.train))].split(100):
                svi.step(batch)
        # A weight is p(x, kind, style) / q(kind, style | x), all of them drawn, discrete ones too.
        proposal = widened(programs[1], 1.2)  # the continuous ones a little wider: weights hate thin tails
        result = log_evidence(programs[0], proposal, digits.test, num_samples=1000, seed=0)
        results.append(result.log_evidence)
        print(f"{kinds:5} {result.elbo.mean():8.2f} {result.mean:9.2f} {result.mean_se:11.2f}", end=" ")
        print(f"{result.mean_mc_se:12.4f} {int((~result.reliable).sum()):8} of {len(digits.test)}")
    # The same digits were explained twice, so that each is compared with itself: the error is that of the difference.
    gain = results[1] - results[0]
    print(f"\nkinds are worth {gain.mean():.2f} ± {gain.std() / len(gain) ** 0.5:.2f} nats per digit")

    # A latent that all data share makes log P(X) a property of the set: no digit has a value of its own.
    try:
        log_evidence(one_scale, one_scale, digits.test)
    except ValueError as error:
        print(f"\nand what has no answer is refused:\n{error}")


if __name__ == "__main__":
    main()
