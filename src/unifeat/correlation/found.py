"""What a search for best partners finds."""

from __future__ import annotations

from typing import NamedTuple

from unifeat.correlation.moments import Moments
from unifeat.vocabulary.paired_codes import Array


class Found(NamedTuple):
    """What `correlate` puts together: (features, top) each, and the moments."""

    index_ab: Array  # int32
    value_ab: Array  # float64
    index_ba: Array
    value_ba: Array
    count_ab: Array  # int64
    count_ba: Array
    moments_a: Moments
    moments_b: Moments
