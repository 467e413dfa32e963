"""The study files of `studies/paper/`: what they name exists, the published choices take effect, the right ones too."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from papers import DOCUMENTS, MODELS, STUDIES, RunStudy, saes_of, study_data

import unifeat as uf
from hub import Hub
from unifeat.published.beside import beside, differences
from unifeat.runs.folder import Run
from unifeat.study.read import load_study
from unifeat.study.spec import NON_CONCEPT_TOKENS, Study

pytestmark = pytest.mark.slow

FILES = sorted(path.stem for path in STUDIES.glob("*.yaml"))
SOUND = [name for name in FILES if not name.endswith("-published")]
LAYERS = {"pythia-70m": [1, 3], "pythia-160m": [3, 5], "gemma-2b": [6, 17], "gemma-2-2b": [6, 14]}
CONTROLS = {"pythia": 3, "gemma": 6}
NULLS = {"permutations": 19, "rematches": 2, "bootstraps": 20, "subsamples": 10}


class TestFiles:
    def test_there_are_eight(self) -> None:
        stems = [f"{models}{kind}" for models in ("gemma", "pythia") for kind in ("", "-semantic")]
        assert sorted([*stems, *(f"{stem}-published" for stem in stems)]) == FILES

    @pytest.mark.parametrize("name", FILES)
    def test_every_sae_is_there_and_of_its_kind(self, name: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        """Names go through the registry and the hub's client; every layer is one that the model has."""
        hub.use(monkeypatch)
        kinds = {"sae-pythia": "topk", "gemma-2b-res-jb": "standard", "gemma-scope": "jumprelu"}
        for sae, model in saes_of(study_data(name)).items():
            (kind,) = [kind for part, kind in kinds.items() if part in sae]
            loaded = uf.load_sae(sae)
            assert loaded.cfg.architecture() == kind
            (layer,) = re.findall(r"layers?[._](\d+)|blocks\.(\d+)", sae)
            assert int("".join(layer)) < MODELS[model][1]

    @pytest.mark.parametrize("name", SOUND)
    def test_published_and_right_differ_in_their_choices_alone(self, name: str) -> None:
        right, published = (load_study(STUDIES / f"{stem}.yaml") for stem in (name, f"{name}-published"))
        assert published.preset == "arxiv-2410.06981"
        assert right.preset is None
        assert right.published == published.published == "arxiv-2410.06981"
        assert right.text == published.text
        assert right.models | published.models == right.models
        assert [(s.model, s.layers, s.sae) for s in right.spaces[:2]] == [
            (s.model, s.layers, s.sae) for s in published.spaces
        ]
        models = [spec.name.rsplit("/")[-1] for spec in published.models.values()]
        assert differences(published.model_dump(mode="json"), models) == []
        departs = {key for key, _, _ in differences(right.model_dump(mode="json"), models)}
        assert departs >= {f"mask.{part}" for part in ("special", "first", "sinks", "pads")}
        assert departs >= {"spaces.hook", "spaces.codes", "matching.method", "matching.heldout", "geometry"}

    def test_the_preset_is_written_out_and_repeats(self) -> None:
        from unifeat.study.read import dump_study

        study = load_study(STUDIES / "pythia-published.yaml")
        assert "method: first-seen" in dump_study(study)
        without = study.model_dump(mode="json") | {"preset": None}
        assert Study.model_validate(without).model_dump() == study.model_dump() | {"preset": None}

    def test_what_a_study_says_itself_stands(self) -> None:
        data = study_data("pythia-published") | {"matching": {"method": "mutual"}, "mask": {"pads": True}}
        data["spaces"][0]["hook"] = "resid_post"
        study = Study.model_validate(data)
        assert (study.matching.method, study.matching.heldout) == ("mutual", False)
        assert (study.mask.pads, study.mask.sinks) == (True, False)
        assert [group.hook for group in study.spaces] == ["resid_post", "resid_pre"]


@pytest.fixture(scope="session")
def pythia(run_study: RunStudy) -> Run:
    return run_study("pythia-published", LAYERS, inference={"permutations": 19})


@pytest.fixture(scope="session")
def gemma(run_study: RunStudy) -> Run:
    return run_study("gemma-published", LAYERS, inference={"permutations": 19})


class TestPublishedPythia:
    def test_pads_and_all_else_are_rows(self, pythia: Run) -> None:
        for space in pythia.info["spaces"].values():
            assert space["tokens_read"] == space["tokens_kept"] == DOCUMENTS * 300
            assert set(space["masked"].values()) == {0}
            assert 0 < space["padding"] < space["tokens_read"]
            assert space["hook"] == "resid_pre"
        for facts in pythia.info["pairs"]:
            assert facts["tokens_aligned"] == DOCUMENTS * 300  # pads pair with pads
            assert facts["tokens_heldout"] == 0

    def test_codes_are_relu_of_the_encoder_at_the_block_s_input(
        self, pythia: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With transformers alone: `hidden_states[L]`, padded windows, no top-k."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        hub.use(monkeypatch)
        name = "EleutherAI/pythia-70m"
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
        texts = pd.read_json(pythia.info["text"]["source"], lines=True)["text"]
        ids = [tokenizer(text)["input_ids"][:300] for text in texts]
        pads = 300 * len(ids) - sum(map(len, ids))
        padded = torch.tensor([own + [tokenizer.eos_token_id] * (300 - len(own)) for own in ids])
        with torch.inference_mode():
            states = model(padded, output_hidden_states=True).hidden_states
        for layer in LAYERS["pythia-70m"]:
            sae = uf.load_sae(f"EleutherAI/sae-pythia-70m-32k/layers.{layer}")
            active = ((states[layer] - sae.b_dec) @ sae.W_enc + sae.b_enc > 0).sum(-1).float().mean()
            info = pythia.info["spaces"][f"pythia-70m@{layer}"]
            assert info["l0"] == pytest.approx(float(active), abs=0.01)
            assert info["l0"] > 4 * sae.cfg.k
            assert info["padding"] == pads
            assert info["encoded_as"] == "pre_activation"

    @pytest.mark.parametrize("space_b", ["pythia-160m@3", "pythia-160m@5"])
    def test_pairs_are_those_of_the_published_loop(self, pythia: Run, space_b: str) -> None:
        """Each B's best A; tokens; an A once, to the first B; then r > 0.1."""
        table = pythia.space_pair("pythia-70m@3", space_b)
        kept, seen, best_of = set(), set(), Counter()
        for b, own in table.groupby("feature_b"):  # in the order of B's features
            best = own.sort_values(["correlation", "feature_a"], ascending=[False, True]).iloc[0]
            best_of[best["feature_a"]] += 1
            words_a, words_b = ([t.strip() for t in best[f"top_tokens_{side}"]] for side in "ab")
            junk = {*NON_CONCEPT_TOKENS} & {*words_a, *words_b, *best["top_tokens_a"], *best["top_tokens_b"]}
            common = {w.casefold() for w in words_a} & {w.casefold() for w in words_b}
            if junk or not common or best["feature_a"] in seen:
                continue
            seen.add(best["feature_a"])
            if best["correlation"] > 0.1:
                kept.add((int(best["feature_a"]), int(b)))
        own = table[table["kept"]]
        assert set(zip(own["feature_a"], own["feature_b"], strict=True)) == kept
        assert len(kept) > 3
        assert max(best_of.values()) > 1
        assert table["correlation_heldout"].isna().all()

    def test_svcca_is_the_correlation_of_two_first_components(
        self, pythia: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.use(monkeypatch)
        own = pythia.space_pair("pythia-70m@3", "pythia-160m@5").query("kept")
        first = []
        for size, layer, side in (("70m", 3, "a"), ("160m", 5, "b")):
            sae = uf.load_sae(f"EleutherAI/sae-pythia-{size}-32k/layers.{layer}")
            rows = sae.W_dec.numpy()[own[f"feature_{side}"].to_numpy()].astype(float)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            u, _, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
            first.append(u[:, 0])
        scores = pythia.scores.query("space_a == 'pythia-70m@3' and space_b == 'pythia-160m@5'").set_index("metric")
        assert scores.loc["svcca", "score"] == pytest.approx(abs(np.corrcoef(first)[0, 1]), abs=1e-5)
        assert set(pythia.scores["metric"]) == {"svcca", "rsa"}

    def test_the_report_sets_the_published_numbers_beside(self, pythia: Run) -> None:
        table = beside(pythia).query("metric == 'svcca' and layer_a == 3 and layer_b == 5")
        assert table["score_published"].round(3).tolist() == [0.661]
        section = published_section(pythia)
        assert "4 of this run’s cells were published" in section
        assert "makes the same choices as the paper" in section
        (row,) = re.findall(r"<tr><th[^>]*>pythia-70m@3</th><th[^>]*>pythia-160m@5</th>(.*?)</tr>", section, re.S)
        shown = re.findall(r">([^<>]+)</td>", row)
        measured = float(table["score"].iloc[0])
        assert shown[0].replace(",", "") == str(int(table["n_published"].iloc[0]))
        assert shown[1:4] == [str(int(table["n_pairs"].iloc[0])), "0.66", f"{measured:.2f}"]

    def test_the_wrong_layer_is_reported_and_stops_nothing(self, pythia: Run) -> None:
        warnings = [text for space in pythia.info["spaces"].values() for text in space["warnings"]]
        assert any("hook_resid_post, but is given blocks.3.hook_resid_pre" in text for text in warnings)


def published_section(run: Run) -> str:
    html = run.report.read_text(encoding="utf-8")
    (section,) = re.findall(r'<section id="published">.*?</section>', html, re.S)
    return section


def test_published_gemma_correlates_the_output(gemma: Run) -> None:
    for name, space in gemma.info["spaces"].items():
        assert space["encoded_as"] == "output"
        assert space["tokens_read"] == space["tokens_kept"] == DOCUMENTS * 150  # BOS is a row, too
        assert space["padding"] > 0, name
    assert {space["architecture"] for space in gemma.info["spaces"].values()} == {"standard", "jumprelu"}
    assert {facts["tokens_aligned"] for facts in gemma.info["pairs"]} == {DOCUMENTS * 150}
    table = beside(gemma)
    assert len(table) == 8
    assert (table["matching"] == "one-to-one").all()
    assert "makes the same choices as the paper" in published_section(gemma)


@pytest.mark.parametrize("name", ["pythia", "gemma"])
def test_the_right_choices(name: str, run_study: RunStudy) -> None:
    """Masks, held-out documents, intervals, rematches and controls, and the published numbers all the same."""
    controls = {group: [CONTROLS[name]] for group in ("random-weights", "random-directions")}
    run = run_study(name, LAYERS | controls, inference=NULLS)
    for space in run.info["spaces"].values():
        assert space["padding"] == 0
        assert space["masked"]["first"] == DOCUMENTS
        assert (space["hook"], space["encoded_as"]) == ("resid_post", "output")
    assert [space["control"] for space in run.info["spaces"].values()] == [None] * 4 + [
        "random weights",
        "random directions",
    ]
    ours = [f for f in run.info["pairs"] if f["space_b"].split("@")[0] not in ("random-weights", "random-directions")]
    assert (len(run.info["pairs"]), len(ours)) == (8, 4)
    for facts in ours:
        assert facts["tokens_heldout"] > 0
        assert len(facts["rematch"]["kept"]) == 2
        assert facts["intervals"]["kept"]["low"] <= facts["kept"] <= facts["intervals"]["kept"]["high"]
    assert run.pairs.loc[run.pairs["kept"], "correlation_heldout"].notna().any()
    scores = run.scores
    assert set(scores["metric"]) == {"svcca", "heldout_cca", "cka", "rsa", "procrustes"}
    known = scores[scores["score"].notna()]
    for column in ("corrected", "q", "rematch_mean", "rematch_p"):
        assert known[column].notna().any(), column
    assert known["ci_low"].notna().any()
    table = beside(run)
    assert len(table) == 8
    assert table.query("metric == 'svcca'")["settings"].unique().tolist() == ['{"dims": 1}']
    section = published_section(run)
    for line in ("attention sinks masked", "block output", "mutual"):
        assert line in section


class TestSemantic:
    @pytest.mark.parametrize("name", ["pythia", "gemma"])
    def test_published(self, name: str, run_study: RunStudy) -> None:
        run = run_study(f"{name}-semantic-published", LAYERS, inference={"permutations": 19})
        names = {"Time", "Calendar", "People/Roles", "Nature", "Emotions", "MonthNames", "Countries", "Biology"}
        assert set(run.scores["subspace"]) == {"all", *names}
        members = pd.read_parquet(run.folder / "members.parquet")
        assert members["hits"].min() == 1
        assert run.scores["subset_p"].isna().all()
        table = beside(run)
        assert set(table["subspace"]) == {"all", *names}
        assert table.query("metric == 'svcca'")["score"].notna().any()
        found = table.query("subspace == 'Nature'")
        assert found["score"].notna().any()
        section = published_section(run)
        assert "SVCCA (dims 1) by category" in section
        assert "makes the same choices as the paper" in section

    @pytest.mark.parametrize("name", ["pythia", "gemma"])
    def test_right(self, name: str, run_study: RunStudy) -> None:
        run = run_study(f"{name}-semantic", LAYERS, inference=NULLS, subspaces={"subsets": 19})
        members = pd.read_parquet(run.folder / "members.parquet")
        assert members["hits"].min() == 2
        assert any("random words" in subspace for subspace in run.scores["subspace"])
        inside = run.scores[run.scores["subspace"] != "all"]
        # Random subsets stand beside pairs kept in the category; on so little text Gemma's stand-ins keep none there.
        assert inside["subset_p"].notna().any() == (name == "pythia")
        assert inside.loc[inside["subset_n"] == 0, "subset_p"].isna().all()
        assert inside["q"].notna().any()
        rates = pd.read_parquet(run.folder / "rates.parquet")
        assert rates["p"].notna().any()
        assert "hits needed for membership" in published_section(run)


def test_a_study_that_does_not_ask_has_no_section(run_study: RunStudy, pythia: Run, monkeypatch: Any) -> None:
    from unifeat.report.sections import published

    asked = published.study_of(pythia)
    monkeypatch.setattr(published, "study_of", lambda run: asked | {"published": None})
    assert published.published(pythia, {}) is None
