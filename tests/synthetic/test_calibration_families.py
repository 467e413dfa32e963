"""The null of families, on simulated texts: a small version of scripts/calibration_families.py."""

from __future__ import annotations

from types import ModuleType

import pytest
from scipy.stats import binom

from repo_scripts import load_script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def script():
    module = load_script("calibration_families")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SPACES", 3)
        yield module


def test_re_paired_documents_keep_their_promise(script: ModuleType) -> None:
    """Codes follow one another, documents have topics and unequal lengths, and all spaces follow the place in them."""
    studies = 20
    found = script.rates(studies, script.WORLDS["the place in the document shared"], lambda _: None)
    most = binom.ppf(0.999, studies, script.ALPHA) / studies
    for method, (whole, some, home, excess) in found.items():
        assert max(whole, some, home) <= most, method
        assert abs(excess) < 1.5, method


def test_re_paired_documents_find_what_is_shared(script: ModuleType) -> None:
    found = script.rates(3, script.WORLDS["what the text says shared"], lambda _: None)
    for method, (whole, _, home, excess) in found.items():
        assert whole == home == 1, method
        assert excess > 10, method
