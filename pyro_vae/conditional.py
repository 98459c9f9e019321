"""The conditional variational auto-encoder, P(X | Y), with labels that may be unknown."""

from collections.abc import Collection
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.base import Encoder, Likelihood, Prior
from pyro_vae.data.labels import UNKNOWN
from pyro_vae.distributions.location import location
from pyro_vae.networks import AppendLabel, with_label
from pyro_vae.priors.given_label import PriorGivenLabel, PriorOfAll
from pyro_vae.vae import VAE

PLACES = ("encoder", "decoder", "prior")


class ConditionalVAE(VAE):
    r"""A variational auto-encoder of data with labels, y = 0 … C - 1.

    .. math:: y \sim p(y), \quad z \sim p(z|y), \quad x \sim p(x \mid \mathrm{decoder}(z, y)); \qquad
              q(z|x, y), \quad q(y|x)

    Each of encoder, decoder and prior may look at the label or not. ``model(x, y)`` and ``guide(x, y)`` are an ordinary
    Pyro pair with the latent site "z", so that what is computed on a pair gives log P(X, Y). Without labels,
    ``model(x)`` and ``guide(x)`` have "y" as a latent site as well.

    Where the label is in the prior alone, z tells all that x does about y: :math:`q(y|x, z) = p(y|z)`, and there is
    no classifier to learn. The prior is then a mixture with a part for each class, and ``y`` may be -1, unknown, for
    some data: then it is that of all classes, :math:`p(z) = \sum_c p(c) p(z|c)`.

    Args:
        prior: p(z), or :class:`PriorGivenLabel`.
        encoder: q(z|x), or q(z|x, y) from x and the label as C numbers 0 or 1 behind it, (..., D + C).
        decoder: Maps z, or z with the label behind it, (..., z_dim + C), to the likelihood's raw parameters.
        likelihood: p(x|z, y).
        num_classes: C.
        label_in: Which of "encoder", "decoder" and "prior" look at the label.
        classifier: Maps x to the logits of q(y|x), (..., C); None where the label is in the prior alone.
        missing: The data may have blanks (NaN), as for :class:`pyro_vae.VAE`.

    Attributes:
        class_probs: p(y), (C,): equal at first, then as often as ``initialize`` saw each label.

    Reference:
        Kingma, Rezende, Mohamed & Welling (2014), Semi-supervised Learning with Deep Generative Models, equations 2
        and 4 (model M2); Sohn, Lee & Yan (2015), Learning Structured Output Representation, for p(z|y); with the
        label in the prior alone, Jiang et al. (2017), Variational Deep Embedding, section 3.1.

    Example:
        >>> from pyro_vae import build, log_evidence
        >>> vae = build((1, 4, 4), latent_dim=2, num_classes=3)
        >>> x, y = torch.zeros(5, 16), torch.tensor([0, 1, 2, 0, 1])
        >>> log_evidence(vae.model, vae.guide, (x, y), num_samples=10).log_evidence.shape  # log P(X, Y)
        torch.Size([5])
        >>> vae.given(2).sample(3).shape  # an ordinary VAE: P(X | Y = 2)
        torch.Size([3, 16])
    """

    class_probs: Tensor

    def __init__(
        self,
        *,
        prior: "Prior | PriorGivenLabel",
        encoder: Encoder,
        decoder: nn.Module,
        likelihood: Likelihood,
        num_classes: int,
        label_in: Collection[str] = ("encoder", "decoder"),
        classifier: nn.Module | None = None,
        missing: bool = False,
    ):
        prior_alone = set(label_in) == {"prior"}
        if not set(label_in) & {"decoder", "prior"} or not set(label_in) <= set(PLACES):
            raise ValueError(f"label_in: expected decoder or prior or both, and maybe encoder, got {list(label_in)}")
        if (classifier is None) != prior_alone:
            raise ValueError("classifier: expected one, except where the label is in the prior alone")
        super().__init__(
            prior=cast(Prior, prior), encoder=encoder, decoder=decoder, likelihood=likelihood, missing=missing
        )
        self.classifier = classifier
        self.num_classes, self.label_in = num_classes, tuple(label_in)
        self.register_buffer("class_probs", torch.full((num_classes,), 1 / num_classes))

    def model(self, x: Tensor | None = None, y: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(x, y, z): sample y, z and x, or condition on ``x``, (B, D), or ``y``, (B,), or both."""
        self._register("prior", "decoder", "likelihood")
        size = next((len(given) for given in (x, y) if given is not None), size)
        with pyro.plate("data", size, dim=-1):
            y = self._label(y)
            z = pyro.sample("z", self.prior_given(y))
            p = self.likelihood(self.decoder(self._for("decoder", z, y)))
            if self.missing and x is not None:
                p, x = self.likelihood.observed_part(p, ~x.isnan()), self.likelihood.fill(x)
            return pyro.sample("x", p, obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """q(z|x, y) for each row of ``x``, (B, D), and its label, (B,); without labels also q(y|x), or p(y|z)."""
        self._register("encoder")
        if self.classifier is not None:
            self._register("classifier")
        with pyro.plate("data", len(x), dim=-1):
            if y is None and self.classifier is not None:
                y = pyro.sample("y", dist.Categorical(logits=self.classifier(x)))
            z = pyro.sample("z", self.encoder(x if y is None else self._for("encoder", x, y)))
            if y is None:
                pyro.sample("y", dist.Categorical(logits=self._logits_at(z)))
            return z

    def _label(self, y: Tensor | None) -> Tensor:
        p = dist.Categorical(self.class_probs)
        if y is None or self.classifier is not None:
            return pyro.sample("y", p, obs=y)
        # What only the prior looks at may be unknown: it is then summed out there.
        pyro.sample("y", p.mask(y != UNKNOWN), obs=y.clamp(min=0))
        return y

    def class_logits(self, x: Tensor) -> Tensor:
        """Return the logits of q(y|x), (..., C); without a classifier those of p(y|z) at one draw of z ~ q(z|x)."""
        return self._logits_at(self.encoder(x).rsample()) if self.classifier is None else self.classifier(x)

    def prior_given(self, y: Tensor) -> dist.TorchDistribution:
        """Return p(z|y), or p(z) where y is unknown, with the batch shape of y; () if the prior does not look at it."""
        if not isinstance(self.prior, PriorGivenLabel):
            return self.prior()
        known = torch.eye(self.num_classes, dtype=self.class_probs.dtype, device=y.device).log()[y]
        return self.prior(torch.where((y == UNKNOWN)[..., None], self.class_probs.log(), known))

    def given(self, label: int) -> VAE:
        """Return p(x, z | y) for one label as an ordinary VAE. It has the same weights, not copies of them.

        Raises:
            ValueError: If there is no such label.
        """
        if not 0 <= label < self.num_classes:
            raise ValueError(f"label: expected one of the classes 0 to {self.num_classes - 1}, got {label}")
        append = AppendLabel(torch.tensor(label, device=self.class_probs.device), self.num_classes)
        vae = VAE(
            prior=cast(Prior, self.prior.priors[label]) if isinstance(self.prior, PriorGivenLabel) else self.prior,
            encoder=cast(Encoder, nn.Sequential(append, self.encoder)) if "encoder" in self.label_in else self.encoder,
            decoder=nn.Sequential(append, self.decoder) if "decoder" in self.label_in else self.decoder,
            likelihood=self.likelihood,
            missing=self.missing,
        )
        vae.config, vae.label = self.config, label
        return vae.train(self.training)

    def summed_out(self) -> VAE | None:
        r"""Return :math:`p(x, z) = \sum_y p(x, y, z)` as an ordinary VAE, with the same weights.

        That is one whose prior is a mixture over the classes, :math:`p(z) = \sum_c p(c) p(z|c)`. None where the
        encoder or the decoder needs the label.
        """
        if not isinstance(self.prior, PriorGivenLabel) or self.label_in != ("prior",):
            return None
        vae = VAE(
            prior=cast(Prior, PriorOfAll(self.prior, self.class_probs)),
            encoder=self.encoder,
            decoder=self.decoder,
            likelihood=self.likelihood,
            missing=self.missing,
        )
        vae.config = self.config
        return vae.train(self.training)

    @torch.no_grad()
    def initialize(self, x: Tensor, y: Tensor | None = None) -> None:
        """Set starting values from the training data ``x``, (N, D), and p(y) from the labels ``y``, (N,).

        :math:`p(y = c) = (n_c + 1) / (n + C)`, of the n known ones, so that no class is impossible.
        """
        super().initialize(x)
        if y is not None:
            self.check_labels(y)
            counts = torch.bincount(y[y != UNKNOWN], minlength=self.num_classes) + 1
            self.class_probs.copy_(counts / counts.sum())

    def check_labels(self, y: Tensor) -> None:
        """Refuse labels, (N,), that are neither classes nor unknown (-1).

        Raises:
            ValueError: Naming what was expected and what came.
        """
        wrong = (y < UNKNOWN) | (y >= self.num_classes)
        if y.is_floating_point() or wrong.any():
            came = y[wrong][0].item() if wrong.any() else y.dtype
            raise ValueError(f"y: expected classes 0 to {self.num_classes - 1}, or -1 if unknown, got {came}")

    @torch.no_grad()
    def sample(self, num: int, *, y: Tensor | None = None, mean: bool = False) -> Tensor:
        """Return ``num`` new data, (num, D), with labels ``y``, (num,), or drawn from p(y)."""
        y = dist.Categorical(self.class_probs).sample((num,)) if y is None else y
        z = self.prior_given(y).expand((num,)).sample()
        return self._decode(self._for("decoder", z, y), mean)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None, *, mean: bool = True) -> Tensor:
        """Return data like ``x``, (B, D), as a VAE does, with the likeliest label of q(y|x) if none is given."""
        x = self.rows(x)
        y = self.class_logits(x).argmax(-1) if y is None else y
        q = self.encoder(self._for("encoder", x, y))
        return self._decode(self._for("decoder", location(q) if mean else q.sample(), y), mean)

    def _for(self, part: str, v: Tensor, y: Tensor) -> Tensor:
        """Return what a part looks at: v, with the label behind it where it is told the label."""
        return with_label(v, y, self.num_classes) if part in self.label_in else v

    def _logits_at(self, z: Tensor) -> Tensor:
        """Return log p(y) + log p(z|y) of each class, (..., C)."""
        return self.prior(self.class_probs.log()).joint(z)
