"""Train a classifier on 100 digits, and on these with variations that a VAE makes of them. Does it help?

``python examples/augment.py [--epochs N]`` takes some seconds. On the command line, the variations are made by
``pyro-vae augment RUN --data FILE --times 5``.
"""

import argparse

import torch
from sklearn.linear_model import LogisticRegression

import pyro_vae
from pyro_vae.inference import augment

TIMES, LABELLED, REPEATS = 5, 100, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()

    # The VAE learns from all 1,000 training digits, without labels; the classifier sees 100 of them, with labels.
    digits = pyro_vae.data.load("digits", pixels="levels")
    train, labels = digits.train, digits.labels["train"]
    torch.manual_seed(0)
    vae = pyro_vae.build(
        digits.shape, likelihood="Binomial", pixels="levels", levels=digits.levels, latent_dim=8, hidden_dims=[100]
    )
    vae.initialize(train)
    pyro_vae.fit(vae, train, epochs=args.epochs, batch_size=50, lr=3e-3, seed=0)
    vae.eval()

    def accuracy(x: torch.Tensor, y: torch.Tensor) -> float:
        classifier = LogisticRegression(max_iter=3000).fit(x.numpy() / 16, y.numpy())
        return 100 * classifier.score(digits.test.numpy() / 16, digits.labels["test"].numpy())

    rows: dict[str, list[float]] = {}
    for repeat in range(REPEATS):
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(repeat))[:LABELLED]
        x, y = train[chosen], labels[chosen]
        noise = 2 * torch.randn(TIMES * LABELLED, x.shape[1], generator=torch.Generator().manual_seed(repeat))
        more = {
            "nothing": x[:0],
            # Two rivals that need no model: six times the same digits only weaken the classifier's penalty.
            f"{TIMES} copies": x.repeat(TIMES, 1),
            f"{TIMES} copies with noise": x.repeat(TIMES, 1) + noise,
            f"{TIMES} variations": augment(vae, x, times=TIMES, seed=repeat).flatten(0, 1),
            f"{TIMES} variations, T = 2": augment(vae, x, times=TIMES, temperature=2.0, seed=repeat).flatten(0, 1),
            f"{TIMES} variations, means": augment(vae, x, times=TIMES, mean=True, seed=repeat).flatten(0, 1),
        }
        for name, extra in more.items():
            added = len(extra) // LABELLED
            rows.setdefault(name, []).append(accuracy(torch.cat([x, extra]), y.repeat(1 + added)))

    print(f"test accuracy of logistic regression on {LABELLED} digits and what is added to each, in per cent\n")
    print(f"{'added':24} {'accuracy':>12}   {'gain over nothing':>17}")
    first = torch.tensor(rows["nothing"])
    for name, values in rows.items():
        found = torch.tensor(values)
        # The same 100 digits with and without: their differences vary less than the figures themselves.
        gain = found - first
        gained = f"{gain.mean():+.2f} ± {gain.std() / REPEATS**0.5:.2f}" if name != "nothing" else ""
        print(f"{name:24} {found.mean():5.2f} ± {found.std() / REPEATS**0.5:.2f}   {gained:>17}".rstrip())
    print(
        f"\n± is one standard error over {REPEATS} choices of the {LABELLED}; one training seed of the VAE. A gain"
        "\ncounts if it is well above its error, and above that of the copies, which take no model."
    )


if __name__ == "__main__":
    main()
