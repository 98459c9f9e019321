"""Few labels: digits of which 50 in 1,000 have one. What do the others bring to P(Y | X)?

``python examples/few_labels.py [--epochs N]`` takes about half a minute. On the command line it is
``pyro-vae train --condition label --num_labels 50``, and then ``pyro-vae classify RUN`` and ``pyro-vae sample RUN``.
"""

import argparse

import torch

import pyro_vae
from pyro_vae.inference import classify, score_classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200)
    args = parser.parse_args()

    # y is -1 where the label is unknown. The labels of the test data are for counting what is right.
    digits = pyro_vae.data.load("digits", condition="label", num_labels=50)
    x, y, truth = digits.train, digits.labels["train"], digits.labels["test"]

    # Each class has a prior of its own, so that p(z) is a mixture over the classes. A digit with a label is explained
    # by the prior of its class, one without by all of them: log p(x, z) = log sum_y p(y) p(z|y) p(x|z).
    torch.manual_seed(0)
    mixture = {"class_path": "GaussianMixture", "init_args": {"components": 3}}
    vae = pyro_vae.build(digits.shape, num_classes=10, label_in=["prior"], prior=mixture, latent_dim=8)
    vae.initialize(digits.draw(x), y)
    pyro_vae.fit(vae, x, y=y, draw=digits.draw, epochs=args.epochs, lr=2e-3, lr_schedule="cosine", seed=0)

    # Bayes' rule, from log P(X, Y) of each class by importance sampling.
    classes = classify(vae.eval(), digits.test, num_samples=50, seed=0)
    found = score_classes(classes.log_probs, truth)

    # A classifier of the size of the encoder, from the 50 alone.
    torch.manual_seed(0)
    alone = pyro_vae.mlp(64, [400], 10)
    optimizer = torch.optim.Adam(alone.parameters(), 1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(alone(digits.draw(x[y >= 0])), y[y >= 0]).backward()
        optimizer.step()
    right = (alone(digits.test).argmax(1) == truth).double().mean().item()

    print(f"{int((y >= 0).sum())} labels, {int((y < 0).sum())} digits without")
    print(f"a classifier from the labelled digits   {100 * right:.1f} % of the test digits right")
    print(f"P(Y | X), from all digits               {100 * found.accuracy:.1f} ± {100 * found.accuracy_se:.1f} %")
    print(f"log P(X) {classes.log_evidence.mean():.2f} nats per digit")

    # P(X | Y): one class is an ordinary VAE.
    images = torch.cat([vae.given(label).sample(1, mean=True) for label in (0, 1, 2, 3)]).unflatten(-1, (8, 8)).round()
    for lines in zip(*images, strict=True):
        print("   ".join("".join(".#"[int(v)] for v in line) for line in lines))


if __name__ == "__main__":
    main()
