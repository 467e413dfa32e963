"""How alike two sets of paired rows lie: pure functions on two arrays, x (n, d_a) against y (n, d_b)."""

from unifeat.geometry._cka import cka, prepare_cka
from unifeat.geometry._rsa import prepare_rsa, rsa
from unifeat.geometry._svcca import prepare_svcca, svcca
from unifeat.geometry.measure import Invariance, Measure, Prepared, Variant
from unifeat.geometry.score import Score

_RIGID: frozenset[Invariance] = frozenset({"orthogonal", "isotropic_scaling", "row_permutation"})
_SIMILARITY: frozenset[Invariance] = _RIGID | {"translation"}

# The measures there are, with what each declares to ignore; the property tests are made from this table.
MEASURES: dict[str, Measure] = {
    "svcca": Measure(
        "svcca",
        svcca,
        prepare_svcca,
        (
            # Every component kept is plain CCA; cutting components makes the choice depend on their lengths.
            Variant({"dims": None, "variance": 1.0}, _SIMILARITY | {"invertible_linear"}),
            Variant({}, _SIMILARITY),
        ),
    ),
    "rsa": Measure(
        "rsa",
        rsa,
        prepare_rsa,
        (
            Variant({"inner": "cosine"}, _RIGID),
            Variant({"inner": "euclidean"}, _SIMILARITY),
            Variant({"inner": "pearson"}, frozenset({"isotropic_scaling", "row_permutation"})),
        ),
    ),
    "cka": Measure("cka", cka, prepare_cka, (Variant({}, _SIMILARITY),)),
}

__all__ = ["MEASURES", "Measure", "Prepared", "Score", "Variant", "cka", "rsa", "svcca"]
