"""What `unifeat plan` says, against what a run then counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unifeat as uf
from homes import Place, write_study
from unifeat.codes.align import align
from unifeat.codes.store import CodeStore
from unifeat.errors import UserError
from unifeat.models.language import load_language_model, read_config
from unifeat.models.sizes import sizes_of
from unifeat.pipeline import encode
from unifeat.pipeline.plan import GPUS, plan_study
from unifeat.report.terminal_plan import duration, short, show_plan, size
from unifeat.study.plan import StudyPlan
from unifeat.study.read import load_study
from unifeat.vocabulary.hook_points import HookPoint


@pytest.fixture
def here(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    monkeypatch.setattr("unifeat.models.language.causal_lm", lambda *_, **__: pytest.fail("weights were read"))
    return place


@pytest.fixture
def plan(here: Place) -> StudyPlan:
    return plan_study(load_study(here.study))


def test_tokens_codes_and_products_are_those_of_the_run(here: Place, plan: StudyPlan) -> None:
    run = uf.open(here.run)
    spaces = run.info["spaces"]
    for model in plan.models:
        own = [space for space in spaces.values() if space["model"] == model.name]
        assert model.tokens == pytest.approx(own[0]["tokens_read"], rel=0.15)
        assert model.spaces == len(own)
    assert plan.cells == len(run.info["pairs"])
    stores = {name: CodeStore.open(Path(space["codes"])) for name, space in spaces.items()}
    products = 0
    for pair in run.info["pairs"]:
        for a, b in align(stores[pair["space_a"]], stores[pair["space_b"]]).chunks():
            products += int((np.diff(a.indptr) * np.diff(b.indptr)).sum())
    assert plan.products == pytest.approx(1.5 * products, rel=0.5)  # the tiny SAEs do not say how many features fire


def test_sizes_are_those_of_the_loaded_model(place: Place) -> None:
    name = str(place.home / "model-one")
    for layer in (0, 2):
        model = load_language_model(name, [HookPoint(layer)], dtype="float32")
        sizes = sizes_of(read_config(name, "float32"), layer, 4)
        blocks = sum(p.numel() for block in model.blocks for p in block.parameters())
        assert (sizes.parameters, sizes.blocks) == (blocks, layer + 1)
        table = model.decoder.get_input_embeddings().weight.numel()
        assert sizes.bytes == 4 * (blocks + table)


def test_flops_are_two_for_each_parameter_and_token(plan: StudyPlan, here: Place) -> None:
    name = str(here.home / "model-two")
    sizes = sizes_of(read_config(name, "float32"), 1, 4)
    model = next(model for model in plan.models if model.name == "two")
    least = 2 * sizes.parameters * model.tokens
    assert least < model.flops < 1.6 * least


def test_units_of_work_by_kind(here: Place, plan: StudyPlan) -> None:
    study = load_study(here.study)
    steps = {step.name: step for step in plan.steps}
    assert steps["match"].units == 2
    assert steps["score"].units == 2 * 2 * len(study.geometry)
    assert steps["encode"].units > 2
    assert steps["rematch"].units == 0
    assert all(step.seconds >= 0 for step in plan.steps)
    assert plan.seconds == pytest.approx(sum(step.seconds for step in plan.steps))


def test_families_take_their_draws(here: Place, plan: StudyPlan) -> None:
    assert "families" not in {step.name for step in plan.steps}

    def planned(**families: int) -> tuple[int, float]:
        study = load_study(write_study(here.home, families=families))
        step = next(step for step in plan_study(study).steps if step.name == "families")
        return step.units, step.seconds

    assert planned(draws=0, bootstraps=0) == (0, 0.0)
    units, seconds = planned(draws=25, bootstraps=5)
    assert units == 2 * (3 + 1)  # two pairs of spaces
    assert planned(draws=2500, bootstraps=5)[1] > 20 * seconds


def test_saes_that_are_still_to_be_trained(here: Place) -> None:
    train = {"text": {"source": "text.jsonl"}, "features": 640, "k": 5, "tokens": 1000}
    spaces = [{"model": name, "layers": 1, "sae": f"new/{name}"} for name in ("one", "two")]
    trained = plan_study(load_study(write_study(here.home, "new.yaml", spaces=spaces, train=train)))
    model = trained.models[0]
    assert model.sae_bytes == 8 * 640 * 32
    assert model.code_bytes == pytest.approx(model.tokens * (5 * 6 + 24))


def test_more_work_takes_longer(here: Place, plan: StudyPlan) -> None:
    inference = {"permutations": 20_000, "rematches": 50}
    more = plan_study(load_study(write_study(here.home, "more.yaml", inference=inference)))
    seconds = [{step.name: step.seconds for step in found.steps} for found in (plan, more)]
    assert seconds[1]["score"] > 5 * seconds[0]["score"]
    assert seconds[1]["rematch"] > seconds[0]["rematch"] == 0
    assert more.products > 5 * plan.products


def test_only_some_windows_of_a_document(here: Place, plan: StudyPlan) -> None:
    text = {"source": "text.jsonl", "context": 32, "windows": 1}
    study = load_study(write_study(here.home, "windows.yaml", text=text, name="windows"))
    first = plan_study(study)
    assert first.models[0].tokens < 0.9 * plan.models[0].tokens
    documents = len((here.home / "text.jsonl").read_text().splitlines())
    assert first.models[0].tokens <= 32 * documents


def test_saes_that_do_not_fit_together_come_in_batches(plan: StudyPlan) -> None:
    model = plan.models[0]
    assert model.spaces == 2
    assert model.largest_sae == model.sae_bytes / 2
    assert plan.memory >= model.model_bytes + model.largest_sae


def test_an_unknown_gpu(here: Place) -> None:
    with pytest.raises(UserError, match=r"no GPU 'h10' is known \(did you mean 'h100'\?\): give one of a100"):
        plan_study(load_study(here.study), "h10")


def test_printed(plan: StudyPlan, capsys: pytest.CaptureFixture[str]) -> None:
    for gpu in GPUS:
        show_plan(replace(plan, gpu=gpu))
        text = capsys.readouterr().out
        assert text.startswith(f"about {duration(plan.seconds)} on this machine")
        assert gpu.upper() in text
        for word in ("one", "two", "encode", "match", "score", "rematch", "report", "assumed", "rates"):
            assert word in text
    show_plan(replace(plan, memory=1e15))
    assert "too little" in capsys.readouterr().out
    show_plan(plan, as_json=True)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["cells"] == plan.cells
    assert found["seconds"] == plan.seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h"), (4 * 86_400, "4.0 days")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_prefixes() -> None:
    assert [short(n) + "B" for n in (5, 1500, 123_456, 2.5e9)] == ["5 B", "1.5 kB", "123 kB", "2.5 GB"]
    assert size(1e12) == "1.0 TB"


def test_too_little_memory_is_said_before_anything_runs(
    here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path / "new"))
    monkeypatch.setattr("unifeat.engine.local.free_memory", lambda: 1000.0)
    monkeypatch.setattr(encode, "check_unit", lambda *_: pytest.fail("it was too late"))
    with pytest.raises(UserError, match=r"model one takes 0\.0 GB with one of its SAEs, and only 0\.0 GB are free"):
        uf.run(here.study)


def test_what_is_not_estimated_is_said(here: Place) -> None:
    transfer = {"pairs": 10, "contexts": 4, "loss_tokens": 100, "loss_draws": 8}
    plan = plan_study(load_study(write_study(here.home, transfer=transfer, activations={"rows": 1000})))
    said = "\n".join(plan.assumptions)
    assert "activations of about 1,000 tokens take 0.00 GB" in said
    assert "for each of 1 pairs of spaces, about 4,200 tokens" in said
    without = plan_study(load_study(write_study(here.home)))
    assert "transfer" not in "\n".join(without.assumptions)
