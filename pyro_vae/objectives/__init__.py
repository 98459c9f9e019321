"""Bounds on log P(X) that Pyro lacks, for any model and guide with one data plate: a file for each.

They plug into ``SVI(model, guide, optim, loss=...)`` for any Pyro program whose sample sites are all in the plate and
can be reparameterised.
"""

from pyro_vae.objectives.closed_form import check_closed_forms, require_closed_form
from pyro_vae.objectives.importance_weighted import ImportanceWeightedELBO
from pyro_vae.objectives.kl_weighted import KLWeightedELBO
from pyro_vae.objectives.per_datum import PerDatumELBO
from pyro_vae.objectives.terms import elbo_terms

__all__ = [
    "ImportanceWeightedELBO",
    "KLWeightedELBO",
    "PerDatumELBO",
    "check_closed_forms",
    "elbo_terms",
    "require_closed_form",
]
