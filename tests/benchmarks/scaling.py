"""How the cost of training and of log P(X) grows with batch, latent size, width, number of samples K, and of data.

    python tests/benchmarks/scaling.py [--repeats 3]

One quantity varies, the others stay at the values of the article: batch 128, 20 latent dimensions, 400 hidden units,
784 pixels. Figures are medians over repeats of the compiled step, and of ``log_evidence``. Uniform noise stands for
data: what the pixels are makes no difference to the time.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch

import pyro_vae
from pyro_vae.training import Training

DEFAULTS = {"batch": 128, "latent": 20, "width": 400, "data": 12_800}
VARIED = {
    "batch": (32, 64, 128, 256, 512, 1024),
    "latent": (2, 10, 20, 50, 100, 200),
    "width": (100, 200, 400, 800, 1600),
    "data": (6_400, 12_800, 25_600, 51_200),
}
SAMPLES = (10, 100, 1_000, 10_000, 100_000)


def vae_of(latent: int, width: int) -> pyro_vae.VAE:
    torch.manual_seed(0)
    return pyro_vae.build((1, 28, 28), latent_dim=latent, hidden_dims=[width])


def seconds(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):  # one to warm up
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def epoch(batch: int, latent: int, width: int, data: int) -> tuple[Callable[[], object], int]:
    """Return what takes an epoch, and its number of steps."""
    x = torch.rand(data, 784).round()
    training = Training(vae_of(latent, width), x, batch_size=batch, epochs=100)
    rows = training.run()
    return lambda: next(rows), -(-data // batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats

    print(f"{'K':>12}{'us a pair':>12}{'peak memory, MB':>18}     log P(X) of 16 data")
    vae, x = vae_of(DEFAULTS["latent"], DEFAULTS["width"]).eval(), torch.rand(16, 784).round()
    for num_samples in SAMPLES:
        took = seconds(lambda k=num_samples: pyro_vae.log_evidence(vae, x, num_samples=k, seed=0), repeats)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{num_samples:>12,}{1e6 * took / num_samples / len(x):>12.2f}{peak:>18,.0f}", flush=True)

    for name, values in VARIED.items():
        print(f"{name:>12}{'ms a step':>12}{'us an example':>16}")
        for value in values:
            options = DEFAULTS | {name: value}
            call, steps = epoch(**options)
            took = seconds(call, repeats)
            print(f"{value:>12,}{1e3 * took / steps:>12.2f}{1e6 * took / options['data']:>16.1f}", flush=True)


if __name__ == "__main__":
    main()
