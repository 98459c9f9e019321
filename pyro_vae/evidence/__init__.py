"""log P(X): importance sampling, better proposals, annealed and exact references."""

from pyro_vae.evidence.ais import Bidirectional, ais, bidirectional
from pyro_vae.evidence.arviz import to_arviz
from pyro_vae.evidence.exact import LinearGaussian, quadrature
from pyro_vae.evidence.gaussian import GaussianProposal, laplace, refined
from pyro_vae.evidence.importance import log_evidence, log_weights
from pyro_vae.evidence.latents import prior
from pyro_vae.evidence.pareto import khat, khat_threshold
from pyro_vae.evidence.proposal import Defensive, Laplace, Proposal, Refined, Widened
from pyro_vae.evidence.proposals import defensive, widened
from pyro_vae.evidence.quasi import quasi_random
from pyro_vae.evidence.result import Evidence, from_log_weights

__all__ = [
    "Bidirectional",
    "Defensive",
    "Evidence",
    "GaussianProposal",
    "Laplace",
    "LinearGaussian",
    "Proposal",
    "Refined",
    "Widened",
    "ais",
    "bidirectional",
    "defensive",
    "from_log_weights",
    "khat",
    "khat_threshold",
    "laplace",
    "log_evidence",
    "log_weights",
    "prior",
    "quadrature",
    "quasi_random",
    "refined",
    "to_arviz",
    "widened",
]
