"""How well log P(X) finds digits of a class that training left out: AUROC for each of MNIST's ten classes.

Usage: python tests/benchmarks/anomaly.py [--epochs 10] [--only 1 7 …]

For each class, 784-400-20-400-784 (Bernoulli, Adam 1e-3, batch 128) is trained on the first 20,000 training images
of the other nine; test images of the class left out are the anomalies, and 2,000 test images of the nine are normal.
Prints a Markdown table with three scores, ± the standard error over images (DeLong), and in the last row the standard
deviation over classes. One training seed each. The scores:

- log P(X), of which little is unusual;
- its two-sided p-value against the validation images of the nine: too much is unusual as well;
- log P(X) - ELBO, the divergence of the encoder from the posterior, of which much is unusual: the encoder has learned
  to infer the latents of normal images only (compare Xiao, Yan & Amit, 2020, Likelihood Regret).
"""

import argparse

import torch

from pyro_vae import build, data, fit
from pyro_vae.inference import auroc, conformal_p_value, score


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=20_000, help="training images")
    parser.add_argument("--num_samples", type=int, default=100, help="K of the importance sampling")
    parser.add_argument("--only", type=int, nargs="*", default=range(10), help="classes to leave out, one at a time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    mnist = data.load("mnist")
    print("| class left out | by log P(X) | two-sided | by log P(X) − ELBO |\n|---|---|---|---|")
    table = []
    for left_out in options.only:
        normal = {split: labels != left_out for split, labels in mnist.labels.items()}
        x = mnist.train[normal["train"]][: options.images]
        torch.manual_seed(0)
        vae = build(mnist.shape)
        vae.initialize(mnist.draw(x))
        fit(vae, x, draw=mnist.draw, epochs=options.epochs)
        anomalies = mnist.test[~normal["test"]]
        test = torch.cat([anomalies, mnist.test[normal["test"]][:2000]])
        held_out = mnist.validation[normal["validation"]][:2000]
        scores = score(vae.eval(), test, held_out=held_out, num_samples=options.num_samples, seed=0)
        log_evidence = scores.evidence.log_evidence
        two_sided = conformal_p_value(log_evidence, scores.held_out.log_evidence, two_sided=True)
        count = len(anomalies)
        areas = [auroc(s[:count], s[count:]) for s in (log_evidence, two_sided, -scores.evidence.gap)]
        table.append([area for area, _ in areas])
        print(f"| {left_out} | " + " | ".join(f"{area:.3f} ± {se:.3f}" for area, se in areas) + " |", flush=True)
    means, spreads = torch.tensor(table).mean(0), torch.tensor(table).std(0)
    print("| mean | " + " | ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(means, spreads, strict=True)) + " |")


if __name__ == "__main__":
    main()
