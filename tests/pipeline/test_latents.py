"""Latents against activations, in a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import unifeat as uf
from homes import Place, hashes, write_study
from unifeat.codes.beside import beside
from unifeat.pipeline import latents
from unifeat.pipeline.encode import prepare_spaces
from unifeat.saes import load_sae
from unifeat.study.read import load_study

ACTIVATIONS = {"rows": 800, "dims": 4}


@pytest.fixture
def study(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    return write_study(place.home, activations=ACTIVATIONS)


def test_samples_are_what_the_saes_read(place: Place, study: Path) -> None:
    """The SAEs' codes of the sampled activations are the stored codes at the same rows."""
    spaces = prepare_spaces(load_study(study), force=True).spaces
    a, b = spaces[0], spaces[2]
    assert a.activations is not None
    assert b.activations is not None
    total = 0
    for rows in beside(a.store, b.store, a.activations, b.activations):
        for space, x, codes in ((a, rows.x_a, rows.codes_a), (b, rows.x_b, rows.codes_b)):
            encoded = load_sae(place.home / space.info["sae"]).encode(torch.from_numpy(x)).detach().numpy()
            np.testing.assert_allclose(encoded, codes.toarray(), rtol=1e-4, atol=1e-5)
        total += len(rows.document)
    assert 100 < total < 2000
    assert total == sum(len(at) for _, _, at, _ in uf_align(a.activations, b.activations))


def uf_align(a: object, b: object) -> list[tuple]:
    from unifeat.codes.align import align

    return list(align(a, b).aligned_shards())  # type: ignore[arg-type]


def test_a_study(place: Place, study: Path) -> None:
    run = uf.run(study, force=True)
    spaces = {space.name: space for space in prepare_spaces(load_study(study), force=True).spaces}
    for facts in run.info["pairs"]:
        a, b = spaces[facts["space_a"]], spaces[facts["space_b"]]
        parts = list(beside(a.store, b.store, a.activations, b.activations))  # type: ignore[arg-type]
        x, y = (np.vstack([getattr(part, name) for part in parts]) for name in ("x_a", "x_b"))
        pairs = run.space_pair(a.name, b.name).query("kept").sort_values(["feature_a", "feature_b"])
        found = facts["latents"]
        assert found["rows"] == len(x)
        assert found["documents"] == len(np.unique(np.concatenate([part.document for part in parts])))
        of_codes = [
            np.vstack([getattr(part, name)[:, own].toarray() for part in parts])
            for name, own in (("codes_a", pairs["feature_a"].to_numpy()), ("codes_b", pairs["feature_b"].to_numpy()))
        ]
        for what, rows in (("activations", (x, y)), ("codes", of_codes)):
            assert found[what]["cka"] == pytest.approx(uf.cka(*rows, debiased=True).value, abs=1e-6)
            assert found[what]["svcca"] == pytest.approx(uf.svcca(*rows, dims=4).value, abs=1e-5)
            assert -1 <= found[what]["heldout_cca"] <= found[what]["svcca"] + 0.2
        assert found["codes_pairs"] == len(pairs)
        directions = [a.decoder.rows(pairs["feature_a"].to_numpy()), b.decoder.rows(pairs["feature_b"].to_numpy())]
        assert found["directions"]["cka"] == pytest.approx(uf.cka(*directions, debiased=True).value, abs=1e-9)
    assert "Activations, codes and directions" in run.report.read_text()
    plain = uf.run(write_study(place.home), force=True)
    assert "latents" not in plain.info["pairs"][0]
    assert "Activations, codes and directions" not in plain.report.read_text()


def test_samples_are_the_same_with_codes_or_after_them(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a study whose codes are finished only the samples are made, with the same bytes."""
    found = []
    for number, order in enumerate(([ACTIVATIONS], [None, ACTIVATIONS])):
        monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path / str(number)))
        for own in order:
            study = write_study(place.home, **({"activations": own} if own else {}))
            prepare_spaces(load_study(study), force=True)
        found.append({name: of for name, of in hashes(tmp_path / str(number)).items() if name.startswith("codes")})
    assert found[0] == found[1]
    assert len({name.split("/")[1] for name in found[0]}) == 6  # three of codes, three of activations


def test_a_damaged_sample_is_made_again(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path))
    sample = prepare_spaces(load_study(study), force=True).spaces[0].activations
    assert sample is not None
    before = hashes(tmp_path / "codes")
    shard = sample.shard_path(1)
    shard.write_bytes(shard.read_bytes()[:-5])
    said: list[str] = []
    monkeypatch.setattr("unifeat.codes.store.say", said.append)
    prepare_spaces(load_study(study), force=True)
    assert [str(shard) in line for line in said] == [True]
    assert hashes(tmp_path / "codes") == before


def test_a_new_version_is_computed_anew(place: Place, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unifeat.pipeline.match import compare

    own = load_study(study)
    prepared = prepare_spaces(own, force=True)
    cell = compare(own, *prepared.spaces[:2], prepared.corpus.documents)
    keys = {latents._unit(cell, dims).piece.key for dims in (4, 5)}  # type: ignore[attr-defined]
    monkeypatch.setattr(latents, "VERSION", latents.VERSION + 1)
    keys |= {latents._unit(cell, 4).piece.key}  # type: ignore[attr-defined]
    assert len(keys) == 3
