"""Likelihoods p(x|z), one file each."""

from pyro_vae.likelihoods.bernoulli import Bernoulli as Bernoulli
from pyro_vae.likelihoods.beta_binomial import BetaBinomial as BetaBinomial
from pyro_vae.likelihoods.binomial import Binomial as Binomial
from pyro_vae.likelihoods.bits import bits_per_dimension as bits_per_dimension
from pyro_vae.likelihoods.categorical import Categorical as Categorical
from pyro_vae.likelihoods.columns import Columns as Columns
from pyro_vae.likelihoods.continuous_bernoulli import ContinuousBernoulli as ContinuousBernoulli
from pyro_vae.likelihoods.discretized_logistic import DiscretizedLogistic as DiscretizedLogistic
from pyro_vae.likelihoods.discretized_logistic_mixture import DiscretizedLogisticMixture as DiscretizedLogisticMixture
from pyro_vae.likelihoods.gaussian import Gaussian as Gaussian
from pyro_vae.likelihoods.laplace import Laplace as Laplace
from pyro_vae.likelihoods.negative_binomial import NegativeBinomial as NegativeBinomial
from pyro_vae.likelihoods.poisson import Poisson as Poisson
from pyro_vae.likelihoods.warped_logistic import WarpedLogistic as WarpedLogistic
