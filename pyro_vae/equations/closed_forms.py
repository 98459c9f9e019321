"""The derivation's closed forms, by hand and without Pyro: the independent witness of everything else.

Densities and divergences sum over the last dimension, so each returns one number per datum,
in nats. A scale is a standard deviation.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def reparameterize(loc: Tensor, scale: Tensor, eps: Tensor) -> Tensor:
    r"""Move standard normal noise to N(loc, scale²), keeping the path to both differentiable.

    .. math:: z = \mu + \sigma \odot \epsilon, \quad \epsilon \sim N(0, I)

    Args:
        loc: :math:`\mu`, (..., Z).
        scale: :math:`\sigma`, (..., Z), positive.
        eps: :math:`\epsilon`, (..., Z).

    Returns:
        z, (..., Z).

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, section 2.4.

    Example:
        >>> reparameterize(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([0.5]))
        tensor([2.])
    """
    return loc + scale * eps


def log_normal(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    r"""The log-density of a Gaussian with a diagonal covariance.

    .. math:: \log N(z; \mu, \mathrm{diag}\,\sigma^2)
              = -\tfrac12 \sum_j \Big[ \frac{(z_j - \mu_j)^2}{\sigma_j^2} + \log \sigma_j^2 + \log 2\pi \Big]

    Args:
        z: Where, (..., Z).
        loc: :math:`\mu`, (..., Z).
        scale: :math:`\sigma`, (..., Z), positive.

    Returns:
        Log-density, (...), in nats.

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, equation 9.

    Example:
        >>> log_normal(torch.zeros(2), torch.zeros(2), torch.ones(2))  # -log 2π
        tensor(-1.8379)
    """
    return -0.5 * (((z - loc) / scale).square() + scale.square().log() + math.log(2 * math.pi)).sum(-1)


def kl_standard_normal(loc: Tensor, scale: Tensor) -> Tensor:
    r"""KL[N(loc, scale²) || N(0, I)].

    .. math:: KL[N(\mu, \mathrm{diag}\,\sigma^2) \,\|\, N(0, I)]
              = \tfrac12 \sum_j \big( \mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2 \big)

    Args:
        loc: :math:`\mu`, (..., Z).
        scale: :math:`\sigma`, (..., Z), positive.

    Returns:
        Divergence, (...), in nats.

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, appendix B.

    Example:
        >>> kl_standard_normal(torch.ones(3), torch.ones(3))
        tensor(1.5000)
    """
    return 0.5 * (loc.square() + scale.square() - 1 - scale.square().log()).sum(-1)


def kl_diagonal_normals(loc_q: Tensor, scale_q: Tensor, loc_p: Tensor, scale_p: Tensor) -> Tensor:
    r"""KL between two Gaussians with diagonal covariances.

    .. math:: KL[q \,\|\, p] = \tfrac12 \sum_j \Big( \frac{(\mu_{q,j} - \mu_{p,j})^2}{\sigma_{p,j}^2}
              + \frac{\sigma_{q,j}^2}{\sigma_{p,j}^2} - 1 - \log \frac{\sigma_{q,j}^2}{\sigma_{p,j}^2} \Big)

    Args:
        loc_q: :math:`\mu_q`, (..., Z).
        scale_q: :math:`\sigma_q`, (..., Z), positive.
        loc_p: :math:`\mu_p`, (..., Z).
        scale_p: :math:`\sigma_p`, (..., Z), positive.

    Returns:
        Divergence, (...), in nats.

    Reference:
        Doersch (2016), Tutorial on Variational Autoencoders, equation 6, for diagonal covariances.

    Example:
        >>> kl_diagonal_normals(torch.ones(3), torch.ones(3), torch.zeros(3), torch.ones(3))
        tensor(1.5000)
    """
    ratio = (scale_q / scale_p).square()
    return 0.5 * (((loc_q - loc_p) / scale_p).square() + ratio - 1 - ratio.log()).sum(-1)


def kl_normals(loc_q: Tensor, cov_q: Tensor, loc_p: Tensor, cov_p: Tensor) -> Tensor:
    r"""KL between two Gaussians with any covariances.

    .. math:: KL[q \,\|\, p] = \tfrac12 \Big( (\mu_p - \mu_q)^T \Sigma_p^{-1} (\mu_p - \mu_q)
              + \mathrm{tr}\, \Sigma_p^{-1} \Sigma_q - Z - \log \frac{\det \Sigma_q}{\det \Sigma_p} \Big)

    Args:
        loc_q: :math:`\mu_q`, (..., Z).
        cov_q: :math:`\Sigma_q`, (..., Z, Z).
        loc_p: :math:`\mu_p`, (..., Z).
        cov_p: :math:`\Sigma_p`, (..., Z, Z).

    Returns:
        Divergence, (...), in nats.

    Reference:
        Doersch (2016), Tutorial on Variational Autoencoders, equation 6.

    Example:
        >>> kl_normals(torch.ones(3), torch.eye(3), torch.zeros(3), torch.eye(3))
        tensor(1.5000)
    """
    delta = loc_p - loc_q
    precision = cov_p.inverse()
    mahalanobis = torch.einsum("...i,...ij,...j->...", delta, precision, delta)
    trace = torch.einsum("...ij,...ji->...", precision, cov_q)
    return 0.5 * (mahalanobis + trace - loc_q.shape[-1] - cov_q.logdet() + cov_p.logdet())


def binary_cross_entropy(probs: Tensor, x: Tensor) -> Tensor:
    r"""The negative log-likelihood of Bernoulli pixels.

    .. math:: BCE(p, x) = -\sum_d x_d \log p_d + (1 - x_d) \log(1 - p_d)

    Args:
        probs: :math:`p`, (..., D), in [0, 1]: the decoder's output after its sigmoid.
        x: Data, (..., D), in [0, 1].

    Returns:
        Cross-entropy, (...), in nats.

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, equation 11.

    Example:
        >>> binary_cross_entropy(torch.full((4,), 0.5), torch.ones(4))  # 4 log 2
        tensor(2.7726)
    """
    return -(torch.xlogy(x, probs) + torch.xlogy(1 - x, 1 - probs)).sum(-1)


def article_loss(probs: Tensor, x: Tensor, loc: Tensor, log_var: Tensor) -> Tensor:
    r"""The negative ELBO as the article's PyTorch code sums it, over pixels and over the batch.

    .. math:: BCE + KLD = \sum_i BCE(p_i, x_i)
              - \tfrac12 \sum_{i,j} \big( 1 + \log \sigma_{ij}^2 - \mu_{ij}^2 - \sigma_{ij}^2 \big)

    With p computed from one reparameterised z for each datum, it is an unbiased estimate of
    the negative ELBO of the batch.

    Args:
        probs: The decoder's output after its sigmoid, (B, D), in [0, 1].
        x: Data, (B, D), in [0, 1].
        loc: The encoder's :math:`\mu`, (B, Z).
        log_var: The encoder's :math:`\log \sigma^2`, (B, Z).

    Returns:
        Loss of the batch, (), in nats.

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, equation 10.

    Example:
        >>> x, loc, log_var = torch.ones(1, 4), torch.ones(1, 3), torch.zeros(1, 3)
        >>> article_loss(torch.full((1, 4), 0.5), x, loc, log_var)  # 4 log 2 + 3 / 2
        tensor(4.2726)
    """
    bce = binary_cross_entropy(probs, x).sum()
    kld = -0.5 * (1 + log_var - loc.square() - log_var.exp()).sum()
    return bce + kld


@dataclass(frozen=True)
class LinearGaussian:
    r"""The VAE whose every term is known: probabilistic principal component analysis.

    .. math:: z \sim N(0, I), \quad x \mid z \sim N(W z + b, \mathrm{diag}\,\sigma^2)

    Attributes:
        weight: W, (D, Z).
        bias: b, (D,).
        scale: :math:`\sigma`, (D,), positive.

    Reference:
        Tipping & Bishop (1999), Probabilistic Principal Component Analysis, section 3.

    Example:
        >>> model = LinearGaussian(torch.tensor([[2.0], [0.0]]), torch.zeros(2), torch.ones(2))
        >>> x = torch.tensor([[1.0, 1.0]])
        >>> loc, cov = model.posterior(x)
        >>> loc, cov
        (tensor([[0.4000]]), tensor([[0.2000]]))
        >>> model.log_evidence(x), model.elbo(x, loc, cov)  # the bound is tight at the posterior
        (tensor([-3.2426]), tensor([-3.2426]))
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor

    def log_evidence(self, x: Tensor) -> Tensor:
        r""":math:`\log P(x) = \log N(x;\; b,\; W W^T + \mathrm{diag}\,\sigma^2)`, (B,), in nats, for x of (B, D)."""
        cov = self.weight @ self.weight.T + self.scale.square().diag()
        delta = x - self.bias
        mahalanobis = torch.einsum("...i,ij,...j->...", delta, cov.inverse(), delta)
        return -0.5 * (mahalanobis + cov.logdet() + len(cov) * math.log(2 * math.pi))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""The mean, (B, Z), and the covariance, (Z, Z), of P(z|x), for x of (B, D).

        .. math:: \Sigma^{-1} = I + W^T \mathrm{diag}(\sigma^{-2}) W, \quad
                  \mu = \Sigma W^T \mathrm{diag}(\sigma^{-2}) (x - b)
        """
        weighted = self.weight / self.scale.square().unsqueeze(-1)  # (D, Z)
        precision = torch.eye(self.weight.shape[-1]).to(weighted) + self.weight.T @ weighted
        cov = precision.inverse()
        return (x - self.bias) @ weighted @ cov, cov

    def expected_log_likelihood(self, x: Tensor, loc: Tensor, cov: Tensor) -> Tensor:
        r"""E[log P(x|z)] for z ~ N(loc, cov), (B,), in nats.

        .. math:: E[\log P(x|z)] = \log N(x;\; W\mu + b,\; \mathrm{diag}\,\sigma^2)
                  - \tfrac12 \sum_d \frac{(W \Sigma W^T)_{dd}}{\sigma_d^2}

        Args:
            x: Data, (B, D).
            loc: :math:`\mu`, (B, Z).
            cov: :math:`\Sigma`, (B, Z, Z) or (Z, Z).
        """
        spread = torch.einsum("di,...ij,dj->...d", self.weight, cov, self.weight)
        return log_normal(x, loc @ self.weight.T + self.bias, self.scale) - 0.5 * (spread / self.scale.square()).sum(-1)

    def elbo(self, x: Tensor, loc: Tensor, cov: Tensor) -> Tensor:
        r"""E[log P(x|z)] - KL[N(loc, cov) || N(0, I)], (B,), in nats.

        Args:
            x: Data, (B, D).
            loc: :math:`\mu`, (B, Z).
            cov: :math:`\Sigma`, (B, Z, Z) or (Z, Z).
        """
        kl = kl_normals(loc, cov, torch.zeros_like(loc), torch.eye(loc.shape[-1]).to(cov))
        return self.expected_log_likelihood(x, loc, cov) - kl
