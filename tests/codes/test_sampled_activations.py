"""Samples of activations: which places, and that nothing but the text decides."""

from __future__ import annotations

import numpy as np
import pytest

from stores import places
from unifeat.codes.activations import activation_settings, sampled
from unifeat.vocabulary.hook_points import HookPoint


def many() -> tuple[np.ndarray, np.ndarray]:
    """Documents of five stretches of 4,096 characters."""
    document = np.repeat(np.arange(2000), 40)
    return document, np.tile(np.arange(40) * 512 + 5, 2000)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_about_the_share_of_stretches_spread_over_documents(share: float) -> None:
    kept = sampled(places(*many()), share)
    stretches = kept.reshape(-1, 8)
    assert (stretches == stretches[:, :1]).all()  # whole stretches
    drawn = stretches[:, 0]
    assert drawn.mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(drawn)))
    by_document = drawn.reshape(-1, 5).mean(axis=1)
    assert by_document.std() == pytest.approx(np.sqrt(share * (1 - share) / 5), rel=0.1)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.05


def test_all_of_them() -> None:
    where = places(*many())
    assert sampled(where, 1.0).all()
    assert not sampled(where, 1e-12).any()


def test_a_place_is_sampled_whatever_lies_beside_it() -> None:
    document, char_end = many()
    whole = sampled(places(document, char_end), 0.3)
    some = np.random.default_rng(0).random(len(document)) < 0.5
    np.testing.assert_array_equal(sampled(places(document[some], char_end[some]), 0.3), whole[some])
    more = sampled(places(document, char_end), 0.5)
    assert more[whole].all()  # a larger sample has the smaller one in it


def test_the_settings_are_those_of_the_codes_without_the_sae() -> None:
    codes = {"text": "t", "sae": "s", "d_sae": 9, "codes": "pre_activation", "values": "float16", "hook": [1, "mlp_in"]}
    found = activation_settings(codes, HookPoint(1, "mlp_in"), HookPoint(1, "mlp_out"), 12, 0.5)
    assert found == {
        "text": "t",
        "hook": [1, "mlp_in"],
        "activations": "unifeat-activations/1",
        "target": [1, "mlp_out"],
        "d_sae": 12,
        "share": 0.5,
    }
