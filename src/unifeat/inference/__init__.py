"""How sure a score is: nulls, p-values and chance-corrected scores."""

from unifeat.inference._permutation_test import PermutationTest, find_measure, permutation_test
from unifeat.inference.calibration import Calibration, calibrate
from unifeat.inference.permuting import null_scores, permutations
from unifeat.inference.subsampling import Interval, subsample_interval

__all__ = [
    "Calibration",
    "Interval",
    "PermutationTest",
    "calibrate",
    "find_measure",
    "null_scores",
    "permutation_test",
    "permutations",
    "subsample_interval",
]
