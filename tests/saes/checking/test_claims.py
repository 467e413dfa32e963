"""What SAEs say of themselves: folders, metadata and SAELens' registry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tiny import tiny_sae
from unifeat.saes import load_sae, provenance_of
from unifeat.saes.checking.claims import Claims, claims_of
from unifeat.vocabulary.hook_points import HookPoint


def test_a_bare_folder_says_k(tmp_path: Path):
    folder = tiny_sae(tmp_path / "sae", 8, k=4)
    claims = claims_of(load_sae(folder), folder)
    assert (claims.l0, claims.k, claims.expected_l0, claims.source, claims.point) == (None, 4, 4, None, None)


def test_metadata(tmp_path: Path):
    sae = load_sae(tiny_sae(tmp_path / "sae", 8))
    for key, value in {
        "l0": 3.9,
        "hook_name": "blocks.2.hook_mlp_out",
        "model_name": "tiny",
        "prepend_bos": False,
    }.items():
        sae.cfg.metadata[key] = value
    sae.save_model(tmp_path / "told")
    assert claims_of(load_sae(tmp_path / "told"), tmp_path / "told") == Claims(
        l0=3.9, k=4, hook="mlp_out", layer=2, model="tiny", bos=False, source="its metadata"
    )


def test_the_card_comes_first(tmp_path: Path):
    folder = tiny_sae(tmp_path / "average_l0_99", 8)
    assert claims_of(load_sae(folder), folder).l0 == 99
    (folder / "training.json").write_text(json.dumps({"heldout": {"l0": 4.0, "fvu": 0.2}}))
    claims = claims_of(load_sae(folder), folder)
    assert (claims.l0, claims.variance_explained, claims.source) == (4.0, 0.8, "training.json")


@pytest.mark.parametrize(
    ("name", "l0", "explained", "source"),
    [
        ("gpt2-small-res-jb/blocks.2.hook_resid_pre", 18, 0.999, "SAELens' registry"),
        # The registry knows no variance explained here and writes 1.
        ("gemma-scope-2-4b-pt-res/layer_17_width_16k_l0_medium", 60, None, "SAELens' registry"),
        # It knows no L0 here and writes 0; the path that the name stands for says it.
        ("gemma-scope-2b-pt-res-canonical/layer_0/width_16k/canonical", 105, None, "the name"),
        ("gemma-scope-2b-pt-res/layer_0/width_16k/average_l0_105", 105, None, "SAELens' registry"),
        ("no-such-release/at-all", None, None, None),
    ],
)
def test_the_registry(tmp_path: Path, name: str, l0: float | None, explained: float | None, source: str | None):
    sae = load_sae(tiny_sae(tmp_path / "sae", 8))
    claims = claims_of(sae, name)
    assert (claims.l0, claims.variance_explained, claims.source) == (l0, explained, source)


def test_what_the_reader_of_the_format_found(tmp_path: Path):
    """Where neither metadata nor registry nor name say anything."""
    sae = load_sae(tiny_sae(tmp_path / "sae", 8))
    sae.unifeat_provenance = replace(
        provenance_of(sae),
        hook="blocks.5.hook_resid_pre",
        model="tiny",
        bos=True,
        claimed_l0=7.0,
        claimed_variance_explained=0.6,
    )
    claims = claims_of(sae, tmp_path / "sae")
    assert (claims.point, claims.model, claims.bos) == (HookPoint(5, "resid_pre"), "tiny", True)
    assert (claims.l0, claims.variance_explained, claims.source) == (7.0, 0.6, "its checkpoint")


def test_a_point_is_one_that_is_read():
    assert Claims(hook="mlp_out", layer=3).point == HookPoint(3, "mlp_out")
    assert Claims(hook="blocks.3.attn.hook_q").point is None
    assert Claims(hook="mlp_out").point is None
