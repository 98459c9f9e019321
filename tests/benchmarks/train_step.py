"""The time of a training step, beside the same network in PyTorch, Pyro, NumPyro and Pythae.

    python tests/benchmarks/train_step.py [--repeats 5] [--steps 200] [--device cuda]
    python tests/benchmarks/train_step.py --race       # the time from a cold start to a test ELBO of -110 nats
    python tests/benchmarks/train_step.py --profile    # where the time of the compiled step goes

All train 784-400-20-400-784 on MNIST in memory (uniform noise where there is none), with batches of 128
gathered at random and Adam at 1e-3; `peers.py` has the programs. They take turns in one process; the figures are
medians over the turns. "products" is the time of the five large matrix products of a step alone. In the race each runs
in a process of its own, started after the other, with imports, reading MNIST and compilation within its time.
"""

import argparse
import cProfile
import os
import pstats
import statistics
import subprocess
import sys
import time

START = time.perf_counter()

import torch  # noqa: E402

GOAL = -110.0
REFERENCES = ("PyTorch by hand, fused Adam", "Pyro's SVI", "NumPyro")


def images(device: str, pixels: str = "grey") -> tuple[torch.Tensor, torch.Tensor]:
    from pyro_vae import data

    try:
        mnist = data.load("mnist", pixels=pixels)
        return mnist.train.to(device), mnist.test.to(device)
    except FileNotFoundError:
        print("no MNIST here: uniform noise in its place")
        return torch.rand(55_000, 784, device=device), torch.rand(1_000, 784, device=device)


def products(device: str, steps: int) -> None:
    """The five products with 784 x 400 weights: forward in both networks, backward in both, and into the code."""
    x, h = torch.randn(128, 784, device=device), torch.randn(128, 400, device=device)
    w = torch.randn(400, 784, device=device)
    for _ in range(steps):
        for a, b in ((x, w.T), (h, w), (h.T, x), (x.T, h), (x, w.T)):
            torch.mm(a, b)


def compare(options: argparse.Namespace) -> None:
    from peers import PEERS

    x, _ = images(options.device)
    torch.manual_seed(0)
    runs = {"five products alone": lambda steps: products(options.device, steps)}
    for name, make in PEERS.items():
        if options.only and not any(part in name for part in options.only):
            continue
        try:
            run, _ = make(x)
            run(20)  # warm up
            runs[name] = run
        except Exception as error:
            print(f"{name} does not run: {type(error).__name__}: {str(error).splitlines()[0][:90]}")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    losses: dict[str, float] = {}
    for _ in range(options.repeats):
        for name, run in runs.items():
            if options.device != "cpu":
                torch.cuda.synchronize()
            start = time.perf_counter()
            loss = run(options.steps)
            if options.device != "cpu":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
            if loss is not None:
                losses[name] = float(loss)
    spread = max(losses.values()) - min(losses.values())
    assert spread < 0.03 * max(losses.values()), f"they should train to the same loss: {losses}"
    medians = {name: statistics.median(times) / options.steps for name, times in seconds.items()}
    references = [name for name in REFERENCES if name in medians]
    print(f"{'':<32}{'ms a step':>10}{'last loss':>10}   relative to " + ", ".join(references))
    for name, median in medians.items():
        loss = f"{losses[name]:.1f}" if name in losses else ""
        ratios = "".join(f"{median / medians[reference]:>8.2f}" for reference in references)
        print(f"{name:<32}{1000 * median:>10.2f}{loss:>10}   {ratios}")


def profile(options: argparse.Namespace) -> None:
    from peers import ours

    run, _ = ours(images(options.device)[0])
    run(100)
    profiler = cProfile.Profile()
    profiler.runcall(run, options.steps)
    rows = pstats.Stats(profiler).get_stats_profile().func_profiles
    print(f"{'calls a step':>12}{'us a step':>11}   of {1e6 * profiler_total(rows) / options.steps:,.0f}")
    for name, row in sorted(rows.items(), key=lambda item: -item[1].tottime)[:16]:
        calls = int(str(row.ncalls).split("/")[0]) / options.steps
        print(f"{calls:>12.0f}{1e6 * row.tottime / options.steps:>11.0f}   {name}")


def profiler_total(rows: dict) -> float:
    return sum(row.tottime for row in rows.values())


def race(options: argparse.Namespace) -> None:
    from peers import PEERS

    print(f"{'':<32}{'seconds':>9}{'steps':>8}{'test ELBO':>11}   to a test ELBO of {GOAL:g} nats on grey pixels")
    for name in PEERS:
        if options.only and not any(part in name for part in options.only):
            continue
        cache = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}  # a cold start has none
        done = subprocess.run(
            [sys.executable, __file__, "--lap", name, "--device", options.device],
            env=os.environ | cache,
            capture_output=True,
            text=True,
        )
        print(
            f"{name:<32}{done.stdout.strip().splitlines()[-1] if done.returncode == 0 else '   does not run'}",
            flush=True,
        )


def lap(options: argparse.Namespace) -> None:
    from peers import PEERS

    torch.manual_seed(0)
    x, test_images = images(options.device)
    run, test = PEERS[options.lap](x)
    steps, elbo = 0, float("-inf")
    while elbo < GOAL:
        run(100)
        steps += 100
        elbo = -test(test_images[:2000])
    print(f"{time.perf_counter() - START:>9.1f}{steps:>8}{elbo:>11.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", help="Peers whose name contains one of these.")
    parser.add_argument("--race", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--lap", help=argparse.SUPPRESS)
    options = parser.parse_args()
    (lap if options.lap else race if options.race else profile if options.profile else compare)(options)
