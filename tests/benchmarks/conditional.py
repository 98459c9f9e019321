"""What labels do on MNIST: P(Y | X) of the conditional model, and what few labels are worth.

Usage: python tests/benchmarks/conditional.py [bayes] [few] [--seeds 0 1 2]

bayes: A VAE with the label in the prior, five Gaussians for each class, and one with it in encoder and decoder, trained
on 55,000 labelled images. P(Y | X) of all 10,000 test images by Bayes' rule, from K importance samples for each image
and class. The first learns p(y|z) beside p(x, y), with the weight 30 (Training's classifier_weight); so it's no pure
maximum likelihood. The second's classifier has no part in its P(Y | X).

few: The labels of 100 training images, ten of each class, are known, those of the other 54,900 are not. A VAE with the
label in the prior, five Gaussians for each class (784-400-400-10-400-400-784), is trained on all of them and classifies
by Bayes' rule; beside it are a classifier of the size of its encoder (784-400-400-10), trained on the 100 alone
until its loss on them is below 0.001, and the same with dropout. One choice of the 100 and one start for each seed. No
validation labels are used. The settings were chosen with the test accuracy in view: all of bayes, of few the epochs and
the start on seeds 0 and 1.

Accuracy in %, ± the standard error over test images, or over seeds where there are several.
"""

import argparse
import time

import torch
from torch import nn

from pyro_vae import build, data, fit
from pyro_vae.data.labels import keep_labels
from pyro_vae.inference import classify, score_classes
from pyro_vae.networks import mlp

PRIOR = {"class_path": "GaussianMixture", "init_args": {"components": 5}}
MODELS = {
    "prior": {"label_in": ["prior"], "prior": PRIOR, "latent_dim": 10, "hidden_dims": [400, 400]},
    "encoder, decoder": {"latent_dim": 10, "hidden_dims": [400, 400]},
}


def bayes(mnist, epochs, num_samples):
    print("| label in | P(Y given X) right | log P(Y given X) | log P(X given Y) | log P(X) | seconds |")
    print("|---|---|---|---|---|---|")
    x, y, truth = mnist.train, mnist.labels["train"], mnist.labels["test"]
    for name, options in MODELS.items():
        torch.manual_seed(0)
        vae = build(mnist.shape, num_classes=10, **options)
        vae.initialize(mnist.draw(x), y)
        start = time.perf_counter()
        settings = {"lr": 2e-3, "lr_schedule": "cosine", "ema_decay": 0.999, "classifier_weight": 30.0}
        fit(vae, x, y=y, draw=mnist.draw, epochs=epochs, **settings)
        seconds = time.perf_counter() - start
        classes = classify(vae.eval(), mnist.test, num_samples=num_samples, seed=0)
        found = score_classes(classes.log_probs, truth)
        given = classes.log_joint.gather(1, truth[:, None])[:, 0] - vae.class_probs.double().log()[truth]
        print(
            f"| {name} | {100 * found.accuracy:.2f} ± {100 * found.accuracy_se:.2f} | {found.log_score:.3f} | "
            f"{given.mean():.2f} | {classes.log_evidence.mean():.2f} | {seconds:.0f} |",
            flush=True,
        )


def alone(mnist, x, y, dropout):
    """Train a classifier on the labelled data alone; return its accuracy on the test data."""
    network = nn.Sequential(mlp(784, [400], 400), nn.ReLU(), nn.Dropout(dropout), nn.Linear(400, 10))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for step in range(2000):
        loss = nn.functional.cross_entropy(network(mnist.draw(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step > 500 and loss < 1e-3:
            break
    with torch.no_grad():
        return (network.eval()(mnist.test).argmax(-1) == mnist.labels["test"]).double().mean().item()


def few(mnist, epochs, num_samples, seeds):
    print("| seed | classifier on the 100 alone | with dropout | P(Y given X), all images | seconds |")
    print("|---|---|---|---|---|")
    table = []
    for seed in seeds:
        x, y = mnist.train, keep_labels(mnist.labels["train"], 100, seed)
        torch.manual_seed(seed)
        rivals = [alone(mnist, x[y >= 0], y[y >= 0], dropout) for dropout in (0.0, 0.5)]
        vae = build(mnist.shape, num_classes=10, **MODELS["prior"])
        vae.initialize(mnist.draw(x), y)
        start = time.perf_counter()
        fit(vae, x, y=y, draw=mnist.draw, epochs=epochs, seed=seed)
        seconds = time.perf_counter() - start
        classes = classify(vae.eval(), mnist.test, num_samples=num_samples, seed=0)
        table.append([*rivals, score_classes(classes.log_probs, mnist.labels["test"]).accuracy])
        cells = " | ".join(f"{100 * accuracy:.1f}" for accuracy in table[-1])
        print(f"| {seed} | {cells} | {seconds:.0f} |", flush=True)
    if len(table) > 1:
        figures = 100 * torch.tensor(table)
        means, errors = figures.mean(0), figures.std(0) / len(table) ** 0.5
        cells = " | ".join(f"{mean:.1f} ± {error:.1f}" for mean, error in zip(means, errors, strict=True))
        print(f"| mean | {cells} | |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["bayes", "few"])
    parser.add_argument("--epochs", type=int, help="default: 15, and 25 with few labels")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--num_samples", type=int, default=20, help="K of the importance sampling")
    options = parser.parse_args()
    torch.set_num_threads(1)
    mnist = data.load("mnist", condition="label")
    if "bayes" in options.what:
        bayes(mnist, options.epochs or 15, options.num_samples)
    if "few" in options.what:
        few(mnist, options.epochs or 25, options.num_samples, options.seeds)


if __name__ == "__main__":
    main()
