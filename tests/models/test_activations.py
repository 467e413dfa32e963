"""From text to rows: every token is at its place, and what is masked is counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import sentences
from unifeat.errors import UserError
from unifeat.models.activations import GroupActivations, are_sinks, pad_token, run_group
from unifeat.models.language import LanguageModel, load_language_model
from unifeat.models.opening import bos_of
from unifeat.text.corpus import Part
from unifeat.text.windows import tokenize_part
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.masks import Mask, Masked
from unifeat.vocabulary.places import Places
from unifeat.vocabulary.windowing import Windowing

POINTS = [HookPoint(0), HookPoint(2), HookPoint(1, "mlp_out")]
PARTS = [Part(n + 3, 0, text) for n, text in enumerate([*sentences(6, seed=2), "😀 one", "x", " The sailor"])]


@pytest.fixture(params=["bpe", "wordish"])
def model(request: pytest.FixtureRequest, model_folder: Callable[..., Path]) -> LanguageModel:
    return load_language_model(str(model_folder("gpt2", tokenizer=request.param)), POINTS, dtype="float32")


def run(model: LanguageModel, parts: list[Part], context: int = 20, bos: object = "auto") -> GroupActivations:
    return run_group(model, parts, POINTS, Windowing(context, bos_of(model.tokenizer, bos)))


def one_by_one(
    model: LanguageModel, parts: list[Part], context: int, bos: int | None
) -> dict[tuple[int, int, int], dict]:
    """The same, written plainly: window by window, token by token, no batches; (document, end, order) to values."""
    rows = {}
    prefix = [] if bos is None else [bos]
    for part in parts:
        tokens = tokenize_part(model.tokenizer, part)
        body = context - len(prefix)
        for start in range(0, len(tokens.token), body):
            ids = [*prefix, *tokens.token[start : start + body].tolist()]
            seen = model.activations(torch.tensor([ids]), POINTS)
            for position in range(1, len(ids)):
                n = start + position - len(prefix)
                if ids[position] not in model.tokenizer.all_special_ids:
                    place = (part.document, int(tokens.char_end[n]), int(tokens.order[n]))
                    assert place not in rows
                    rows[place] = {point: value[0, position] for point, value in seen.items()} | {"id": ids[position]}
    return rows


@pytest.mark.parametrize("bos", ["auto", True, False])
@pytest.mark.parametrize("context", [2, 7, 64])
def test_every_row_is_the_activation_at_its_place(model: LanguageModel, bos: object, context: int):
    found = run(model, PARTS, context, bos)
    expected = one_by_one(model, PARTS, context, bos_of(model.tokenizer, bos))
    places = list(
        zip(found.places.document.tolist(), found.places.char_end.tolist(), found.places.order.tolist(), strict=True)
    )
    assert places == list(expected)
    assert found.places.token.tolist() == [row["id"] for row in expected.values()]
    for point in POINTS:
        stacked = torch.stack([row[point] for row in expected.values()])
        torch.testing.assert_close(found.values[point], stacked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bos", [True, False])
def test_counts_add_up(model: LanguageModel, bos: bool):
    special = model.tokenizer.eos_token
    parts = [*PARTS, Part(20, 0, f"{special}the tide{special} the harbour{special}{special}"), Part(21, 0, special)]
    found = run(model, parts, 11, bos)
    n_tokens = sum(len(tokenize_part(model.tokenizer, part).token) for part in parts)
    masked = found.masked
    assert masked.read == masked.special + masked.first + len(found.places)
    assert not set(found.places.token.tolist()) & model.special_ids
    body = 10 if bos else 11
    n_windows = sum(-(-len(tokenize_part(model.tokenizer, part).token) // body) for part in parts)
    if bos:
        assert masked == Masked(read=n_tokens + n_windows, special=5, first=n_windows)
    else:
        # Two windows begin with a special token, which is counted once, as that.
        assert masked == Masked(read=n_tokens, special=5, first=n_windows - 2)
    assert all(len(value) == len(found.places) for value in found.values.values())


def test_bos_is_no_row_but_changes_them(model: LanguageModel):
    with_bos, without = run(model, PARTS[:1], 64, True), run(model, PARTS[:1], 64, False)
    assert len(with_bos.places) == len(without.places) + with_bos.masked.read - without.masked.read
    assert not torch.equal(with_bos.values[POINTS[0]][-1], without.values[POINTS[0]][-1])


def test_documents_do_not_see_each_other(model: LanguageModel):
    together = run(model, PARTS, 40)
    for part in (PARTS[1], PARTS[7]):
        alone = run(model, [part], 40)
        mine = together.places.document == part.document
        np.testing.assert_array_equal(together.places.char_end[mine], alone.places.char_end)
        for point in POINTS:
            torch.testing.assert_close(
                together.values[point][torch.from_numpy(mine)], alone.values[point], rtol=1e-5, atol=1e-5
            )


def test_is_the_same_every_time(model: LanguageModel):
    first, second = run(model, PARTS), run(model, PARTS)
    assert first.masked == second.masked
    for point in POINTS:
        assert torch.equal(first.values[point], second.values[point])


def test_a_group_without_tokens(model: LanguageModel):
    found = run(model, [])
    x, places, masked = found.without_sinks(POINTS[0])
    assert x.shape == (0, 32)
    assert len(places) == 0
    assert masked == Masked()


MASKS = [
    Mask(special=special, first=first, sinks=False, pads=pads)
    for special, first, pads in itertools.product([True, False], repeat=3)
]


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: "".join("sfp"[n] for n in range(3) if list(mask)[n][1]))
def test_every_mask_by_its_definition(model: LanguageModel, mask: Mask, bos: bool, limit: int | None):
    """Window by window, position by position: which give rows, what the others are counted as, and their values."""
    special = model.tokenizer.eos_token
    parts = [*PARTS, Part(20, 0, f"{special}the tide{special} the harbour{special}{special}"), Part(20, 100, "a ship")]
    context, first_token = 11, bos_of(model.tokenizer, bos)
    prefix = [] if first_token is None else [first_token]
    counts, rows = dict.fromkeys(("read", "special", "first", "pad"), 0), []
    for part in parts:
        tokens = tokenize_part(model.tokenizer, part).token.tolist()
        starts = range(0, len(tokens), context - len(prefix))
        for number, start in enumerate(starts):
            if limit is not None and (part.start or number >= limit):
                break
            body = tokens[start : start + context - len(prefix)]
            pads = [] if mask.pads else [pad_token(model.tokenizer)] * (context - len(prefix) - len(body))
            ids = [*prefix, *body, *pads]
            seen = model.activations(torch.tensor([ids]), POINTS[:1])[POINTS[0]][0]
            for position, token in enumerate(ids):
                opening, pad = position < len(prefix), position >= len(prefix) + len(body)
                counts["read"] += 1
                counts["pad"] += pad
                no_place = opening and (number > 0 or part.start > 0)
                if opening and (mask.special or no_place):
                    counts["first"] += 1
                elif mask.special and token in model.special_ids and not pad:
                    counts["special"] += 1
                elif mask.first and position == 0:
                    counts["first"] += 1
                else:
                    rows.append((part.document, token, seen[position]))
    found = run_group(model, parts, POINTS[:1], Windowing(context, first_token, mask, limit))
    x, places, masked = found.without_sinks(POINTS[0])
    assert asdict(masked) == counts | {"sink": 0}
    assert masked.read == masked.special + masked.first + len(places)
    assert list(zip(places.document.tolist(), places.token.tolist(), strict=True)) == [row[:2] for row in rows]
    torch.testing.assert_close(x, torch.stack([row[2] for row in rows]), rtol=1e-5, atol=1e-5)
    keys = list(zip(places.document.tolist(), places.char_end.tolist(), (-places.order).tolist(), strict=True))
    assert keys == sorted(set(keys))


def test_sinks_that_are_not_masked_are_rows(model: LanguageModel):
    found = run(model, PARTS)
    found.values[POINTS[0]][4] *= 1000
    rows = len(found.places)
    assert len(found.without_sinks(POINTS[0])[1]) < rows
    found.mask_sinks = False
    x, places, masked = found.without_sinks(POINTS[0])
    assert len(x) == len(places) == rows
    assert masked.sink == 0


class TestSinks:
    def test_are_left_out_and_counted(self):
        n = 11
        x = torch.nn.functional.normalize(torch.randn(n, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
        x[3] *= 5.2
        x[7] *= 400
        x[8] *= 4.8
        row = np.arange(n, dtype=np.int32)
        point = HookPoint(0)
        group = GroupActivations(Places(row, row + 1, row * 0, row), {point: x.to(torch.bfloat16)}, Masked(20, 4, 5))
        kept, places, masked = group.without_sinks(point)
        expected = [0, 1, 2, 4, 5, 6, 8, 9, 10]
        assert places.document.tolist() == places.token.tolist() == expected
        assert places.char_end.tolist() == [n + 1 for n in expected]
        assert kept.dtype == torch.float32
        assert torch.equal(kept, x.to(torch.bfloat16).float()[expected])
        assert masked == Masked(20, 4, 5, sink=2)
        assert masked.read == masked.special + masked.first + masked.sink + len(places)
        assert group.masked.sink == 0

    def test_ratio_is_to_the_median_of_all_rows(self):
        x = torch.ones(9, 3) * torch.tensor([1, 1, 1, 1, 1, 2, 3, 4.9, 5.1])[:, None]
        assert are_sinks(x.norm(dim=-1)).tolist() == [False] * 8 + [True]
        assert are_sinks(torch.zeros(3)).tolist() == [False] * 3
        assert are_sinks(torch.zeros(0)).tolist() == []

    def test_differ_by_point(self, model: LanguageModel):
        found = run(model, PARTS)
        found.values[POINTS[1]][4] *= 1000
        counts = [found.without_sinks(point)[2].sink for point in POINTS[:2]]
        assert counts[1] == counts[0] + 1


class TestWrongInput:
    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_nan_names_the_model_and_the_layer(self, model_folder: Callable[..., Path], tmp_path: Path, bad: float):
        folder = tmp_path / "spoilt"
        folder.mkdir()
        for path in model_folder("llama").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = bad
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        points = [HookPoint(0), HookPoint(1, "mlp_out")]
        model = load_language_model(str(folder), points)
        with pytest.raises(UserError, match=r"spoilt, layer 1 \(mlp_out\): activations hold NaN or Inf"):
            run_group(model, PARTS, points, Windowing(20, None))
        run_group(model, PARTS, [HookPoint(0)], Windowing(20, None))

    def test_windows_longer_than_the_model_takes(self, model: LanguageModel):
        with pytest.raises(UserError, match=r"at most 256 tokens: lower text\.context from 257"):
            run(model, PARTS, 257)
        run(model, [Part(0, 0, "the tide " * 300)], 256)
