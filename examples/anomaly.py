"""Leave one class of digits out of training, and find it again as what the model thinks unlikely.

``python examples/anomaly.py [--epochs N]`` takes some seconds. On the command line the same is
``pyro-vae score RUN --data FILE --anomalies 0``.
"""

import argparse

import torch

import pyro_vae
from pyro_vae.inference import auroc, conformal_p_value, score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()

    digits = pyro_vae.data.load("digits")  # black or white pixels
    print(f"{'left out':>8}   {'AUROC by log P(X)':>17}   {'two-sided':>13}   flagged at 5 %: left out, normal")
    for left_out in (0, 1):
        normal = {split: labels != left_out for split, labels in digits.labels.items()}
        train, test = digits.train[normal["train"]], digits.test
        torch.manual_seed(0)
        vae = pyro_vae.build(digits.shape, latent_dim=8, hidden_dims=[100])
        vae.initialize(train)
        pyro_vae.fit(vae, train, draw=digits.draw, epochs=args.epochs, batch_size=50, lr=3e-3, seed=0)

        # log P(x) of each test digit, and how many of the held-out normal digits are as unlikely: the p-value. Of
        # digits like the held-out ones, no more than 5 % are flagged in expectation, however poor the model is.
        held_out = digits.validation[normal["validation"]]
        scores = score(vae.eval(), test, held_out=held_out, num_samples=200, seed=0)
        flagged = scores.p_value <= 0.05

        # Is it a good score? The AUROC is the probability that an anomaly has a lower one than a normal digit.
        anomalous = ~normal["test"]
        log_evidence = scores.evidence.log_evidence
        area, error = auroc(log_evidence[anomalous], log_evidence[~anomalous])
        # A model may find what it has never seen likelier than what it knows, if it is simpler: few pixels of a 1
        # are hard to predict. Two-sided p-values are small for what is too likely as well.
        two_sided = conformal_p_value(log_evidence, scores.held_out.log_evidence, two_sided=True)
        both, both_error = auroc(two_sided[anomalous], two_sided[~anomalous])
        caught, false_alarms = (flagged[rows].double().mean() for rows in (anomalous, ~anomalous))
        areas = f"{area:9.3f} ± {error:.3f}   {both:5.3f} ± {both_error:.3f}"
        print(f"{left_out:>8}   {areas}   {caught:24.0%} {false_alarms:7.0%}")

    print("\nthe most unusual digits at the end of the last row:")
    for i in scores.rank.argsort()[:5].tolist():
        evidence = f"log P(x) = {log_evidence[i]:.1f} ± {scores.evidence.se[i]:.2f} nats"
        print(f"index {i:3}, a {digits.labels['test'][i]}: {evidence}, p = {scores.p_value[i]:.4f}")
    print(
        "\n± is the standard error over digits (DeLong); of log P(x) it is Monte Carlo. One training seed each."
        "\nThe test digits are by other writers than the held-out ones: they need not be flagged 5 % of the time."
    )


if __name__ == "__main__":
    main()
