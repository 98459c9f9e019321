"""Bounds on log P(X) that Pyro lacks, for any model and guide with one data plate."""

from pyro_vae.objectives.per_datum import (
    ImportanceWeightedELBO,
    KLWeightedELBO,
    PerDatumELBO,
    check_objective,
    elbo_terms,
    require_closed_form,
)

__all__ = [
    "ImportanceWeightedELBO",
    "KLWeightedELBO",
    "PerDatumELBO",
    "check_objective",
    "elbo_terms",
    "require_closed_form",
]
