"""Which scores are shown to be no more alike than chance, within the study's margin."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from unifeat.inference.equivalence import equivalence_p
from unifeat.inference.nulls import NAN
from unifeat.study.spec import InferenceSpec

COLUMNS = {"p_equivalent": NAN, "equivalence_margin": NAN}


def add_equivalence(inference: InferenceSpec, scores: pd.DataFrame) -> pd.DataFrame:
    """The scores with `COLUMNS`: two one-sided tests that a score lies within the margin of the mean of its shuffles.

    The standard error is that of the score's interval, and that of the mean of the shuffles, which are few.

    Args:
        scores: all rows, with `score`, `null_mean`, `null_sd` and `ci_sd`.
    """
    margin = inference.equivalence
    if margin is None:
        return scores.assign(**COLUMNS)
    found = []
    names = ["score", "null_mean", "null_sd", "ci_sd"]
    for score, mean, spread, sd in scores[names].to_numpy(np.float64):
        of_mean = spread / math.sqrt(max(inference.permutations, 1))
        df = max(inference.subsamples - 1, 1)
        found.append(equivalence_p(score - mean, math.hypot(sd, of_mean), margin, df))
    p = np.array(found, np.float64)
    return scores.assign(p_equivalent=p, equivalence_margin=np.where(np.isnan(p), NAN, margin))
