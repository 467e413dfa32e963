"""The documentation's site: strict, whole, and it asks no network for anything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import unifeat

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))


def test_every_public_name_is_in_the_reference() -> None:
    from generated_pages import GROUPS, api_page

    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(set(unifeat.__all__) - {"__version__"})
    page = api_page()
    for name in named:
        assert f"uf.{name}" in page
    assert "### `uf.Run`" in page
    assert "#### `uf.Run.contexts`" in page
    assert "- `feature`: any feature of the space" in page


def test_every_key_and_command_is_in_its_page() -> None:
    from generated_pages import cli_page, study_page
    from unifeat.study import spec

    study, commands = study_page(), cli_page()
    for kind in (spec.Study, spec.ModelSpec, spec.SpacesSpec, spec.MatchingSpec, spec.InferenceSpec):
        for key in kind.model_fields:
            assert f"| `{key}` |" in study
    for command in ("unifeat init", "unifeat run", "unifeat cache prune"):
        assert f"## `{command}`" in commands
    assert "--out" in commands


def test_docstrings_become_lists() -> None:
    from docstrings import markdown

    text = "\n".join(
        markdown(
            """One line.

            x, y: two sides,
                of any kind.
                `cosine`     one way
            Plain words: they stay.

            Args:
                a: first,
                    and more.

            Raises:
                UserError: no.
            """
        )
    )
    assert "- `x`, `y`: two sides," in text
    assert "  - `cosine` one way" in text
    assert "Plain words: they stay." in text
    assert "**Arguments**" in text
    assert "- `a`: first," in text
    assert "- `UserError`: no." in text


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_for_nothing(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_nb")
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-b", "html", str(ROOT / "docs")]
    done = subprocess.run([*command, str(tmp_path / "site")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)\"", text)
        assert not [url for url in loaded if "canonical" not in url], page.name
