"""The derivation of the variational auto-encoder, line by line, as a program with numbers and pictures.

``python examples/walkthrough.py [--out FOLDER]`` takes less than a minute.
"""

import argparse
import math
from pathlib import Path

import matplotlib
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import Normal

from pyro_vae import VAE, mlp
from pyro_vae.data import load
from pyro_vae.encoders import DiagonalNormal
from pyro_vae.equations import closed_forms as derivation
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.priors import StandardNormal

matplotlib.use("Agg")
from matplotlib import pyplot as plt

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, default=Path("walkthrough"), help="The folder to save the plots in.")
parser.add_argument("--epochs", type=int, default=60)
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
pyro.clear_param_store()


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def save_grid(images: torch.Tensor, name: str, caption: str) -> None:
    rows = images.reshape(-1, 10, 8, 8).permute(0, 2, 1, 3).reshape(-1, 80)  # ten digits of 8 x 8 in a row
    plt.figure(figsize=(5, len(rows) / 14))
    plt.imshow(rows.numpy(), cmap="gray_r", vmin=0, vmax=1)
    plt.title(caption, fontsize=9)
    plt.axis("off")
    plt.savefig(args.out / name, dpi=150, bbox_inches="tight")
    plt.close()


data = load("digits")  # black or white pixels, so that P(X|z) is a probability
test = data.test

title("1. A model with latent variables")
# P(X) = ∫ P(X|z) P(z) dz.  To make a digit, draw z ~ P(z) = N(0, I), then X ~ P(X|z).
# P(X|z) is a Bernoulli for each pixel, whose probabilities a network computes from z: the decoder.
vae = VAE(
    prior=StandardNormal(z_dim=8),
    encoder=DiagonalNormal(mlp(64, [200], 2 * 8)),
    decoder=mlp(8, [200], (64, 1)),
    likelihood=Bernoulli(),
)
print("the Pyro model's sites:", [name for name in pyro.poutine.trace(vae.model).get_trace(test).nodes if name in "zx"])

# P(X) = E_{z~P(z)} P(X|z) could be estimated from draws of P(z), but most z say nothing about a given X:
# section 7 counts them. The way out is a distribution Q(z|X) of the z that are likely to have made X: the encoder.

title("2. From KL[Q || P(z|X)] to the bound")
# KL[Q || P(z|X)] = E_Q[log Q(z|X) - log P(z|X)]                        by definition
# P(z|X) = P(X|z) P(z) / P(X)                                            by Bayes' rule, and so
# KL[Q || P(z|X)] = E_Q[log Q - log P(X|z) - log P(z)] + log P(X)        since P(X) does not depend on z;
# log P(X) - KL[Q || P(z|X)] = E_Q[log P(X|z)] - KL[Q || P(z)]           with the terms in order.
# KL >= 0, so the right side is below log P(X): the *evidence* lower bound, which is what ELBO stands for
# (P(X) is the evidence; where you read it spelt out in another way, it is this bound that is meant).


def elbo(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    q = vae.encoder(x)
    z = q.rsample()
    return vae.likelihood(vae.decoder(z)).log_prob(x), derivation.kl_standard_normal(q.mean, q.stddev)


reconstruction, kl = elbo(test)
print(
    f"untrained: ELBO {(reconstruction - kl).mean():.2f} = {reconstruction.mean():.2f} - {kl.mean():.2f} nats a digit"
)
print("every line of it as two numbers: pyro-vae check")

title("3. KL[Q || P(z)] in closed form")
# KL[N(mu, sigma^2) || N(0, I)] = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2)
q, p = vae.encoder(test[:1]), vae.prior()
z = q.sample((100_000,))
drawn = q.log_prob(z) - p.log_prob(z)
closed = derivation.kl_standard_normal(q.mean, q.stddev).item()
print(f"closed form {closed:.4f}, mean of 100,000 draws {drawn.mean():.4f} ± {drawn.std() / 100_000**0.5:.4f}")

title("4. The reparameterisation: z = mu + sigma * eps")
# The KL term has a gradient as it stands: it is a formula in mu and sigma. What has none is the drawing of z
# in E_Q[log P(X|z)]. Drawing eps ~ N(0, I) instead, which depends on no parameter, leaves z a function of both.
mu, sigma = torch.tensor([0.5], requires_grad=True), torch.tensor([2.0], requires_grad=True)
z = derivation.reparameterize(mu, sigma, torch.randn(100_000))
print(f"mean {z.mean():.3f} and deviation {z.std():.3f} of z, for mu = 0.5 and sigma = 2")
grad = torch.autograd.grad(z.square().mean(), (mu, sigma))  # E[z^2] = mu^2 + sigma^2
print(f"gradient of E[z^2]: {grad[0].item():.3f} and {grad[1].item():.3f}; exactly 2 mu = 1 and 2 sigma = 4")
plt.hist(z.detach().numpy(), bins=200, density=True, alpha=0.5, label="mu + sigma * eps")
grid = torch.linspace(-8, 9, 200)
plt.plot(grid.numpy(), Normal(0.5, 2.0).log_prob(grid).exp().numpy(), label="N(mu, sigma^2)")
plt.legend()
plt.savefig(args.out / "reparameterisation.png", dpi=150)
plt.close()

title("5. The loss: binary cross-entropy + KLD")
# -log P(X|z) of Bernoulli pixels is the binary cross-entropy; so -ELBO = BCE + KLD. Pyro computes the same from
# the program alone: with the KL in closed form (TraceMeanField_ELBO), or with the drawn log Q - log P(z) (Trace_ELBO).
torch.manual_seed(1)
print(f"TraceMeanField_ELBO {TraceMeanField_ELBO().loss(vae.model, vae.guide, test):.2f}")
torch.manual_seed(1)
q = vae.encoder(test)
probs = vae.likelihood(vae.decoder(vae.guide(test))).mean
print(f"BCE + KLD           {derivation.article_loss(probs, test, q.mean, 2 * q.stddev.log()).item():.2f}")
print(f"Trace_ELBO          {Trace_ELBO().loss(vae.model, vae.guide, test):.2f}  (other draws: equal on average)")

title("6. Training")
svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 2e-3}), Trace_ELBO(max_plate_nesting=1))
history = []
for epoch in range(args.epochs):
    x = data.draw(data.train)[torch.randperm(len(data.train))]
    for batch in x.split(50):
        svi.step(batch)
    history.append(-svi.evaluate_loss(test) / len(test))
    if (epoch + 1) % 20 == 0:
        print(f"epoch {epoch + 1}: test ELBO {history[-1]:.2f} nats a digit")
plt.plot(history)
plt.xlabel("epoch")
plt.ylabel("test ELBO, nats a digit")
plt.savefig(args.out / "training.png", dpi=150)
plt.close()

title("7. log P(X) from the prior, and from Q")
# P(X) = E_{z~P(z)} P(X|z) = E_{z~Q} P(X|z) P(z) / Q(z|X): two means of weights. How many draws count is
# (sum of the weights)^2 / (sum of their squares).
x = test[:20]
with torch.no_grad():
    q, p = vae.encoder(x), vae.prior().expand((20,))
    for name, proposal, num in [("P(z)", p, 100), ("P(z)", p, 10_000), ("Q(z|X)", q, 1000)]:
        z = proposal.sample((num,))
        log_w = vae.likelihood(vae.decoder(z)).log_prob(x) + p.log_prob(z) - proposal.log_prob(z)  # (num, 20)
        log_p = (log_w.logsumexp(0) - math.log(num)).mean()
        count = (1 / log_w.softmax(0).square().sum(0)).median()
        print(f"{num:6} draws from {name:6}: log P(X) = {log_p:.2f}, where {count:.0f} draws count")

title("8. New digits")
# New samples come from z ~ P(z) = N(0, I). Means and deviations belong to Q(z|X), so to a given X; drawing
# those at random would give z another distribution than the one that the decoder was trained to understand.
save_grid(vae.sample(50, mean=True), "samples.png", "E[X|z], z ~ N(0, I)")
save_grid(torch.stack([test[:10], vae.reconstruct(test[:10])]), "reconstructions.png", "test digits, and E[X|z], z ~ Q")
print("saved in", args.out)
