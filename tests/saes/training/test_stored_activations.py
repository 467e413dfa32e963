"""Activations on disk: kept for later trainings where that is asked for, else gone as they are used up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny import sentences, write_text
from unifeat.pipeline.train import train
from unifeat.report.terminal_training import print_trained, trained_table
from unifeat.saes.training import checkpoints
from unifeat.store import cache_root
from unifeat.study.spec import ModelSpec, SpacesSpec, Study
from unifeat.study.text import TextSpec
from unifeat.study.training import TrainSpec

pytestmark = pytest.mark.slow


@pytest.fixture
def study(tmp_path: Path, model_folder: Callable[..., Path]) -> Study:
    """About 16 groups of text, of which the last three hold the held-out documents; the buffer holds two or three."""
    text = TextSpec(source=str(write_text(tmp_path, sentences(160, seed=4))), context=32, group=3000)
    return Study(
        text=text,
        models={"tiny": ModelSpec(name=str(model_folder("llama", tokenizer="wordish")), dtype="float32", device="cpu")},
        spaces=[SpacesSpec(model="tiny", layers=[0, 2], sae=f"{tmp_path}/sae-{{layer}}")],
        compare=[("tiny", "tiny")],
        train=TrainSpec(text=text, features=48, k=4, tokens=16_000, batch=128, buffer=1024, heldout_documents=20),
    )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The layers of each run of the model over a group."""
    from unifeat.saes.training import activations

    runs: list[list[int]] = []
    inner = activations.run_group

    def run(model: Any, parts: Any, points: Any, windowing: Any) -> Any:
        runs.append([point.layer for point in points])
        return inner(model, parts, points, windowing)

    monkeypatch.setattr(activations, "run_group", run)
    return runs


def changed(study: Study, **train_settings: Any) -> Study:
    assert study.train is not None
    return study.model_copy(update={"train": study.train.model_copy(update=train_settings)})


def groups_on_disk() -> list[Path]:
    return [p for p in cache_root().glob("*/**/rows.safetensors") if ".partial-" not in str(p)]


def test_kept_activations_serve_later_passes_and_trainings(study: Study, tmp_path: Path, runs: list[list[int]]):
    kept = changed(study, store=True)
    train(kept, tmp_path / "a")
    groups = len(runs)
    assert 12 < groups < 20
    assert runs == [[0, 2]] * groups  # several passes, one run
    files = groups_on_disk()
    assert len(files) == 2 * groups
    assert all(path.is_relative_to(cache_root() / "activations") for path in files)
    train(changed(kept, features=32, seed=9), tmp_path / "b")
    assert len(runs) == groups
    more = kept.model_copy(update={"spaces": [kept.spaces[0].model_copy(update={"layers": [0, 1]})]})
    train(more, tmp_path / "c")
    assert runs[groups:] == [[1]] * groups


def test_kept_or_not_the_saes_are_the_same(study: Study, tmp_path: Path):
    train(study, tmp_path / "a")
    train(changed(study, store=True), tmp_path / "b")
    for name in ("sae-0", "sae-2"):
        a, b = (tmp_path / folder / name / "sae_weights.safetensors" for folder in ("a", "b"))
        assert a.read_bytes() == b.read_bytes()


def test_what_is_not_kept_stays_as_small_as_the_buffer(
    study: Study, tmp_path: Path, runs: list[list[int]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoints, "INTERVAL_S", 0.0)
    held = []
    inner = checkpoints.Checkpoints.save

    def save(self: Any, state: Any, **about: Any) -> None:
        held.append(len(groups_on_disk()))
        inner(self, state, **about)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", save)
    train(study, tmp_path / "out")
    groups = len(runs)
    assert groups > 25  # each pass runs the model anew
    assert max(held) <= 2 * (4 + 2 + 4)  # two points: a buffer, the one before it until the checkpoint, held-out groups
    assert groups_on_disk() == []
    assert not (cache_root() / "activations").exists()


def test_the_table_at_the_end(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trained = train(study, tmp_path / "out")
    head, first, second = trained_table(trained)
    assert head == ["SAE", "features", "FVU", "L0", "dead", "loss recovered", "held-out tokens"]
    assert first[:2] == ["sae-0", "48"]
    assert first[2:5] == [
        f"{trained[0].quality.fvu:.3f}",
        f"{trained[0].quality.l0:.1f}",
        f"{trained[0].quality.dead_share:.1%}",
    ]
    assert second[6] == f"{trained[1].quality.tokens:,}"
    print_trained(trained)
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["SAE", "features", "FVU", "L0", "dead", "loss", "recovered", "held-out", "tokens"]
    assert len({len(line) for line in out[:3]}) == 1
    assert f"in {tmp_path / 'out'}; each SAE's README.md says" in out[-1]


def test_sinks_are_told_by_the_stream_behind_a_norm_too(tmp_path: Path, model_folder: Callable[..., Path]):
    """One token's embedding is made huge; its rows are left out at the MLP's input, where all norms are alike."""
    import numpy as np

    from unifeat.models.activations import run_group
    from unifeat.models.language import load_language_model
    from unifeat.saes.training.activations import ActivationSource
    from unifeat.text.corpus import build_corpus
    from unifeat.vocabulary.hook_points import HookPoint
    from unifeat.vocabulary.windowing import Windowing

    text = str(write_text(tmp_path, sentences(20, seed=4)))
    corpus = build_corpus(text, documents=None, tokens=None, count_tokens=len, tokenizer_digest="")
    point = HookPoint(1, "mlp_in")
    model = load_language_model(str(model_folder("llama", tokenizer="wordish")), [point], dtype="float32")
    tokens = run_group(model, corpus.parts(0), [point], Windowing(32, 2)).places.token
    common = int(np.bincount(tokens).argmax())
    model.decoder.get_input_embeddings().weight[common] *= 100
    source = ActivationSource(corpus, {}, [point], Windowing(32, 2), tmp_path / "activations", load=lambda: model)
    rows = source.group(0)
    assert 0 < int((tokens == common).sum()) == len(tokens) - len(rows)
    again = ActivationSource(corpus, {}, [point], Windowing(32, 2), tmp_path / "activations", load=lambda: None)  # type: ignore[arg-type, return-value]
    assert len(again.group(0)) == len(rows)  # from the file
