"""The nulls that match again, on simulated texts: a small version of scripts/calibration_rematch.py."""

from __future__ import annotations

from types import ModuleType

import pytest
from scipy.stats import binom

from repo_scripts import load_script

STUDIES = 60

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("calibration_rematch")


def rates(script: ModuleType, name: str, null: str) -> list[float]:
    """Shares of p at most 0.05 (number of pairs, their mean r, RSA), and how many pairs there are beyond the null's."""
    return script.rates(STUDIES, script.WORLDS[name], null, lambda _: None)


@pytest.mark.parametrize("name", ["nothing shared", "the place in the document shared"])
def test_other_documents_keep_their_promise(script: ModuleType, name: str) -> None:
    """Codes follow one another, documents have topics and unequal lengths."""
    most = binom.ppf(0.999, STUDIES, script.ALPHA) / STUDIES
    assert max(rates(script, name, "documents")[:3]) <= most


@pytest.mark.parametrize("documents", [4, 5])
def test_few_documents_give_no_small_p(script: ModuleType, documents: int) -> None:
    """Draws that repeat each other would."""
    draws = script.cycles(documents)
    found = script.rates(STUDIES, script.WORLDS["nothing shared"], "documents", lambda _: None, documents, draws)
    assert max(found[:3]) <= binom.ppf(0.999, STUDIES, script.ALPHA) / STUDIES


def test_other_documents_find_what_is_shared(script: ModuleType) -> None:
    kept, r, alike, excess = rates(script, "token and context shared", "documents")
    assert kept == r == 1
    assert alike > 0.9
    assert excess > 10


def test_a_rotation_takes_the_place_in_the_document_for_something_shared(script: ModuleType) -> None:
    assert rates(script, "the place in the document shared", "rotation")[1] > 0.5


def test_the_same_token_gives_nearly_all_pairs_where_only_the_token_is_shared(script: ModuleType) -> None:
    """And few of those where the context is shared, too."""
    assert abs(rates(script, "the token shared", "same token")[3]) < 4
    assert rates(script, "token and context shared", "same token")[3] > 10


def test_stopping_early_leaves_what_could_be_significant_as_it_is(script: ModuleType) -> None:
    stopping = load_script("calibration_stopping")
    found = stopping.results_of(5, lambda _: None)
    for one in found["nothing shared"]:
        for p, usual in zip(one.single, one.usual, strict=True):
            assert p == usual or min(p, usual) >= stopping.ENOUGH / stopping.DRAWS
    for one in found["one of three shares"]:
        assert one.made == stopping.DRAWS
        assert max(one.family) <= 0.05
