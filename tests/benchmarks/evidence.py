"""How near each proposal's importance sampling comes to annealed importance sampling, on binarized MNIST.

Usage: python tests/benchmarks/evidence.py [--run RUN] [--images 200] [--num_samples 1000]

Trains 784-200-200-50 for 50 epochs, or takes the trained run RUN. The reference is annealed importance sampling with
1,000 temperatures and 16 chains; how far it can be trusted itself is shown by the bidirectional bounds on images
simulated from the model, whose gap holds the log P(X) of each between its two ends.
"""

import argparse
import time

import torch

from pyro_vae import build, data, load
from pyro_vae.evidence import ais, bidirectional, defensive, laplace, log_evidence, refined, widened
from pyro_vae.training import Training


def trained(mnist, epochs):
    torch.manual_seed(0)
    vae = build(mnist.shape, latent_dim=50, hidden_dims=[200, 200])
    vae.initialize(mnist.draw(mnist.train))
    for row in Training(vae, mnist.train, draw=mnist.draw, validation=mnist.validation, epochs=epochs).run():
        print(f"epoch {row['epoch']}: validation ELBO {row['elbo']:.2f}", flush=True)
    return vae.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a trained run, instead of training")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--num_samples", type=int, default=1000)
    parser.add_argument("--num_temperatures", type=int, default=1000)
    parser.add_argument("--num_chains", type=int, default=16)
    options = parser.parse_args()
    mnist = data.load("mnist")
    vae = load(options.run) if options.run else trained(mnist, options.epochs)
    x = mnist.test[: options.images]
    model, guide = vae.model, vae.guide

    def proposals():
        yield "the encoder", guide
        yield "the encoder, widened 1.2 times", widened(guide, 1.2)
        yield "the encoder, 10 % prior", defensive(model, guide)
        yield "refined, diagonal", refined(model, guide, x, seed=0)
        full = refined(model, guide, x, full_rank=True, seed=0)
        yield "refined, full covariance", full
        for factor in (1.1, 1.2, 1.3):
            yield f"refined, full covariance, widened {factor} times", widened(full, factor)
        peak = laplace(model, guide, x, seed=0)
        yield "Laplace", peak
        yield "Laplace, widened 1.1 times", widened(peak, 1.1)

    print(f"{options.images} test images, {options.num_samples} samples of each; nats per image", flush=True)
    print(f"{'proposal':<46}{'log P(X)':>10}{'MC se':>8}{'ELBO':>10}{'median k-hat':>14}{'seconds':>9}")
    start = time.perf_counter()
    for name, proposal in proposals():
        r = log_evidence(model, proposal, x, num_samples=options.num_samples, seed=1)
        seconds, start = time.perf_counter() - start, time.perf_counter()
        print(
            f"{name:<46}{r.mean:>10.3f}{r.mean_mc_se:>8.3f}{r.elbo.mean().item():>10.2f}"
            f"{r.khat.median().item():>14.2f}{seconds:>9.0f}",
            flush=True,
        )
    settings = {"num_temperatures": options.num_temperatures, "num_chains": options.num_chains, "seed": 2}
    r = ais(model, x, **settings)
    name = f"AIS, {options.num_temperatures} temperatures, {options.num_chains} chains"
    print(f"{name:<46}{r.mean:>10.3f}{r.mean_mc_se:>8.3f}{'':>24}{time.perf_counter() - start:>9.0f}", flush=True)
    both = bidirectional(model, mnist.test[:100], **settings)
    gap = both.gap
    print(
        f"bidirectional, 100 simulated images: {both.lower.mean:.3f} <= log P(X) <= "
        f"{both.upper.mean().item():.3f}; gap {gap.mean().item():.3f}, at most {gap.max().item():.3f}"
    )


if __name__ == "__main__":
    main()
