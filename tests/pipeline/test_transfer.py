"""Running models on each other's features, in a study of two tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import unifeat as uf
from homes import Place, write_study
from unifeat.models import load_language_model
from unifeat.models.activations import run_group
from unifeat.pipeline.encode import prepare_spaces
from unifeat.pipeline.match import compare
from unifeat.pipeline.transfer import Direction, Rebuilder, rebuild_unit
from unifeat.pipeline.transfer_loss import _readings, loss_unit, summarise_losses
from unifeat.saes import load_sae
from unifeat.saes.quality import Variance
from unifeat.study.read import load_study
from unifeat.transfer.splicing_loss import Losses, spliced_losses

TRANSFER = {"cells": "best", "draws": 9, "loss_draws": 3, "loss_tokens": 200}
ACTIVATIONS = {"rows": 4000, "dims": 3}
COLUMNS = [
    *("space_a", "space_b", "direction", "variant", "tokens", "fvu", "fvu_low", "fvu_high", "carried", "carried_low"),
    *("carried_high", "null_mean", "null_sd", "p", "flags", "loss_tokens", "loss", "kl", "recovered", "recovered_low"),
    *("recovered_high", "null_recovered_mean", "null_recovered_sd", "p_recovered"),
]


@pytest.fixture
def path(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    return write_study(place.home, transfer=TRANSFER, activations=ACTIVATIONS)


class Ready:
    """A study that is encoded, and the first direction of one of its cells."""

    def __init__(self, path: Path) -> None:
        self.study = load_study(path)
        prepared = prepare_spaces(self.study, force=True)
        self.corpus, self.spaces = prepared.corpus, {space.name: space for space in prepared.spaces}
        self.cell = compare(self.study, self.spaces["one@2"], self.spaces["two@1"], prepared.corpus.documents)
        self.direction = Direction.both(self.cell)[0]
        assert self.study.transfer is not None
        self.spec = self.study.transfer
        self.unit = rebuild_unit(self.direction, self.spec, 0.95)


@pytest.fixture
def ready(path: Path) -> Ready:
    return Ready(path)


def test_a_study(path: Path) -> None:
    run = uf.run(path, force=True)
    table, pairs = run.transfer, run.transfer_pairs
    assert table is not None
    assert pairs is not None
    assert list(table) == COLUMNS
    # `best`: of the two cells of the one comparison, the one with more pairs
    kept = {(facts["space_a"], facts["space_b"]): facts["kept"] for facts in run.info["pairs"]}
    assert set(zip(table["space_a"], table["space_b"], strict=True)) == {max(kept, key=lambda pair: kept[pair])}
    for _, own in table.groupby("direction"):
        by = own.set_index("variant")
        assert by.loc["own", "carried"] == pytest.approx(1)
        assert by.loc["matched_at_mean", "carried"] == pytest.approx(0)
        assert by.loc["all_at_mean", "fvu"] == pytest.approx(1, abs=0.15)
        assert by.loc["clean", "kl"] == 0
        assert by.loc["own_and_from_a", ["p", "null_mean"]].notna().all()
        if by.loc["matched_at_mean", "loss"] > by.loc["own", "loss"]:  # an SAE of a tiny model may do harm
            assert by.loc["own_and_from_a", ["p_recovered", "null_recovered_mean"]].notna().all()
        assert (own["loss_tokens"] > 100).all()
    for direction in ("a_to_b", "b_to_a"):
        own = pairs[pairs["direction"] == direction]
        by = table[table["direction"] == direction].set_index("variant")["fvu"]
        assert own["lowered"].sum() == pytest.approx(by["matched_at_mean"] - by["own_and_from_a"], abs=1e-6)
        both = run.space_pair(*table.iloc[0][["space_a", "space_b"]]).query("kept")
        assert set(own["feature_a"]) <= set(both["feature_a"])
        assert set(own["feature_b"]) <= set(both["feature_b"])
    assert "One model on another’s features" in run.report.read_text()


def test_own_is_what_the_check_finds(ready: Ready, place: Place) -> None:
    """FVU of `own` on the judged tokens, from the models and SAEs themselves."""
    direction, target = ready.direction, ready.direction.target
    variance = Variance()
    sae = load_sae(place.home / target.info["sae"])
    for rows in direction.stretches():
        x = torch.from_numpy(rows.x_b[~direction.fitting[rows.document]])
        with torch.no_grad():
            variance.add(x, sae.decode(sae.encode(x)))
    own = ready.unit.result().rows.set_index("variant").loc["own"]
    assert own["fvu"] == pytest.approx(variance.fvu, rel=1e-5)
    assert own["tokens"] == variance.rows


def test_gains_are_those_of_the_array_function(ready: Ready) -> None:
    """The same as `uf.carried` on the sampled tokens."""
    direction, found = ready.direction, ready.unit.result()
    parts = list(direction.stretches())
    from scipy import sparse

    codes = [sparse.csr_array(sparse.vstack([getattr(p, name) for p in parts])) for name in ("codes_a", "codes_b")]
    x, document = (np.concatenate([getattr(p, name) for p in parts]) for name in ("x_b", "document"))
    rebuilder = Rebuilder(direction, found.fits)
    decoder = rebuilder.decoding.weights(np.arange(rebuilder.decoding.features))
    constant = rebuilder.decoding.parts(x[:1], codes[1][:1]).constant[0]
    pairs = direction.pairs.rename(columns={"source_feature": "feature_a", "target_feature": "feature_b"})
    from unifeat.inference.strata import strata_of

    same = uf.carried(
        codes[0], codes[1], pairs, decoder, x, bias=constant, documents=document, fit=direction.fitting[document],
        strata=strata_of(pairs["count"].to_numpy()), draws=9, seed=direction.seed,
    )  # fmt: skip
    by = found.rows.set_index("variant")
    for name, value in same.fvu.items():
        assert by.loc[name, "fvu"] == pytest.approx(value, rel=1e-4), name
    mixed = by.loc["own_and_from_a"]
    assert mixed["carried"] == pytest.approx(same.value, abs=1e-4)
    assert (mixed["null_mean"], mixed["p"]) == (pytest.approx(same.null_mean, abs=1e-3), same.p)
    np.testing.assert_allclose(found.pairs["gain"], same.pairs["gain"], atol=1e-6)


def whole_model(ready: Ready) -> Any:
    spec = ready.study.models[ready.direction.target.info["model"]]
    (planned,) = ready.direction.target.loader.spaces  # type: ignore[union-attr]
    return load_language_model(spec.name, [planned.point], dtype=spec.dtype, whole=True), planned.writes_at


def test_only_sampled_tokens_are_replaced(ready: Ready) -> None:
    """The windows' replaced positions are the sampled tokens, each with the activation it had."""
    model, point = whole_model(ready)
    seen = 0
    for reading in _readings(ready.direction, ready.corpus, model, 200):
        for window, at in reading.windows:
            assert not ready.direction.fitting[window.document]
            ids = torch.from_numpy(window.ids.astype(np.int64))[None]
            value = model.activations(ids, [point])[point][0].numpy()
            np.testing.assert_allclose(value[at >= 0], reading.rows.x_b[at[at >= 0]], rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(window.ids[at >= 0], reading.rows.places_b.token[at[at >= 0]])
            seen += int((at >= 0).sum())
    assert 200 <= seen < 1500
    groups = run_group(model, ready.corpus.parts(0), [point], ready.direction.target.windowing)  # type: ignore[arg-type]
    assert len(groups.places)


def test_the_clean_activation_changes_no_loss(ready: Ready) -> None:
    model, point = whole_model(ready)
    for reading in _readings(ready.direction, ready.corpus, model, 100):
        losses = Losses()
        rows = reading.rows

        def same(chosen: np.ndarray, rows: Any = rows) -> Any:
            yield "same", rows.x_b[chosen].astype(np.float64)
            yield "zeros", np.zeros_like(rows.x_b[chosen], np.float64)

        spliced_losses(model, reading.windows, point, same, losses)
        for document, nats in losses.nats["clean"].items():
            assert losses.nats["same"][document] == pytest.approx(nats, rel=1e-5)
            assert losses.divergence["same"][document] == pytest.approx(0, abs=1e-4)
            assert losses.divergence["zeros"][document] > 0.01


def test_losses_are_those_of_the_model_with_other_activations(ready: Ready) -> None:
    """Cross-entropies of `own`, from the whole model with a hook of its own."""
    unit = loss_unit(ready.direction, ready.unit, ready.corpus, ready.spec)
    table = unit.result()
    model, point = whole_model(ready)
    rebuilder = Rebuilder(ready.direction, ready.unit.result().fits)
    expected: dict[str, float] = {"own": 0.0, "clean": 0.0}
    tokens = 0
    for reading in _readings(ready.direction, ready.corpus, model, ready.spec.loss_tokens):
        for window, at in reading.windows:
            ids = torch.from_numpy(window.ids.astype(np.int64))[None]
            chosen = reading.rows.at(at[at >= 0])
            own = torch.from_numpy(rebuilder.decoding.parts(chosen.x_b, chosen.codes_b).own).float()

            def put(_: Any, __: Any, output: Any, at: Any = at, own: Any = own) -> Any:
                value = (output[0] if isinstance(output, tuple) else output).clone()
                value[0, torch.from_numpy(at >= 0)] = own
                return (value, *output[1:]) if isinstance(output, tuple) else value

            scored = torch.from_numpy(at[:-1] >= 0)
            for name in expected:
                handle = model.blocks[point.layer].register_forward_hook(put) if name == "own" else None
                with torch.no_grad():
                    logits = model.causal(input_ids=ids, use_cache=False).logits[0, :-1][scored]
                if handle:
                    handle.remove()
                expected[name] += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:][scored], reduction="sum"))
            tokens += int(scored.sum())
    found = table.groupby("variant")["nats"].sum()
    for name, nats in expected.items():
        assert found[name] == pytest.approx(nats, rel=1e-4)
    assert table.loc[table["variant"] == "clean", "tokens"].sum() == tokens
    rows = summarise_losses(table, 0.95, 0).set_index("variant")
    assert rows.loc["clean", "loss"] == pytest.approx(expected["clean"] / tokens, rel=1e-4)


def test_a_window_is_read_in_parts(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a window and large a vocabulary are, only so many logits are held; losses stay what they are."""
    from unifeat.models.resuming import Again
    from unifeat.transfer import splicing_loss

    model, point = whole_model(ready)
    vocabulary = model.causal.config.vocab_size
    readings = list(_readings(ready.direction, ready.corpus, model, 200))
    held: list[int] = []
    logits = Again.logits

    def counted(self: Again) -> torch.Tensor:
        found = logits(self)
        held.append(len(found))
        return found

    monkeypatch.setattr(Again, "logits", counted)

    def read() -> Losses:
        losses = Losses()
        for reading in readings:

            def zeros(chosen: np.ndarray, rows: Any = reading.rows) -> Any:
                yield "zeros", np.zeros_like(rows.x_b[chosen], np.float64)

            spliced_losses(model, reading.windows, point, zeros, losses)
        return losses

    whole = read()
    assert max(held) > 5
    held.clear()
    monkeypatch.setattr(splicing_loss, "_LOGITS", 5 * vocabulary)
    monkeypatch.setattr(splicing_loss, "_AT_A_TIME", 2 * vocabulary)
    parts = read()
    assert max(held) == 5
    assert parts.tokens == whole.tokens
    for name in ("clean", "zeros"):
        assert parts.nats[name] == pytest.approx(whole.nats[name], rel=1e-5)
    assert parts.divergence["zeros"] == pytest.approx(whole.divergence["zeros"], rel=1e-4)


def test_what_is_recovered() -> None:
    """Six documents of two tokens each, by hand."""
    nats = {"clean": 3.0, "own": 4.0, "matched_at_mean": 8.0, "own_and_from_a": 5.0, "draw 0": 8.0, "draw 1": 7.0}
    nats |= {"own_matched": 9.0, "from_a": 10.0, "all_at_mean": 11.0, "affine": 6.0}
    table = pd.DataFrame(
        [
            {"variant": name, "document": document, "tokens": 2, "nats": value, "divergence": value - 3}
            for name, value in nats.items()
            for document in range(6)
        ]
    )
    rows = summarise_losses(table, 0.95, 0).set_index("variant")
    assert list(rows.index) == [name for name in nats if not name.startswith("draw")]
    expected = {"own": 1.0, "matched_at_mean": 0.0, "own_and_from_a": 0.75, "from_a": 0.5, "own_matched": 1.0}
    for name, value in expected.items():
        assert rows.loc[name, ["recovered", "recovered_low", "recovered_high"]].tolist() == pytest.approx([value] * 3)
    assert rows.loc[["clean", "affine"], "recovered"].isna().all()
    mixed = rows.loc["own_and_from_a"]
    assert mixed[["null_recovered_mean", "p_recovered"]].tolist() == pytest.approx([0.125, 1 / 3])
    assert mixed[["loss", "kl", "loss_tokens"]].tolist() == [2.5, 1.0, 12]
    # A draw that exchanges nothing reaches the value, whatever the last bits of the models' float32 are.
    tie = table.assign(nats=table["nats"].where(table["variant"] != "draw 1", 5.0 * (1 + 1e-8)))
    tied = summarise_losses(tie, 0.95, 0).set_index("variant").loc["own_and_from_a"]
    assert tied["p_recovered"] == pytest.approx(2 / 3)
    harm = table.assign(nats=table["nats"].where(table["variant"] != "own", 9.0))
    assert np.isnan(summarise_losses(harm, 0.95, 0).set_index("variant").loc["own_and_from_a", "recovered"])
    assert not len(summarise_losses(table.iloc[:0], 0.95, 0))


def test_no_losses(path: Path, place: Place) -> None:
    run = uf.run(write_study(place.home, transfer=TRANSFER | {"loss_tokens": 0}, activations=ACTIVATIONS), force=True)
    assert run.transfer is not None
    assert run.transfer["loss"].isna().all()
    assert run.transfer["fvu"].notna().all()


def test_activations_are_sampled_without_being_asked_for(place: Place, path: Path) -> None:
    study = load_study(write_study(place.home, transfer={"cells": [["two@1", "one@0"]]}))
    assert study.activations is None
    assert study.sampled is not None
    assert prepare_spaces(study, force=True).spaces[0].activations is not None


@pytest.mark.parametrize(
    ("transfer", "said"),
    [
        (
            {"cells": [["one@2", "two@7"]]},
            r"transfer.cells names 'two@7', which is no space \(did you mean 'two@1'\?\)",
        ),
        ({"cells": "all"}, "transfer.cells"),
        ({"draws": 0}, "transfer.draws"),
        ({"loss_tokens": -1}, "transfer.loss_tokens"),
    ],
)
def test_wrong_settings(place: Place, transfer: dict[str, Any], said: str) -> None:
    with pytest.raises(uf.UserError, match=said):
        load_study(write_study(place.home, transfer=transfer))


def test_a_cell_that_is_not_compared(path: Path, place: Place) -> None:
    study = write_study(place.home, transfer={"cells": [["one@0", "one@2"]]})
    with pytest.raises(uf.UserError, match=r"one@0 × one@2 is not compared; the study compares one@0 × two@1"):
        uf.run(study, force=True)


def test_codes_that_no_sae_decodes(place: Place) -> None:
    spaces = [
        {"model": "one", "layers": [0], "sae": "saes/one_{layer}", "codes": "pre_activation"},
        {"model": "two", "layers": 1, "sae": "saes/two_{layer}"},
    ]
    with pytest.raises(uf.UserError, match="transfer decodes the codes of one: set its codes to output"):
        load_study(write_study(place.home, spaces=spaces, transfer={}))


def test_results_are_stored(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    from unifeat.pipeline import transfer, transfer_loss

    first = ready.unit.result()
    losses = loss_unit(ready.direction, ready.unit, ready.corpus, ready.spec)
    table = losses.result()

    def fail(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(transfer, "_rebuild", fail)
    monkeypatch.setattr(transfer_loss, "_losses", fail)
    again = rebuild_unit(ready.direction, ready.spec, 0.95).result()
    pd.testing.assert_frame_equal(again.rows, first.rows)
    np.testing.assert_array_equal(again.fits.fitted.slope, first.fits.fitted.slope)
    pd.testing.assert_frame_equal(loss_unit(ready.direction, ready.unit, ready.corpus, ready.spec).result(), table)
    for module in (transfer, transfer_loss):
        with monkeypatch.context() as patch:
            patch.setattr(module, "VERSION", 99)
            again = rebuild_unit(ready.direction, ready.spec, 0.95)
            with pytest.raises(AssertionError, match="computed again"):
                loss_unit(ready.direction, again, ready.corpus, ready.spec).result()
            if module is transfer_loss:  # what is rebuilt stays
                pd.testing.assert_frame_equal(again.result().rows, first.rows)
