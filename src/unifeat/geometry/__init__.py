"""How alike two geometries of paired rows are: pure functions on two arrays, x (n, d_a) against y (n, d_b)."""

from collections.abc import Mapping
from typing import Any

from unifeat.geometry._cka import cka, prepare_cka
from unifeat.geometry._heldout_cca import heldout_cca, prepare_heldout_cca
from unifeat.geometry._mean_max_cosine import mean_max_cosine, prepare_mean_max_cosine
from unifeat.geometry._mutual_knn import mutual_knn, prepare_mutual_knn
from unifeat.geometry._procrustes import prepare_procrustes, procrustes
from unifeat.geometry._pwcca import prepare_pwcca, pwcca
from unifeat.geometry._ridge_map import prepare_ridge_map, ridge_map
from unifeat.geometry._rsa import prepare_rsa, rsa
from unifeat.geometry._svcca import prepare_svcca, svcca
from unifeat.geometry.measure import Invariance, Measure, Prepared, Variant
from unifeat.geometry.score import Score

_ROTATION_AND_SCALE: frozenset[Invariance] = frozenset({"orthogonal", "isotropic_scaling", "row_permutation"})
_SIMILARITY: frozenset[Invariance] = _ROTATION_AND_SCALE | {"translation"}
# Pairs are held out by position, so reordering the rows of both sides changes a held-out score.
_SIMILARITY_OF_FOLDS: frozenset[Invariance] = _SIMILARITY - {"row_permutation"}
_GROUPS = frozenset({"groups"})
# PWCCA weights directions by the columns of x.
_SIMILARITY_OF_PWCCA: frozenset[Invariance] = _SIMILARITY - {"orthogonal"}
_ANY_BASIS_OF_Y: frozenset[Invariance] = frozenset({"orthogonal", "invertible_linear"})

# All measures, with the invariances that each declares; the property tests are made from this table.
#
# What raised the versions, in order:
# * ridge_map alone: a study's `alpha` was taken for the level of the test.
# * All: rounding of float32 input counted as directions, and rows that it alone tells apart counted as different (see
#   `Precision` in _input.py).
# * PWCCA, held-out CCA, Procrustes, ridge_map: singular vectors from Gram matrices, one fit for all folds (rounding).
# * All but neighbours and mean_max_cosine: flags count rows that repeat once. (Procrustes, ridge_map: rounding, too.)
# * SVCCA, PWCCA, held-out CCA: few components from Gram matrices (rounding). Held-out CCA: directions with the same
#   fitted correlation are read together. Procrustes: held out, without singular vectors (rounding).
MEASURES: dict[str, Measure] = {
    "svcca": Measure(
        "svcca",
        svcca,
        prepare_svcca,
        (
            # With every component kept this is plain CCA; with fewer, the choice depends on the components' lengths.
            Variant({"dims": None, "variance": 1.0}, _SIMILARITY | {"invertible_linear"}),
            Variant({}, _SIMILARITY),
        ),
        version=4,
    ),
    "pwcca": Measure(
        "pwcca",
        pwcca,
        prepare_pwcca,
        (
            Variant({"dims": None, "variance": None}, _SIMILARITY_OF_PWCCA, only_y=_ANY_BASIS_OF_Y),
            Variant({"dims": None, "variance": 1.0}, _SIMILARITY_OF_PWCCA, only_y=_ANY_BASIS_OF_Y),
            Variant({}, _SIMILARITY_OF_PWCCA, only_y=frozenset({"orthogonal"})),
        ),
        symmetric=False,
        version=5,
    ),
    "heldout_cca": Measure(
        "heldout_cca",
        heldout_cca,
        prepare_heldout_cca,
        (
            Variant({"dims": None, "variance": 1.0, "ridge": 0.0}, _SIMILARITY_OF_FOLDS | {"invertible_linear"}),
            Variant({}, _SIMILARITY_OF_FOLDS),
        ),
        row_settings=_GROUPS,
        version=5,
    ),
    "rsa": Measure(
        "rsa",
        rsa,
        prepare_rsa,
        (
            Variant({"inner": "cosine"}, _ROTATION_AND_SCALE),
            Variant({"inner": "euclidean"}, _SIMILARITY),
            Variant({"inner": "pearson"}, frozenset({"isotropic_scaling", "row_permutation"})),
        ),
        on_device=True,
        row_settings=frozenset({"given"}),
        version=3,
    ),
    "cka": Measure("cka", cka, prepare_cka, (Variant({}, _SIMILARITY),), on_device=True, version=3),
    "procrustes": Measure(
        "procrustes",
        procrustes,
        prepare_procrustes,
        (Variant({"heldout": False}, _SIMILARITY), Variant({"heldout": True}, _SIMILARITY_OF_FOLDS)),
        row_settings=_GROUPS,
        version=5,
    ),
    "ridge_map": Measure(
        "ridge_map",
        ridge_map,
        prepare_ridge_map,
        (Variant({}, _SIMILARITY_OF_FOLDS),),
        row_settings=_GROUPS,
        version=5,
    ),
    "mutual_knn": Measure(
        "mutual_knn",
        mutual_knn,
        prepare_mutual_knn,
        (Variant({"metric": "cosine"}, _ROTATION_AND_SCALE), Variant({"metric": "euclidean"}, _SIMILARITY)),
        version=2,
    ),
    "mean_max_cosine": Measure(
        "mean_max_cosine",
        mean_max_cosine,
        prepare_mean_max_cosine,
        (Variant({}, frozenset({"isotropic_scaling", "row_permutation"})),),
        equal_widths=True,
        sees_pairing=False,
        version=2,
    ),
}


def heldout_counterpart(name: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The measure and settings that ask the same question on pairs that took no part in a fit; None if there are none.

    SVCCA and PWCCA fit directions; held-out CCA fits them on other pairs. Procrustes has a held-out form, and debiased
    CKA has no bias. RSA and nearest neighbours fit nothing, and ridge maps and held-out CCA already use held-out pairs:
    these are their own counterparts.
    """
    own = dict(settings)
    if name in ("svcca", "pwcca"):
        everything = name == "pwcca" and own.get("dims") is None and own.get("variance") is None
        return "heldout_cca", own | ({"variance": 1.0} if everything else {})
    if name == "procrustes":
        return name, own | {"heldout": True}
    if name == "cka":
        return name, own | {"debiased": True}
    return None if name == "mean_max_cosine" else (name, own)


__all__ = [
    "MEASURES",
    "Measure",
    "Prepared",
    "Score",
    "Variant",
    "cka",
    "heldout_cca",
    "heldout_counterpart",
    "mean_max_cosine",
    "mutual_knn",
    "procrustes",
    "pwcca",
    "ridge_map",
    "rsa",
    "svcca",
]
