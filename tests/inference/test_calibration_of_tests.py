"""Where nothing is shared, tests keep their level: the fast form of `scripts/calibration.py`, with its own studies."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, kstest

import unifeat as uf

SCRIPTS = Path(__file__).parents[2] / "scripts"
STUDIES = 40

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shapes_unchecked")]


@pytest.fixture(scope="module")
def script():
    if not SCRIPTS.exists():
        pytest.skip("the scripts are not part of this distribution")
    sys.path.insert(0, str(SCRIPTS))
    try:
        import calibration
    finally:
        sys.path.remove(str(SCRIPTS))
    return calibration


def check(studies, level=1e-4):
    """No case finds too much, p is uniform, and the score lies about the mean of its null."""
    count = len(studies)
    for case in studies[0]:
        p, fair, corrected, excess = np.array([study[case] for study in studies]).T
        assert (p <= 0.05).sum() <= binom.ppf(1 - level, count, 0.05), case
        assert kstest(fair, "uniform").pvalue > level, case
        assert corrected.mean() < 0.05, case
        assert (corrected == 0).mean() >= 0.8, case
        assert abs(excess.mean()) <= 4 * excess.std(ddof=1) / np.sqrt(count) + 1e-9, case


@pytest.mark.parametrize("n", [10, 24, 48])  # below, near and above d = 16 and 24
def test_shuffling_pairs(script, n):
    check([script.shuffle_study(script.unselected, n, seed) for seed in range(STUDIES)])


@pytest.mark.parametrize("n", [10, 24])
def test_shuffling_pairs_that_matching_chose(script, n):
    check([script.shuffle_study(script.selected, n, seed) for seed in range(STUDIES)])


def test_rematching(script):
    check([script.rematch_study(8, seed) for seed in range(STUDIES)])


def test_the_check_itself_can_fail(script):
    def shared(n, seed):
        return uf.synthetic.plant_rows(n, 16, 24, shared=0.3, seed=seed)

    with pytest.raises(AssertionError):
        check([script.shuffle_study(shared, 60, seed) for seed in range(20)])


def test_matched_pairs_are_true_ones(script):
    """`selected` means something only if matching found what the codes share."""
    world = script.world_of(24, 0, shared=0.6)
    corr = uf.correlate(world.codes_a, world.codes_b, top=1)
    assert world.recovery(uf.match(corr, "mutual").head(24)).precision > 0.9


def test_the_script_writes_its_page_and_goes_on_where_it_stopped(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "SIZES", {"near d": 12})
    arguments = ["calibration.py", "--page", str(tmp_path / "page.md"), "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--studies", "3"])
    script.main()
    first = (tmp_path / "page.md").read_text()
    assert "| held-out CCA, dims 4 |" in first
    assert "nan" not in first
    assert "3 of 3" in capsys.readouterr().out
    script.main()
    assert capsys.readouterr().out == ""  # nothing left to do
    assert (tmp_path / "page.md").read_text() == first
