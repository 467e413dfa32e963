"""The demo's real language models, text and SAEs. Needs its packages; `make test-real` installs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import checkpoints
import unifeat as uf
from unifeat.demo import prepare as demo
from unifeat.models.activations import run_group
from unifeat.models.edits import Edits, copies_agree, edited_logits
from unifeat.models.language import load_language_model, read_config
from unifeat.models.opening import bos_of
from unifeat.saes import load_sae
from unifeat.saes.checking.check import check_sae
from unifeat.saes.checking.sample import measure_quality
from unifeat.study.read import load_study
from unifeat.study.spec import Study
from unifeat.study.transfer import TransferSpec
from unifeat.text.corpus import build_corpus
from unifeat.transfer.direct import direct_effects, readout
from unifeat.transfer.profiles import extremes, pearson
from unifeat.transfer.strings import shared_strings
from unifeat.vocabulary.hook_points import HOOK_KINDS, HookPoint
from unifeat.vocabulary.windowing import Windowing

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def study(real_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIFEAT_CACHE", str(real_cache))
        return load_study(demo.prepare(tmp_path_factory.mktemp("demo"), full=True))


@pytest.mark.parametrize(("name", "n_layers", "d_model"), [("smollm2", 30, 576), ("gemma3", 18, 640)])
def test_hooks_on_real_models(study: Study, name: str, n_layers: int, d_model: int) -> None:
    from transformers import AutoModelForCausalLM

    from unifeat.models.language import model_folder

    spec = study.models[name]
    assert read_config(spec.name, "float32").num_hidden_layers == n_layers
    points = [HookPoint(layer) for group in study.spaces if group.model == name for layer in group.layers]
    model = load_language_model(spec.name, points, dtype="float32")
    assert model.d_model == d_model
    assert len(model.blocks) == max(p.layer for p in points) + 1
    ids = torch.tensor([model.tokenizer("The cabinet met in Lagos on Tuesday to discuss oil prices.")["input_ids"]])
    seen = model.activations(ids, points)
    whole = AutoModelForCausalLM.from_pretrained(model_folder(spec.name, torch.float32), dtype=torch.float32)
    with torch.inference_mode():
        hidden = whole(ids, output_hidden_states=True).hidden_states
    for point in points:
        assert torch.equal(seen[point], hidden[point.layer + 1])


@pytest.mark.parametrize(("name", "heads"), [("smollm2", 576), ("gemma3", 1024)])
def test_every_hook_point_of_real_models(study: Study, name: str, heads: int) -> None:
    """Each is tried when the model is loaded; the stream is the sum of what is added to it. Gemma's heads are wide."""
    spec = study.models[name]
    points = [HookPoint(9, kind) for kind in HOOK_KINDS]
    model = load_language_model(spec.name, points, dtype=spec.dtype)
    bos = bos_of(model.tokenizer, spec.bos)
    found = run_group(model, _corpus(study, documents=1).parts(0), points, Windowing(128, bos)).values
    x = {point.kind: value.to(torch.float64) for point, value in found.items()}
    assert x["attn_z"].shape[1] == heads
    for parts, whole in ((("resid_pre", "attn_out"), "resid_mid"), (("resid_mid", "mlp_out"), "resid_post")):
        assert (x[parts[0]] + x[parts[1]] - x[whole]).norm() < 0.01 * x[whole].norm()
    assert x["ln2_normalized"].pow(2).mean() == pytest.approx(1, abs=0.01)


def test_a_transcoder_of_a_real_mlp(study: Study, tmp_path: Path) -> None:
    """Fitted by least squares on some articles, checked on others: reads the MLP's input, explains its output."""
    spec, corpus = study.models["smollm2"], _corpus(study, documents=40)
    points = [HookPoint(15, "mlp_in"), HookPoint(15, "mlp_out")]
    model = load_language_model(spec.name, points, dtype="float32")
    values = run_group(model, corpus.parts(0) + corpus.parts(1), points, Windowing(128))
    x, y = values.without_sinks(points[0])[0], values.beside(*points)
    assert len(x) > 5000
    generator = torch.Generator().manual_seed(0)
    W_enc = torch.randn((576, 1024), generator=generator) / x.norm(dim=-1).mean()
    b_enc = 0.5 * torch.randn(1024, generator=generator) - x.mean(0) @ W_enc
    design = torch.cat([torch.relu(x @ W_enc + b_enc), torch.ones(len(x), 1), x], dim=1).double()
    gram = design.T @ design + 1e-3 * len(x) * torch.eye(design.shape[1])
    fit = torch.linalg.solve(gram, design.T @ y.double()).float()
    held = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": fit[:1024], "b_dec": fit[1024]}
    sae = tmp_path / "layer_15.safetensors"
    checkpoints.write_circuit_tracer(sae, held, skip=fit[1025:].T.contiguous())
    found = check_sae(str(sae), spec.name, text=study.text.source, tokens=3000, dtype="float32")
    assert found.point == points[0]
    assert found.fits
    assert found.quality.fvu < 0.8
    others = {other.what: other.fvu for other in found.others}
    assert min(others["layer 14, mlp_in"], others["layer 16, mlp_in"]) > 1.2 * found.own.fvu
    assert found.loss is not None
    assert found.loss.clean < found.loss.spliced < found.loss.zeroed


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_sinks_carry_the_variance_and_are_masked(study: Study, name: str) -> None:
    spec = study.models[name]
    group = next(g for g in study.spaces if g.model == name)
    point = HookPoint(group.layers[1])
    model = load_language_model(spec.name, [point], dtype=spec.dtype)
    corpus = _corpus(study, documents=12)
    bos = bos_of(model.tokenizer, spec.bos)
    assert (bos is None) == (name == "smollm2")
    activations = run_group(model, corpus.parts(0), [point], Windowing(128, bos))
    x, places, masked = activations.without_sinks(point)
    assert masked.read == masked.special + masked.first + masked.sink + len(places)
    norms = x.norm(dim=-1)
    assert float(norms.max()) <= 5.001 * float(activations.values[point].float().norm(dim=-1).median())


@pytest.mark.parametrize("group", ["smollm2", "smollm2-seed1", "smollm2-random", "gemma3", "gemma3-seed1"])
def test_shipped_saes_are_what_their_cards_say(study: Study, group: str) -> None:
    """On news that they were not trained on, FVU, L0 and dead share are near what `training.json` states."""
    spaces = next(g for g in study.spaces if (g.name or g.model) == group)
    spec = study.models[spaces.model]
    folders = {HookPoint(layer): Path(spaces.sae.format(layer=layer)) for layer in spaces.layers}
    model = load_language_model(spec.name, list(folders), dtype=spec.dtype, randomise=spec.randomise)
    saes = {point: load_sae(folder) for point, folder in folders.items()}
    bos = bos_of(model.tokenizer, spec.bos)
    found = measure_quality(model, _corpus(study, documents=25), saes, Windowing(128, bos))
    for point, folder in folders.items():
        card = json.loads((folder / "training.json").read_text())
        stated = card["heldout"]
        assert card["randomised"] == spec.randomise
        assert (folder / "sae_weights.safetensors").stat().st_size < 5.3e6
        assert f"{stated['fvu']:.4f}" in (folder / "README.md").read_text()
        assert found[point].fvu == pytest.approx(stated["fvu"], rel=0.15)
        assert found[point].l0 == pytest.approx(stated["l0"], rel=0.02)
        # Of weights drawn at random come activations that few directions explain badly: a control.
        assert stated["fvu"] < (0.35 if spec.randomise is None else 0.8)
        assert stated["dead_share"] < 0.02  # of 55,000 tokens: rare features have not fired yet


def test_check_of_a_shipped_sae(study: Study) -> None:
    """With everything left to its config it fits; at the layers next to its own, the check names its own."""
    spec = study.models["smollm2"]
    group = next(g for g in study.spaces if g.model == "smollm2")
    folder = group.sae.format(layer=15)
    checked = check_sae(folder, spec.name, dtype=spec.dtype, tokens=4096)
    assert (checked.point, checked.bos, checked.findings) == (HookPoint(15), False, [])
    assert checked.quality.l0 == pytest.approx(32, abs=0.1)
    assert checked.quality.fvu < 0.35
    assert checked.loss is not None
    assert checked.loss.recovered > 0.9
    # The model predicts English well below the uniform 10.8 nats, and zeros in its middle leave it nothing.
    assert checked.loss.clean < checked.loss.spliced < 5 < 10 < checked.loss.zeroed
    for layer in (14, 16):
        wrong = check_sae(folder, spec.name, layer, dtype=spec.dtype, tokens=2048, loss=False)
        assert any("with layer 15, resid_post" in finding.text for finding in wrong.findings)


def test_demo_finds_shared_features(study: Study, tmp_path: Path) -> None:
    """A small demo: many mutual pairs that hold on other documents, far above shifted text, SVCCA above its null."""
    small = study.model_copy(
        update={
            "text": study.text.model_copy(update={"documents": 40}),
            "spaces": [s.model_copy(update={"layers": [s.layers[1]]}) for s in study.spaces if len(s.layers) == 3],
            "compare": [("smollm2", "gemma3")],
            "inference": study.inference.model_copy(update={"permutations": 100, "rematches": 9, "same_token": 9}),
            "families": None,
            "transfer": TransferSpec(draws=19, loss_tokens=0, pairs=12, contexts=2, steering=0),
        }
    )
    run = uf.run(small, tmp_path / "run")
    kept = run.pairs[run.pairs["kept"]]
    (cell,) = run.info["pairs"]
    # Partners carry what exchanged ones do not, and do alike where they fire.
    carried = run.transfer[run.transfer["variant"] == "own_and_from_a"]
    assert (carried["carried"] > carried["null_mean"] + 0.3).all()
    assert cell["effects"]["removed"]["value"] > cell["effects"]["removed"]["control"]
    assert len(kept) > 200
    assert abs(kept["correlation_heldout"].mean() - kept["correlation"].mean()) < 0.1
    median = len(cell["best_r"]["a_to_b"]) // 2
    assert cell["best_r"]["a_to_b"][median] > 2 * cell["best_r_shifted"]["a_to_b"][median]
    assert cell["share_a"] > 0.9
    svcca = run.scores[(run.scores["metric"] == "svcca") & (run.scores["settings"] == '{"dims": 32}')].iloc[0]
    assert svcca["score"] > svcca["null_mean"] + 5 * svcca["null_sd"]
    assert svcca["p"] == pytest.approx(1 / 101)
    # Tokens alone give most of the pairs, other text fewer and others (many, for so short a text); most pairs are more
    # than their token.
    other_text, same_token = (np.mean(cell[null]["kept"]) for null in ("rematch", "same_token"))
    assert other_text < 0.5 * len(kept)
    assert np.mean(cell["rematch"]["same"]) < 0.05 * len(kept)
    assert 0.4 * len(kept) < same_token < len(kept)
    assert np.mean(cell["same_token"]["same"]) > 0.4 * len(kept)
    assert cell["beyond_token"]["more_than_a_token"] > 0.7
    assert 0.3 < cell["beyond_token"]["mean_token_share"] < 0.9
    # Most pairs hold in an encyclopaedia, too, a little weaker; a control's less often.
    there = cell["elsewhere"]
    assert there["judged"] > 0.7 * there["pairs"]
    assert there["hold_share"] > 0.85
    assert there["mean_here"] - 0.2 < there["mean"] < there["mean_here"] + 0.05
    assert there["chance"] < 0.1
    assert _words_agree(kept.nlargest(100, "correlation")) > 0.5
    again = uf.run(small, tmp_path / "again")
    assert np.array_equal(again.pairs["correlation"], run.pairs["correlation"])


def test_articles_of_the_encyclopaedia(study: Study) -> None:
    """Prose without markup, in articles of like length."""
    assert study.text.elsewhere is not None
    texts = pd.read_parquet(study.text.elsewhere.source)["text"]
    assert len(texts) == 95
    assert texts.str.len().between(1000, 4000).all()
    assert not texts.str.contains(r"\[\[|\]\]|\{\{|\}\}|''|<ref|\|").any()
    assert texts.str.match(r"[A-Z\"']").mean() > 0.9


@pytest.mark.parametrize(("name", "layer"), [("smollm2", 15), ("gemma3", 9)])
def test_edits_of_real_models_by_copies(study: Study, name: str, layer: int) -> None:
    """As in the demo, in bfloat16: the same predictions as a window for each edit, far closer than the edits move."""
    spec, point = study.models[name], HookPoint(layer)
    model = load_language_model(spec.name, [point], dtype=spec.dtype, whole=True)
    ids = torch.tensor([model.tokenizer(_corpus(study, documents=1).parts(0)[0].text)["input_ids"][:64]])
    x = model.activations(ids, [point])[point].float()
    position = np.array([1, 20, 20, 40, 63])
    # Half of the way to the activation at another of the positions.
    delta = 0.5 * (x[0, position[[3, 3, 4, 0, 1]]] - x[0, position])
    edits = Edits(np.zeros(5, np.int64), position, delta)
    assert copies_agree(model, ids, point, edits)
    (copies,), (plain,) = (list(edited_logits(model, ids, point, edits, way=way)) for way in ("copies", "plain"))
    assert np.array_equal(copies.edit, plain.edit)
    p, q, clean = (
        batch.float().log_softmax(-1) for batch in (plain.logits, copies.logits, plain.clean[plain.place.tolist()])
    )
    moved, apart = ((p.exp() * (p - other)).sum(-1) for other in (clean, q))
    assert float(moved.median()) > 0.1
    assert float(apart.max()) < 0.1 * float(moved.median())


def test_strings_and_direct_effects_of_real_models(study: Study) -> None:
    """Read out directly, the last block's output is the logits up to its scale: linear is exact there."""
    smollm2, gemma3 = (
        load_language_model(study.models[name].name, [HookPoint(0)], dtype=study.models[name].dtype, whole=True)
        for name in ("smollm2", "gemma3")
    )
    sizes = [int(model.causal.config.vocab_size) for model in (smollm2, gemma3)]
    shared = shared_strings(smollm2.tokenizer, gemma3.tokenizer, vocabulary_a=sizes[0], vocabulary_b=sizes[1])
    assert 40_000 < len(shared) < sizes[0]
    assert {" government", " Monday", "ing", ".", "\n", " oil"} <= set(shared.strings)
    assert (shared.first_a >= 0).mean() > 0.98
    said = []
    for model, exact in ((smollm2, shared.exact_a), (gemma3, shared.exact_b)):
        tokens = np.flatnonzero(exact >= 0)[np.argsort(exact[exact >= 0])]
        last = HookPoint(model.n_layers - 1)
        ids = torch.tensor([model.tokenizer("The price of oil fell to 40 dollars a")["input_ids"]])
        x = model.activations(ids, [last])[last][0, 1:]
        with torch.inference_mode():
            logits = model.causal(input_ids=ids, use_cache=False).logits[0, 1:, torch.from_numpy(tokens)]
        ((_, effects),) = direct_effects(readout(model, exact, len(shared)), x)
        assert pearson(effects, logits.float().numpy()).min() > 0.9995
        said.append([shared.strings[i] for i in extremes(effects)[0][-1]])
    assert " barrel" in said[0]
    assert " barrel" in said[1]


def test_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "_SMOLLM2", ("no_such_package", "x.gguf"))
    with pytest.raises(uf.UserError, match=r"no-such-package: unifeat demo --install"):
        demo.prepare(tmp_path)


def _corpus(study: Study, documents: int):
    return build_corpus(study.text.source, documents=documents, tokens=None, count_tokens=len, tokenizer_digest="")


def _words_agree(pairs) -> float:
    def words(tokens: list[str]) -> set[str]:
        return {token.strip().casefold() for token in tokens}

    shared = [bool(words(a) & words(b)) for a, b in zip(pairs["top_tokens_a"], pairs["top_tokens_b"], strict=True)]
    return float(np.mean(shared))
