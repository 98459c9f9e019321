"""What a trained model is used for: one duty each, for any Pyro model and guide with one data plate."""

from pyro_vae.inference.augment import augment
from pyro_vae.inference.classify import Classes, ClassScores, classify, score_classes
from pyro_vae.inference.columns import ColumnScores, score_columns
from pyro_vae.inference.diagnose import diagnose
from pyro_vae.inference.generate import Decoded, decode, reconstruct, sample, tempered
from pyro_vae.inference.gibbs import gibbs
from pyro_vae.inference.given import Conditioned, sample_given
from pyro_vae.inference.impute import Imputation, MissingLogProb, impute, log_prob_missing
from pyro_vae.inference.latent import Latents, encode
from pyro_vae.inference.score import Scores, auroc, conformal_p_value, join_scores, score
from pyro_vae.inference.tables import Comparison, compare_tables
from pyro_vae.inference.walks import interpolate, manifold, traverse

__all__ = [
    "ClassScores",
    "Classes",
    "ColumnScores",
    "Comparison",
    "Conditioned",
    "Decoded",
    "Imputation",
    "Latents",
    "MissingLogProb",
    "Scores",
    "augment",
    "auroc",
    "classify",
    "compare_tables",
    "conformal_p_value",
    "decode",
    "diagnose",
    "encode",
    "gibbs",
    "impute",
    "interpolate",
    "join_scores",
    "log_prob_missing",
    "manifold",
    "reconstruct",
    "sample",
    "sample_given",
    "score",
    "score_classes",
    "score_columns",
    "tempered",
    "traverse",
]
