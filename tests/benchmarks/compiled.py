"""Training compiled and eager: the same ELBO on MNIST after 25 epochs, and 10,000 steps that are all alike.

python tests/benchmarks/compiled.py [--epochs 25] [--seeds 0 1 2] [--precision bfloat16]
"""

import argparse
import resource
import statistics
import time

import torch

import pyro_vae
from pyro_vae.data.pixels import binarize
from pyro_vae.objectives import elbo_terms
from pyro_vae.training import Training


def trained(x: torch.Tensor, test: torch.Tensor, **options: object) -> tuple[float, float]:
    """Return the ELBO on the test data, in nats per image, and the seconds of training."""
    torch.manual_seed(options["seed"])
    vae = pyro_vae.build((1, 28, 28))
    vae.initialize(x)
    start = time.perf_counter()
    pyro_vae.fit(vae, x, draw=binarize, **options)
    took = time.perf_counter() - start
    reconstruction, kl = elbo_terms(vae.eval().model, vae.guide, test, seed=0)
    return (reconstruction - kl).mean().item(), took


def many_steps(x: torch.Tensor, steps: int = 10_000, parts: int = 10) -> None:
    training = Training(pyro_vae.build((1, 28, 28)), x, draw=binarize)
    print(f"\n{steps:,} steps in {parts} parts: {'ms a step':>12}{'peak memory, MB':>18}{'recordings':>12}")
    for part in range(parts):
        chosen = torch.randint(len(x), (steps // parts, 128))
        with training.stepping(part):
            times = []
            for rows in chosen:
                start = time.perf_counter()
                training.svi.step(training.data.drawn(x[rows]), size=len(rows))
                times.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{'':27}{1e3 * statistics.median(times):>12.3f}{peak:>18,.0f}{training.compiled.traces:>12}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()

    mnist = pyro_vae.data.load("mnist")
    print(f"{'seed':>6}{'eager':>10}{'compiled':>10}{'difference':>12}   test ELBO, nats per image    seconds of each")
    for seed in options.seeds:
        found = [
            trained(mnist.train, mnist.test, epochs=options.epochs, seed=seed, compile=compile, precision=precision)
            for compile, precision in (("off", "float32"), ("on", options.precision))
        ]
        (eager, eager_seconds), (compiled, seconds) = found
        print(
            f"{seed:>6}{eager:>10.3f}{compiled:>10.3f}{compiled - eager:>12.3f}{eager_seconds:>40.0f}{seconds:>6.0f}",
            flush=True,
        )
    many_steps(mnist.train)


if __name__ == "__main__":
    main()
