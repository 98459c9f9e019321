"""See what a VAE has learned: where it puts data, what each latent dimension does, and what lies between two data.

``python examples/latent_space.py [--epochs N] [--out FOLDER]`` takes half a minute, and leaves three pictures.
"""

import argparse
from pathlib import Path

import torch

import pyro_vae
from pyro_vae import plotting
from pyro_vae.inference import encode, interpolate, manifold, reconstruct, sample

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--out", type=Path, default=Path(), help="The folder to save the pictures in.")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
digits = pyro_vae.data.load("digits")
x, labels = digits.test, digits.labels["test"]


def train(latent_dim: int) -> pyro_vae.VAE:
    torch.manual_seed(0)
    vae = pyro_vae.build(digits.shape, latent_dim=latent_dim, hidden_dims=[200])
    vae.initialize(digits.train)
    pyro_vae.fit(vae, digits.train, draw=digits.draw, epochs=args.epochs, batch_size=50, lr=2e-3, seed=0)
    return vae


# With more latent dimensions than it needs, a VAE leaves some alone: there q(z|x) is the prior, and the KL is 0.
# A dimension counts as active if the mean of q(z|x) varies with x, by more than 0.01 (Burda et al. 2016).
vae = train(20)
latents = encode(vae, x)
print(f"20 dimensions: KL {latents.kl.mean():.2f} nats per digit, {int(latents.active.sum())} dimensions are active")
for j in latents.order[:8]:
    print(
        f"  z{j + 1:<3} KL {latents.kl_per_dimension[:, j].mean():.3f}   variance of E[z|x] {latents.variance[j]:.3f}"
    )

# A path between two digits passes through others. The straight one cuts across towards the middle of the prior, where
# in many dimensions few of its draws are, and the pictures lose contrast; the spherical one keeps its distance.
a, b = x[labels == 4][:5], x[labels == 7][:5]
for path in ("linear", "spherical"):
    distance = interpolate(vae, a, b, path=path).z.norm(dim=-1).mean(1)
    print(f"{path:10} distance of z from 0: {distance[0]:.2f} at the start, {distance[5]:.2f} halfway")
walks = interpolate(vae, a, b, path="spherical").x.transpose(0, 1)  # (5, 11, 64)
plotting.image_rows(
    torch.cat([a[:, None], walks, b[:, None]], 1).unflatten(-1, (8, 8)).numpy(),
    args.out / "interpolation.png",
    row_names=[""] * len(a),
    column_names=["from", *(f"{t / 10:g}" for t in range(11)), "to"],
    title="from 4 to 7",
    apart=(0, 11),
)

# The temperature scales the spread of z: with less, samples are more alike, and nearer to the typical digit.
for temperature in (0.5, 1.0, 1.5):
    made = sample(vae, 500, temperature=temperature, mean=True, seed=0).x
    print(f"temperature {temperature}: standard deviation of a pixel's mean over samples {made.std(0).mean():.3f}")

# With two dimensions all of it can be seen at once.
vae = train(2)
latents, grid = encode(vae, x), manifold(vae, 15)
error = (reconstruct(vae, x).x - x).square().mean().sqrt()
print(f"2 dimensions: KL {latents.kl.mean():.2f} nats per digit, root mean square error of a pixel {error:.3f}")
plotting.image_plane(
    grid.x.unflatten(-1, (8, 8)).numpy(),
    args.out / "manifold.png",
    across=grid.z[0, :, 0].numpy(),
    up=grid.z[:, 0, 1].numpy(),
    title="E[x|z] over the latent plane",
)
plotting.latent_map(
    latents.loc.numpy(),
    args.out / "map.png",
    axes_names=("z1", "z2"),
    labels=labels.numpy(),
    use=latents.kl_per_dimension.mean(0).numpy(),
    use_name="KL of one dimension, nats per digit",
    active=latents.active.numpy(),
    title="test digits in the latent space",
)
print("saved", *(args.out / f"{name}.png" for name in ("interpolation", "manifold", "map")))
