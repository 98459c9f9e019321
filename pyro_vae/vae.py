"""The variational auto-encoder as a Pyro program: a model and its guide."""

import itertools
import math
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.base import Config, Encoder, Likelihood, Prior, fill_from_column
from pyro_vae.data.arrays import Array, to_rows
from pyro_vae.distributions.location import location, middle
from pyro_vae.networks import Standardize

_counter = itertools.count()


class _UniqueName(str):
    """A name that a copy of its owner does not share, since Pyro's parameter names are global."""

    def __new__(cls) -> "_UniqueName":
        return super().__new__(cls, f"vae{next(_counter)}")

    def __deepcopy__(self, memo: dict) -> "_UniqueName":
        return _UniqueName()

    def __reduce__(self) -> tuple:
        return _UniqueName, ()


class VAE(nn.Module):
    r"""A variational auto-encoder.

    .. math:: z \sim p(z), \quad x \sim p(x \mid \mathrm{decoder}(z)), \quad q(z|x) \approx p(z|x)

    ``model`` and ``guide`` are an ordinary Pyro pair, for ``SVI``, Pyro's handlers and
    everything in this package. Data are independent: sites "z" and "x" in plate "data".

    Args:
        prior: p(z).
        encoder: q(z|x).
        decoder: Maps z, (..., z_dim), to the likelihood's raw parameters, (..., D, P).
        likelihood: p(x|z), with P parameters for each of the D elements of a datum.
        missing: The data may have blanks (NaN): the model is then that of the observed elements,
            :math:`p(z) \prod_{d\ \mathrm{observed}} p(x_d|z)`, and the encoder has to take blanks.

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes; with blanks, Mattei & Frellsen (2019), MIWAE:
        Deep Generative Modelling and Imputation of Incomplete Data Sets, section 2.

    Example:
        >>> from pyro_vae.encoders import DiagonalNormal
        >>> from pyro_vae.likelihoods import Bernoulli
        >>> from pyro_vae.networks import mlp
        >>> from pyro_vae.priors import StandardNormal
        >>> vae = VAE(
        ...     prior=StandardNormal(z_dim=2),
        ...     encoder=DiagonalNormal(mlp(784, [400], 2 * 2)),
        ...     decoder=mlp(2, [400], (784, 1)),
        ...     likelihood=Bernoulli(),
        ... )
        >>> vae.sample(3).shape
        torch.Size([3, 784])
    """

    def __init__(
        self, *, prior: Prior, encoder: Encoder, decoder: nn.Module, likelihood: Likelihood, missing: bool = False
    ):
        super().__init__()
        self.prior = prior
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.missing = missing
        self.config = Config()  # how `build` made it
        self.label: int | None = None  # the class that it is the model of, as part of a conditional one
        self.initialized = False  # whether its weights are more than those that its parts were built with
        self._name = _UniqueName()

    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(x, z): sample z and x, or condition on ``x``, (B, D); without x, generate ``size`` data."""
        self._register("prior", "decoder", "likelihood")
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            p = self.likelihood(self.decoder(z))
            if self.missing and x is not None:
                p, x = self.likelihood.observed_part(p, ~x.isnan()), self.likelihood.fill(x)
            return pyro.sample("x", p, obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """q(z|x): sample z for each row of ``x``, (B, D)."""
        self._register("encoder")
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.encoder(x))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set starting values from the training data ``x``, (N, D): the decoder's output starts at its marginals."""
        self.initialized = True
        with_blanks, x = x, fill_from_column(x) if self.missing else x
        self.prior.initialize(x)
        self.likelihood.initialize(with_blanks if self.likelihood.takes_blanks else x)
        for module in self.modules():
            if isinstance(module, Standardize):
                module.initialize(x)
        raw = self.likelihood.initial_raw(x)
        bias = [p for name, p in self.decoder.named_parameters() if name.endswith("bias")][-1:]
        if raw is not None and bias and bias[0].numel() == raw.numel():
            bias[0].copy_(raw.reshape(bias[0].shape))

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Take up weights, as of any module; the starting values are then no longer to be set."""
        self.initialized = True
        return super().load_state_dict(*args, **kwargs)

    def rows(self, x: Array, name: str = "x") -> Tensor:
        """Return data, such as an array of images, as rows (N, D) of the VAE's own dtype and on its device.

        Args:
            x: A tensor, an array or a data frame of numbers, (N, D), (N, H, W) or (N, C, H, W); of a model of a table
                also a data frame with its columns.
            name: The argument's, for messages.

        Raises:
            ValueError: If it is something else, or its rows are of another width than the VAE's data.
        """
        own = next(self.parameters())
        if self.config.table is not None and hasattr(x, "columns"):
            return self.config.table.encode(x).to(own.device, own.dtype)
        rows = to_rows(name, x).to(own.device, own.dtype)
        width = math.prod(self.config.x_shape) if self.config.x_shape else rows.shape[1]
        if rows.shape[1] != width:
            shape = "x".join(str(size) for size in self.config.x_shape)
            came = tuple(getattr(x, "shape", rows.shape))
            raise ValueError(f"{name}: expected rows of {width} numbers each ({shape}), got shape {came}")
        return rows

    def check(self, x: Tensor) -> None:
        """Refuse data, (N, D), that the likelihood does not accept; blanks (NaN) only where ``missing`` is set.

        Raises:
            ValueError: Naming the likelihood, what it accepts, what came, and what would fit.
        """
        self.likelihood.check(self.likelihood.fill(x) if self.missing else x)

    @torch.no_grad()
    def sample(self, num: int, *, mean: bool = False) -> Tensor:
        """Return ``num`` new data, (num, D), from z ~ p(z): draws of x, or their means E[x|z].

        Categories have no mean: of these it is the most probable one, also in ``reconstruct``.
        """
        return self._decode(self.prior().expand((num,)).sample(), mean)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, mean: bool = True) -> Tensor:
        """Return data like ``x``, (B, D): the means E[x|z] at z = E_q[z], or draws of x at a draw of z ~ q(z|x)."""
        q = self.encoder(self.rows(x))
        return self._decode(location(q) if mean else q.sample(), mean)

    def _decode(self, z: Tensor, mean: bool) -> Tensor:
        p = self.likelihood(self.decoder(z))
        return middle(p) if mean else p.sample()

    def _register(self, *parts: str) -> None:
        for part in parts:
            pyro.module(f"{self._name}.{part}", getattr(self, part))
