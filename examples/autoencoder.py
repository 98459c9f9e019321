"""See why an autoencoder does not generate: it beside the VAE, with equal networks, data and budget.

``python examples/autoencoder.py [--data mnist] [--epochs N] [--out FOLDER]`` takes about a minute with scikit-learn's
digits, and leaves autoencoder.png.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.nn import functional as F

from pyro_vae import VAE, data, fit, mlp
from pyro_vae.encoders import DiagonalNormal
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.priors import StandardNormal

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="digits")
parser.add_argument("--epochs", type=int, default=200)
parser.add_argument("--out", type=Path, default=Path(), help="The folder to save the picture in.")
args = parser.parse_args()
torch.manual_seed(0)
images = data.load(args.data)  # black or white pixels, drawn afresh for each batch
assert images.draw is not None
assert images.labels is not None
x_dim, z_dim, hidden, batch_size, lr = images.train.shape[1], 10, 400, 50, 1e-3

# The VAE: z ~ Q(z|X), and KL[Q || P(z)] keeps all codes together close to P(z) = N(0, I).
vae = VAE(
    prior=StandardNormal(z_dim),
    encoder=DiagonalNormal(mlp(x_dim, [hidden], 2 * z_dim)),
    decoder=mlp(z_dim, [hidden], (x_dim, 1)),
    likelihood=Bernoulli(),
)
fit(vae, images.train, draw=images.draw, epochs=args.epochs, batch_size=batch_size, lr=lr, device="cpu")

# The autoencoder: z = f(X), and nothing says where the codes shall lie.
encoder, decoder = mlp(x_dim, [hidden], z_dim), mlp(z_dim, [hidden], x_dim)
adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=lr)
for _ in range(args.epochs):
    for x in images.draw(images.train)[torch.randperm(len(images.train))].split(batch_size):
        adam.zero_grad()
        F.binary_cross_entropy_with_logits(decoder(encoder(x)), x, reduction="sum").backward()
        adam.step()

num = min(len(images.test), 2000)
test = images.test[:num]
with torch.no_grad():
    z = torch.randn(num, z_dim)  # z ~ N(0, I), the same for both
    codes = encoder(images.draw(images.train))
    gaussian = MultivariateNormal(codes.mean(0), codes.T.cov())  # the fairer guess at where the codes lie
    means = {
        "test data": test,
        "autoencoder: reconstruction": decoder(encoder(test)).sigmoid(),
        "VAE: reconstruction": vae.reconstruct(test),
        "autoencoder: z ~ N(0, I)": decoder(z).sigmoid(),
        "autoencoder: z ~ Gaussian of its codes": decoder(gaussian.sample((num,))).sigmoid(),
        "VAE: z ~ N(0, I)": vae.likelihood(vae.decoder(z)).mean,
    }

for name in ("autoencoder: reconstruction", "VAE: reconstruction"):
    nats = F.binary_cross_entropy(means[name], test, reduction="none").sum(-1)
    print(f"{name:42}-log P(X|z) = {nats.mean():.2f} ± {nats.std() / num**0.5:.2f} nats per test digit")

# Two questions to classifiers about digits of black or white pixels, drawn from P(X|z): can one that learns it tell
# them from as many test digits (50% is chance), and how sure of its answer is one that has learnt to read real digits?
train = images.draw(images.train)[:10_000]
reader = LogisticRegression(max_iter=2000).fit(train.numpy(), images.labels["train"][: len(train)].numpy())


def told_apart(x: Tensor) -> np.ndarray:
    both, real = torch.cat([test, x]).numpy(), np.repeat([1, 0], num)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return cross_val_predict(RandomForestClassifier(100, random_state=0), both, real, cv=folds) == real


generated = {name: torch.bernoulli(p) for name, p in means.items() if "z ~" in name}
print(f"\n{'':42}{'told from test digits':>22}{'sureness of the reader':>25}")
for name, x in ({"training digits": train[torch.randperm(len(train))[:num]]} | generated).items():
    told, sure = told_apart(x), reader.predict_proba(x.numpy()).max(1)
    print(f"{name:42}{told.mean():15.1%} ± {told.std() / len(told) ** 0.5:.1%}", end="")
    print(f"{sure.mean():17.3f} ± {sure.std() / num**0.5:.3f}")
print("± is one standard error over the digits; a reader may be sure of what is no digit, so the first column counts.")

side = images.shape[1:]
figure = Figure(figsize=(8, 4.2), layout="constrained")
for axes, (name, p) in zip(figure.subplots(len(means), 1), means.items(), strict=True):
    row = F.pad(p[:16].reshape(16, *side), (0, 1), value=1.0)
    axes.imshow(row.transpose(0, 1).flatten(1).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_title(name, fontsize=8, loc="left", pad=2)
    axes.set_axis_off()
args.out.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out / "autoencoder.png", dpi=150)
print("saved", args.out / "autoencoder.png")
