"""How many (datum, sample) pairs a second log P(X) costs, beside what the decoder's matrix products alone cost.

    python tests/benchmarks/evidence_speed.py [--num_data 256] [--num_samples 5000]
    python tests/benchmarks/evidence_speed.py --bias RUN     # the rounding error of bfloat16, on a run on MNIST

Decoder 20-400-784 with a Bernoulli likelihood. All rows come from one run, alternating; each is the median of
its repeats, after one to warm up, and the ratios are what to compare. Pyro's vectorized_importance_weights weights a
batch jointly; it runs on the program as a user of Pyro writes it, with many samples in a call and with as few as fit
the cache, and then on ours, whose Bernoulli it profits from.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.importance import vectorized_importance_weights
from torch import nn

import pyro_vae
import pyro_vae.evidence
from pyro_vae.encoders import DiagonalNormal
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.machine.devices import bfloat16_products
from pyro_vae.priors import StandardNormal
from pyro_vae.program import draw, log_density


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.no_grad()
def bias(run: str, num_samples: int = 1000) -> None:
    """Compare log P(X) in lower precision with that in float64, on the same draws."""
    vae, x = pyro_vae.load(run).eval(), pyro_vae.data.load("mnist").test[:500]
    exact = copy.deepcopy(vae).double()
    errors: dict[str, list[torch.Tensor]] = {"float32": [], "bfloat16": []}
    for part in x.split(20):
        z, log_q = draw(vae.guide, part, num_samples)

        def estimate(model: Callable, part: torch.Tensor, z: dict, log_q: torch.Tensor = log_q) -> torch.Tensor:
            return (log_density(model, part, z).double() - log_q).logsumexp(0)

        reference = estimate(exact.model, part.double(), {name: value.double() for name, value in z.items()})
        errors["float32"].append(estimate(vae.model, part, z) - reference)
        with bfloat16_products():
            errors["bfloat16"].append(estimate(vae.model, part, z) - reference)
    print(f"log P(X) less that in float64, {len(x)} test images, K = {num_samples}, nats per image")
    for name, parts in errors.items():
        error = torch.cat(parts)
        print(f"{name:10} mean {error.mean():9.6f} +- {error.std() / len(error) ** 0.5:.6f}, sd {error.std():.6f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_data", type=int, default=256)
    parser.add_argument("--num_samples", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bias", metavar="RUN")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.bias:
        return bias(args.bias)
    vae = pyro_vae.VAE(
        prior=StandardNormal(20),
        encoder=DiagonalNormal(pyro_vae.mlp(784, [400], 40)),
        decoder=pyro_vae.mlp(20, [400], (784, 1)),
        likelihood=Bernoulli(),
    ).eval()
    x = torch.rand(args.num_data, 784).round()
    first, last = (layer for layer in vae.decoder if isinstance(layer, nn.Linear))
    pairs = args.num_data * args.num_samples
    chunk = 2048

    @torch.no_grad()
    def products() -> None:
        z, hidden = torch.randn(chunk, 20), torch.randn(chunk, 400)
        for _ in range(pairs // chunk):
            torch.addmm(first.bias, z, first.weight.T)
            torch.addmm(last.bias, hidden, last.weight.T)

    def plain(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(20), torch.ones(20)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=vae.decoder(z).squeeze(-1)).to_event(1), obs=x)

    @torch.no_grad()
    def helper(model: Callable, num_samples: int, rows: int = 64) -> None:
        for part in x.split(rows):  # its weights are joint over a batch
            for _ in range(0, args.num_samples, num_samples):
                vectorized_importance_weights(model, vae.guide, part, num_samples=num_samples, max_plate_nesting=1)

    def evidence() -> None:
        pyro_vae.evidence.log_evidence(vae, x, num_samples=args.num_samples, seed=0)

    def in_bfloat16() -> None:
        with bfloat16_products():
            evidence()

    calls = {
        "matrix products alone": products,
        "pyro_vae.log_evidence": evidence,
        "the same in bfloat16": in_bfloat16,
        "Pyro's helper, 64 data x 500 samples": lambda: helper(plain, 500),
        "Pyro's helper, 64 data x 32 samples": lambda: helper(plain, chunk // 64),
        "the same on our VAE": lambda: helper(vae.model, chunk // 64),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.repeats + 1):
        for name, call in calls.items():
            times[name].append(seconds(call))
    medians = {name: statistics.median(each[1:]) for name, each in times.items()}
    floor = medians["matrix products alone"]
    print(f"{pairs:,} pairs, {torch.get_num_threads()} threads, medians of {args.repeats} repeats")
    for name, median in medians.items():
        print(f"{name:40}{pairs / median / 1e3:8.1f} thousand pairs/s   {floor / median:.2f} of the matrix products")


if __name__ == "__main__":
    main()
