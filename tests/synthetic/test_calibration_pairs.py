"""Which pairs are more than a token, and what decoys foretell: a small version of scripts/calibration_pairs.py."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from repo_scripts import load_script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("calibration_pairs")


@pytest.mark.parametrize("name", ["the token alone", "the token alone, each side with topics"])
def test_detectors_of_a_token_are_no_more(script: ModuleType, name: str) -> None:
    above, more = np.mean([script.more_than_a_token(script.WORLDS[name], seed) for seed in range(6)], axis=0)
    assert above > 0.4
    assert more < 0.05


def test_what_is_shared_within_the_token_is_more(script: ModuleType) -> None:
    assert script.more_than_a_token(script.WORLDS["a third of the places"], 0)[1] > 0.6
    assert script.more_than_a_token(script.WORLDS["all places"], 0)[1] == 1


def test_decoys_foretell_at_least_as_many_false_pairs_as_there_are(script: ModuleType) -> None:
    counts = np.sum([script.decoy_counts(seed) for seed in range(12)], axis=0)
    kept, false = counts.T
    assert (false <= np.array(script.LEVELS) * kept).all()
    assert kept[0] > 12 * 10, "most of the 20 pairs of each text"
    assert false[-1] > 0, "there are false pairs to find"
