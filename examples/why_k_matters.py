"""See the importance-weighted bound rise to log P(X) with the number of samples K.

``python examples/why_k_matters.py [--epochs N] [--out FOLDER]`` takes some seconds, and leaves why_k_matters.png.
"""

import argparse
import math
from pathlib import Path

import torch

import pyro_vae
from pyro_vae.evidence import from_log_weights, log_weights, quadrature, widened

KS = (1, 3, 10, 30, 100, 300, 1000, 3000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path(), help="The folder to save the plot in.")
    args = parser.parse_args()

    torch.manual_seed(0)
    # Two latent dimensions, so that log P(X) can be had exactly: by adding up p(x, z) over a grid of z.
    digits = pyro_vae.data.load("digits")
    vae = pyro_vae.build(digits.shape, latent_dim=2, hidden_dims=[100])
    vae.initialize(digits.train)
    pyro_vae.fit(vae, digits.train, draw=digits.draw, epochs=args.epochs, batch_size=50, lr=3e-3, seed=0)
    x = digits.test[:100]
    exact = quadrature(vae.model, x, num_points=100)
    print(f"log P(X) of {len(x)} digits, by quadrature: {exact.mean():.4f} nats per digit")

    # L_K = E[log 1/K sum_k w_k], w = p(x, z) / q(z|x). By Jensen's inequality it is below log P(X), since the mean
    # is inside the logarithm; K = 1 is the ELBO. It never falls as K grows, and how fast it rises depends on q.
    curves = {}
    for name, proposal in {"encoder": vae.guide, "encoder, half as wide": widened(vae.guide, 0.5)}.items():
        log_w = log_weights(vae.model, proposal, x, num_samples=2 * max(KS), seed=0).double()
        trusted = from_log_weights(log_w).khat < 0.5  # the weights have a variance
        print(f"\nfrom the {name}; k-hat is below 1/2 in {trusted.double().mean():.0%} of the digits")
        print(f"{'':16} {'missing':>8}   {'in these digits:':>17}\n{'K':>6} {'bound':>9} {'in all':>8} ", end="")
        print(f"{'missing':>9} {'predicted':>10}")
        curves[name] = []
        for k in KS:
            groups = log_w[: len(log_w) // k * k].unflatten(0, (-1, k))  # as many independent sums as there are
            bound = (groups.logsumexp(1) - math.log(k)).mean(0)  # of each digit
            # To first order what is missing is half the squared standard error of log mean w, which falls like 1/K.
            predicted = f"{0.5 * from_log_weights(log_w[:k]).se[trusted].square().mean():10.4f}" if k >= 30 else ""
            missing = exact - bound
            print(f"{k:6} {bound.mean():9.4f} {missing.mean():8.4f} {missing[trusted].mean():9.4f} {predicted}")
            curves[name].append(bound.mean())
    print(
        "\nSo two models are compared at log P(X) and not at their bounds, where at small K the better encoder wins,\n"
        "whatever its decoder. Give K with each figure, and k-hat: a q with thin tails misses what it never draws,\n"
        "and the standard error that comes from the same draws misses it as well."
    )

    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.4))
    axes = figure.subplots()
    for name, bounds in curves.items():
        axes.semilogx(KS, bounds, marker="o", markersize=4, label=name)
    axes.axhline(exact.mean(), color="grey", linestyle="--", linewidth=1, label="log P(X), exactly")
    axes.set_xlabel("K")
    axes.set_ylabel("nats per digit")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    args.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out / "why_k_matters.png", dpi=150)
    print("saved", args.out / "why_k_matters.png")


if __name__ == "__main__":
    main()
