"""How certain a score is: nulls, p-values, intervals and chance-corrected scores."""

from unifeat.inference._cluster_test import ClusterTest, cluster_test
from unifeat.inference._permutation_test import PermutationTest, find_measure, permutation_test, with_settings
from unifeat.inference.calibration import Calibration, calibrate
from unifeat.inference.clusters import effective_pairs, find_clusters
from unifeat.inference.exchange import Exchange
from unifeat.inference.multiplicity import false_discovery_rate, family_wise
from unifeat.inference.permuting import SharedRows, induced, null_scores, permutations, permutations_within
from unifeat.inference.strata import frequency_strata, strata_of
from unifeat.inference.subsampling import Interval, subsample_interval

__all__ = [
    "Calibration",
    "ClusterTest",
    "Exchange",
    "Interval",
    "PermutationTest",
    "SharedRows",
    "calibrate",
    "cluster_test",
    "effective_pairs",
    "false_discovery_rate",
    "family_wise",
    "find_clusters",
    "find_measure",
    "frequency_strata",
    "induced",
    "null_scores",
    "permutation_test",
    "permutations",
    "permutations_within",
    "strata_of",
    "subsample_interval",
    "with_settings",
]
