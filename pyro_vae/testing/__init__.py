"""The contracts of a prior, an encoder, a likelihood and an objective, for a part of your own.

Each function builds small models around the part and returns nothing if it keeps its contract. Otherwise it raises an
``AssertionError`` whose one sentence names the part, what was expected and what came. So it is a whole test:

    def test_my_prior():
        check_prior(MyPrior, scale=0.5)

The part is given as a class with its options, in which the sizes are filled in as :func:`pyro_vae.build` does, as a
function of some of these sizes that makes it, or as an instance, of which a copy is checked. A class or a function says
more, since the part is then also built anew.
"""

from pyro_vae.testing.objectives import check_objective
from pyro_vae.testing.parts import check_encoder, check_likelihood, check_prior

__all__ = ["check_encoder", "check_likelihood", "check_objective", "check_prior"]
