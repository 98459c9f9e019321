"""Priors p(z), one file each."""

from pyro_vae.priors.flow_prior import FlowPrior as FlowPrior
from pyro_vae.priors.gaussian_mixture import GaussianMixture as GaussianMixture
from pyro_vae.priors.standard_normal import StandardNormal as StandardNormal
from pyro_vae.priors.student_t import StudentT as StudentT
from pyro_vae.priors.vamp_prior import VampPrior as VampPrior
