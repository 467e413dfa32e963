"""A whole study whose pairs are found by r within token, with every null that it can have."""

from __future__ import annotations

import numpy as np
import pytest

import unifeat as uf
from homes import Place, write_study

pytestmark = pytest.mark.slow
ASKED = {"permutations": 20, "strata": "both", "bootstraps": 10, "subsamples": 8, "same_token": 3, "same_two_tokens": 2}


@pytest.mark.parametrize("method", ["mutual", "csls", "max"])
def test_every_r_is_within_token(place: Place, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    study = write_study(
        place.home,
        matching={"by": "within_token", "method": method, "min_correlation": 0.05, "min_count": 3},
        inference=ASKED,
    )
    run = uf.run(study, out="within", force=True)
    kept = run.pairs[run.pairs["kept"]]
    assert len(kept) > 20
    np.testing.assert_allclose(kept["correlation_heldout"], kept["correlation_within_token"], rtol=0, atol=1e-9)
    plain = uf.open(place.run).pairs
    both = kept.merge(plain, on=["space_a", "space_b", "feature_a", "feature_b"], suffixes=("", "_plain"))
    assert len(both)
    assert (np.abs(both["correlation"] - both["correlation_plain"]) > 1e-3).any()
    for facts in run.info["pairs"]:
        assert len(facts["same_token"]["kept"]) == 3
        assert len(facts["same_two_tokens"]["kept"]) == 2
        assert facts["same_token"]["rows_alone"] < facts["same_two_tokens"]["rows_alone"]
        assert facts["intervals"]["kept"]["estimate"] == facts["kept"]
        assert facts["shifts"] == 0
    # These tiny models share nothing beyond the token: what is found is what the same search finds by chance.
    assert abs(kept["correlation_heldout"].mean()) < 0.05
    again = uf.run(study, out="again", force=True)
    assert again.pairs.equals(run.pairs)


def test_rematches_on_other_text_are_refused(place: Place) -> None:
    study = write_study(place.home, matching={"by": "within_token"}, inference={"rematches": 3})
    with pytest.raises(uf.UserError, match=r"within_token has no rematches.*use inference.same_token instead"):
        uf.run(study)
