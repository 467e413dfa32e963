"""Encoding: the codes are the SAE's own on the model's own activations, shard by shard, again and in any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints import tensors, write_saelens
from stores import dense_of, places
from tiny import sentences, tiny_sae, write_text
from unifeat import UserError
from unifeat.codes import encode
from unifeat.codes.align import align, shared_places
from unifeat.codes.encode import Encoder, GroupShards, Loaded, group_unit, store_settings
from unifeat.codes.store import CodeStore
from unifeat.engine import Local
from unifeat.models import LanguageModel, load_language_model
from unifeat.models.activations import GroupActivations, pad_token
from unifeat.models.language import model_identity, tokenizer_digest
from unifeat.models.opening import bos_of
from unifeat.saes import load_sae
from unifeat.saes.encoding import codes_for, encode_as
from unifeat.text.corpus import Corpus, Cut, build_corpus
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.masks import Mask, Masked
from unifeat.vocabulary.openings import opening_tokens
from unifeat.vocabulary.windowing import Windowing

CONTEXT = 24
GROUP = 700
CUT = Cut(GROUP, GROUP)
ORDINARY = Windowing(CONTEXT)
POINTS = [HookPoint(0), HookPoint(2)]


def corpus_of(folder: Path, documents: list[str], cut: Cut = CUT) -> Corpus:
    path = write_text(folder, documents)
    return build_corpus(str(path), documents=None, tokens=None, count_tokens=len, tokenizer_digest="", cut=cut)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    odd = "Ünder the 語 lighthouse 🦊 a storm. " * 50  # longer than a part
    return corpus_of(tmp_path, [*sentences(8), odd, *sentences(3, seed=1), "x"])


@pytest.fixture(params=["bpe", "wordish"])
def folder(request: pytest.FixtureRequest, model_folder: Callable[..., Path]) -> Path:
    return model_folder("gpt2" if request.param == "bpe" else "llama", tokenizer=request.param)


def prepare(model_path: Path, corpus: Corpus, root: Path, saes: Path) -> tuple[LanguageModel, list[Encoder], Windowing]:
    model = load_language_model(str(model_path), POINTS, dtype="float32")
    windowing = Windowing(CONTEXT, bos_of(model.tokenizer, "auto"))
    encoders = []
    for point in POINTS:
        name = saes / f"layer_{point.layer}"
        sae = load_sae(name if name.exists() else tiny_sae(name, 32, seed=point.layer))
        settings = store_settings(
            corpus,
            model_identity(str(model_path), "float32"),
            tokenizer_digest(model.tokenizer),
            point,
            sae,
            windowing,
        )
        encoders.append(Encoder(f"tiny@{point.layer}", point, sae, CodeStore.create(root, settings)))
    return model, encoders, windowing


def encode_spaces(model: LanguageModel, corpus: Corpus, encoders: list[Encoder], windowing: Windowing) -> None:
    """All groups of text, by this process."""
    stores = {encoder.space: encoder.store for encoder in encoders}
    encode.encode_spaces(lambda: Loaded(model, encoders), "a model", corpus, stores, windowing, Local())


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_codes_are_the_saes_on_the_models_activations(tmp_path: Path, corpus: Corpus, folder: Path) -> None:
    """Each window on its own through the whole transformers model; masks by their definition."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, encoders, windowing = prepare(folder, corpus, tmp_path / "codes", tmp_path)
    encode_spaces(model, corpus, encoders, windowing)
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prefix = opening_tokens(windowing.opening)
    for number in range(corpus.groups):
        states: dict[HookPoint, list[torch.Tensor]] = {point: [] for point in POINTS}
        tokens: list[int] = []
        documents: list[int] = []
        read = first = 0
        for part in corpus.parts(number):
            ids = tokenizer(part.text, add_special_tokens=False)["input_ids"]
            for start in range(0, len(ids), CONTEXT - len(prefix)):
                window = prefix + ids[start : start + CONTEXT - len(prefix)]
                with torch.inference_mode():
                    hidden = whole(torch.tensor([window]), output_hidden_states=True).hidden_states
                    blocks = {0: hidden[1], 2: last_block(whole, window)}
                read += len(window)
                first += 1
                tokens += window[1:]
                documents += [part.document] * (len(window) - 1)
                for point in POINTS:
                    states[point].append(blocks[point.layer][0, 1:])
        for encoder in encoders:
            x = torch.cat(states[encoder.point])
            norms = x.norm(dim=-1)
            keep = norms <= 5 * norms.median()
            shard = encoder.store.shard(number)
            np.testing.assert_array_equal(shard.places.token, np.array(tokens)[keep.numpy()])
            np.testing.assert_array_equal(shard.places.document, np.array(documents)[keep.numpy()])
            expected = encoder.sae.encode(x[keep]).numpy()
            np.testing.assert_allclose(dense_of(shard, 64), expected, atol=2e-4)
            assert {k: shard.stats[k] for k in ("read", "special", "first", "sink")} == {
                "read": read,
                "special": 0,
                "first": first,
                "sink": int((~keep).sum()),
            }
            assert all((np.diff(shard.feature[i:j]) > 0).all() for i, j in row_ranges(shard.indptr))
            assert (shard.value != 0).all()


def test_attention_sinks_are_left_out(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((40, 32), generator=generator)
    x[7] *= 30
    x[21] *= 30
    point = HookPoint(1)
    sae = load_sae(tiny_sae(tmp_path / "sae", 32))
    encoder = Encoder("tiny@1", point, sae, CodeStore(tmp_path, {}))
    group = GroupActivations(places([0] * 40, range(1, 41)), {point: x}, Masked(read=50, special=4, first=6))
    shard = encode.encode_shard(encoder, group, with_fvu=True)
    rest = [row for row in range(40) if row not in (7, 21)]
    assert shard.places.token.tolist() == rest
    np.testing.assert_allclose(dense_of(shard, 64), sae.encode(x[rest]).numpy(), atol=1e-5)
    error = (x[rest] - sae.decode(sae.encode(x[rest]))).double()
    assert shard.stats == {
        "read": 50,
        "special": 4,
        "first": 6,
        "sink": 2,
        "fvu_tokens": 38,
        "fvu_error": pytest.approx(float(error.pow(2).sum()), rel=1e-5),
        "fvu_total": pytest.approx(float((x[rest] - x[rest].mean(0)).double().pow(2).sum()), rel=1e-5),
    }


def test_two_byte_ids_and_values(tmp_path: Path) -> None:
    """Ids are narrow where they fit; values only if asked, and then a value that does not fit is told."""
    x = torch.randn((40, 32), generator=torch.Generator().manual_seed(0))
    point, sae = HookPoint(1), load_sae(tiny_sae(tmp_path / "sae", 32))
    plain = Encoder("tiny@1", point, sae, CodeStore(tmp_path, {}))
    group = GroupActivations(places([0] * 40, range(1, 41)), {point: x}, Masked(read=40))
    whole = encode.encode_shard(plain, group, with_fvu=False)
    half = encode.encode_shard(replace(plain, values="float16"), group, with_fvu=False)
    assert (whole.feature.dtype, whole.value.dtype) == (np.uint16, np.float32)
    assert (half.feature.dtype, half.value.dtype) == (np.uint16, np.float16)
    np.testing.assert_array_equal(half.feature, whole.feature)
    np.testing.assert_array_equal(half.value, whole.value.astype(np.float16))
    large = GroupActivations(group.places, {point: x * 1e6}, Masked(read=40))
    with pytest.raises(UserError, match=r"space tiny@1: activation .* beyond .*float16.*leave out values: float16"):
        encode.encode_shard(replace(plain, values="float16"), large, with_fvu=False)


def row_ranges(indptr: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True))


def last_block(whole: torch.nn.Module, window: list[int]) -> torch.Tensor:
    """The last block's output, which hidden_states does not hold: what goes into the final norm."""
    decoder = whole.get_decoder()
    norm = decoder.ln_f if hasattr(decoder, "ln_f") else decoder.norm
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    whole(torch.tensor([window]))
    handle.remove()
    return seen[0]


def test_places_are_where_the_tokens_end(tmp_path: Path, corpus: Corpus, folder: Path) -> None:
    model, encoders, windowing = prepare(folder, corpus, tmp_path / "codes", tmp_path)
    encode_spaces(model, corpus, encoders, windowing)
    texts: dict[int, str] = {}
    for group in range(corpus.groups):
        for part in corpus.parts(group):
            texts[part.document] = texts.get(part.document, "") + part.text
    completed = 0
    for shard in encoders[0].store.shards():
        where = shard.places
        rows = zip(where.document.tolist(), where.char_end.tolist(), where.order.tolist(), where.token, strict=True)
        for document, end, order, token in rows:
            written = model.tokenizer.decode([int(token)])
            if order == 0 and "\ufffd" not in written and written.strip():
                assert texts[document][:end].replace(" ", "").endswith(written.strip().replace(" ", ""))
                completed += 1
        keys = where.document.astype(np.int64) << 40 | where.char_end.astype(np.int64) << 8 | (255 - where.order)
        assert (np.diff(keys) > 0).all()
    assert completed > 300


def test_again_in_another_order_and_one_at_a_time(tmp_path: Path, corpus: Corpus, folder: Path) -> None:
    """The unit of work is pure: any order, any subset of spaces, after any interruption, the same files."""
    model, encoders, windowing = prepare(folder, corpus, tmp_path / "one", tmp_path)
    encode_spaces(model, corpus, encoders, windowing)
    assert corpus.groups > 3
    _, others, _ = prepare(folder, corpus, tmp_path / "other", tmp_path)
    for group in reversed(range(corpus.groups)):
        for encoder in others[:: 1 if group % 2 else -1]:
            shards = GroupShards(group, {encoder.space: encoder.store})
            unit = group_unit(lambda one=encoder: Loaded(model, [one]), "a model", corpus, shards, windowing)
            assert unit.result() == encoder.store.stats(group)["read"]
    others[0].store.shard_path(2).unlink()
    others[1].store.shard_path(0).unlink()
    encode_spaces(model, corpus, others, windowing)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_what_is_there_is_not_encoded_again(
    tmp_path: Path, corpus: Corpus, model_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, encoders, windowing = prepare(model_folder("llama"), corpus, tmp_path / "codes", tmp_path)
    encode_spaces(model, corpus, encoders, windowing)
    encoders[1].store.verify(corpus.groups)
    assert encoders[1].store.finished()
    damaged = encoders[1].store.shard_path(1)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    encoders[1].store.verify(corpus.groups)
    assert not encoders[1].store.finished()
    done = []
    group_itself = encode.encode_group

    def spy(model: Any, corpus: Any, group: int, todo: list[Encoder], *more: Any) -> Any:
        done.append((group, [e.space for e in todo]))
        return group_itself(model, corpus, group, todo, *more)

    monkeypatch.setattr(encode, "encode_group", spy)
    encode_spaces(model, corpus, encoders, windowing)
    assert done == [(1, ["tiny@2"])]
    assert damaged.read_bytes() == whole
    assert encoders[1].store.finished()


def test_no_unit_of_work_grows_with_the_text(
    tmp_path: Path, model_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from unifeat.models import activations

    read = []
    whole = activations.run_group

    def spy(model: object, parts: list, *args: object, **kwargs: object) -> object:
        read.append(sum(len(part.text) for part in parts))
        return whole(model, parts, *args, **kwargs)

    monkeypatch.setattr(encode, "run_group", spy)
    rows = {}
    for size in (1, 4):
        home = tmp_path / str(size)
        home.mkdir()
        corpus = corpus_of(home, [*sentences(4 * size), "One long document without an end. " * 60 * size])
        model, encoders, windowing = prepare(model_folder("gpt2"), corpus, home / "codes", tmp_path)
        encode_spaces(model, corpus, encoders, windowing)
        rows[size] = [shard.rows for shard in encoders[0].store.shards()]
    assert max(read) < 2 * GROUP
    assert len(rows[4]) > 3 * len(rows[1])
    assert max(rows[4]) < 1.5 * max(rows[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite(
    tmp_path: Path, corpus: Corpus, model_folder: Callable[..., Path], value: float
) -> None:
    folder = model_folder("llama")
    model, encoders, windowing = prepare(folder, corpus, tmp_path / "codes", tmp_path)
    with torch.no_grad():
        model.blocks[1].mlp.down_proj.weight[3, 5] = value
    with pytest.raises(UserError, match="NaN or Inf") as caught:
        encode_spaces(model, corpus, encoders, windowing)
    assert str(folder) in str(caught.value)
    assert "layer 2" in str(caught.value)  # the first of the layers read that it shows in
    assert not any(encoder.store.has(0) or encoder.store.finished() for encoder in encoders)


def test_codes_that_are_not_finite(tmp_path: Path, corpus: Corpus, model_folder: Callable[..., Path]) -> None:
    """Finite weights whose product is not: the space is named."""
    model, encoders, windowing = prepare(model_folder("llama"), corpus, tmp_path / "codes", tmp_path)
    with torch.no_grad():
        encoders[1].sae.W_enc.mul_(3e38)
    with pytest.raises(UserError, match=r"space tiny@2: .*NaN or Inf"):
        encode_spaces(model, corpus, encoders, windowing)
    assert not encoders[1].store.has(0)


def test_a_text_shorter_than_a_window(tmp_path: Path, model_folder: Callable[..., Path]) -> None:
    corpus = corpus_of(tmp_path, ["The sea."])
    model, encoders, windowing = prepare(model_folder("llama"), corpus, tmp_path / "codes", tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match=r"fewer than one window of 24"):
            encode_spaces(model, corpus, encoders, windowing)
        assert not any(encoder.store.finished() for encoder in encoders)


def test_everything_that_changes_the_codes_changes_the_key(
    tmp_path: Path, corpus: Corpus, model_folder: Callable[..., Path]
) -> None:
    def settings(
        text: Corpus = corpus,
        model: str = "llama",
        point: HookPoint = POINTS[0],
        sae_seed: int = 0,
        windowing: Windowing = ORDINARY,
    ) -> str:
        name = tmp_path / f"sae-{sae_seed}"
        sae = load_sae(name if name.exists() else tiny_sae(name, 32, seed=sae_seed))
        path = str(model_folder(model))
        made = store_settings(text, model_identity(path, "float32"), "digest", point, sae, windowing)
        return CodeStore.create(tmp_path / "keys", made).folder.name

    texts = []
    for name, documents, cut in (("more", 9, CUT), ("group", 8, Cut(800)), ("part", 8, Cut(GROUP, 800))):
        (tmp_path / name).mkdir()
        texts.append(corpus_of(tmp_path / name, sentences(documents), cut))
    assert texts[1].digest == texts[2].digest != texts[0].digest
    keys = [
        settings(),
        *(settings(text=text) for text in texts),
        settings(model="gpt2"),
        settings(point=POINTS[1]),
        settings(point=HookPoint(0, "mlp_out")),
        settings(sae_seed=1),
        settings(windowing=Windowing(25)),
        settings(windowing=Windowing(CONTEXT, 0)),
    ]
    assert settings() == keys[0]
    assert len({*keys}) == len(keys)


PUBLISHED = Mask(special=False, first=False, sinks=False, pads=False)


class TestOutOfTheOrdinary:
    """Masks, padding, a limit of windows and pre-activations: what they change, and that nothing else does."""

    def encoded(
        self, folder: Path, corpus: Corpus, root: Path, saes: Path, **settings: Any
    ) -> tuple[list[Encoder], LanguageModel]:
        model = load_language_model(str(folder), POINTS, dtype="float32")
        codes = settings.pop("codes", "output")
        windowing = Windowing(CONTEXT, bos_of(model.tokenizer, "auto"), **settings)
        encoders = []
        for point in POINTS:
            name = saes / f"layer_{point.layer}"
            sae = load_sae(name if name.exists() else tiny_sae(name, 32, seed=point.layer))
            made = store_settings(
                corpus,
                model_identity(str(folder), "float32"),
                tokenizer_digest(model.tokenizer),
                point,
                sae,
                windowing,
                codes=codes,
            )
            encoders.append(Encoder(f"tiny@{point.layer}", point, sae, CodeStore.create(root, made), codes))
        encode_spaces(model, corpus, encoders, windowing)
        return encoders, model

    def test_what_is_ordinary_changes_neither_keys_nor_bytes(
        self, tmp_path: Path, corpus: Corpus, folder: Path
    ) -> None:
        model, encoders, windowing = prepare(folder, corpus, tmp_path / "plain", tmp_path)
        encode_spaces(model, corpus, encoders, windowing)
        ordinary = {"mask": Mask(), "limit": None, "codes": "output"}
        said, _ = self.encoded(folder, corpus, tmp_path / "said", tmp_path, **ordinary)
        assert [e.store.folder.name for e in said] == [e.store.folder.name for e in encoders]
        assert not {"mask", "windows", "codes"} & set(said[0].store.settings)
        assert "pad" not in said[0].store.shard(0).stats
        assert contents(tmp_path / "said") == contents(tmp_path / "plain")

    def test_each_option_has_a_key_of_its_own(self, tmp_path: Path, corpus: Corpus, folder: Path) -> None:
        options: list[dict[str, Any]] = [{}, {"limit": 1}, {"limit": 2}, {"codes": "pre_activation"}]
        options += [{"mask": Mask(**{part: False})} for part in ("special", "first", "sinks", "pads")]
        keys = [
            self.encoded(folder, corpus, tmp_path / "codes", tmp_path, **option)[0][0].store.folder.name
            for option in options
        ]
        assert len({*keys}) == len(options)

    def test_pads_are_counted_and_give_rows(self, tmp_path: Path, corpus: Corpus, folder: Path) -> None:
        (encoder, _), model = self.encoded(folder, corpus, tmp_path / "codes", tmp_path, mask=PUBLISHED, limit=1)
        totals = encoder.store.totals()
        documents = len(sentences(8)) + 1 + len(sentences(3, seed=1)) + 1
        assert totals["read"] == documents * CONTEXT
        assert totals["special"] == totals["first"] == totals["sink"] == 0
        assert encoder.store.rows == documents * CONTEXT  # a BOS that begins a window begins the document, and is a row
        shards = list(encoder.store.shards())
        tokens = np.concatenate([shard.places.token for shard in shards])
        assert 0 < totals["pad"] == (tokens == pad_token(model.tokenizer)).sum()

    def test_sinks_are_masked_beside_kept_pads(self, tmp_path: Path, corpus: Corpus, folder: Path) -> None:
        mask = Mask(pads=False)
        encoders, _ = self.encoded(folder, corpus, tmp_path / "codes", tmp_path, mask=mask)
        for encoder in encoders:
            totals = encoder.store.totals()
            assert totals["read"] == totals["special"] + totals["first"] + totals["sink"] + encoder.store.rows
            assert totals["pad"] > 0

    def test_pads_pair_with_pads(self, tmp_path: Path, corpus: Corpus, model_folder: Callable[..., Path]) -> None:
        """Two models of one tokenizer: every row pairs, padding with the same padding."""
        stores = [
            self.encoded(model_folder(name), corpus, tmp_path / name, tmp_path, mask=PUBLISHED, limit=1)[0][0].store
            for name in ("gpt2", "llama")
        ]
        assert stores[0].folder.name != stores[1].folder.name
        aligned = align(*stores)
        assert aligned.n_rows == stores[0].rows == stores[1].rows
        for one, other in zip(stores[0].shards(), stores[1].shards(), strict=True):
            at_a, at_b = shared_places(one.places, other.places, same_tokenizer=True)
            np.testing.assert_array_equal(one.places.token[at_a], other.places.token[at_b])

    def test_pre_activations_are_relu_of_the_encoder(self, tmp_path: Path, corpus: Corpus, folder: Path) -> None:
        usual, _ = self.encoded(folder, corpus, tmp_path / "usual", tmp_path)
        dense, _ = self.encoded(folder, corpus, tmp_path / "dense", tmp_path, codes="pre_activation")
        for few, many in zip(usual, dense, strict=True):
            k = few.sae.cfg.k
            for number in range(corpus.groups):
                top, everything = (dense_of(e.store.shard(number), 64) for e in (few, many))
                kept = np.sort(everything, axis=1)[:, :-k]
                # TopK keeps the k largest of the same numbers.
                np.testing.assert_allclose(np.sort(top, axis=1)[:, -k:], np.sort(everything, axis=1)[:, -k:], atol=1e-5)
                assert (everything >= 0).all()
                assert (kept > 0).any()
                assert "fvu_error" not in many.store.shard(number).stats  # an SAE does not decode them
        x = torch.randn((5, 32), generator=torch.Generator().manual_seed(1))
        sae = usual[0].sae
        expected = torch.relu((x - sae.b_dec) @ sae.W_enc + sae.b_enc)
        torch.testing.assert_close(encode_as(sae, x, "pre_activation"), expected)
        assert torch.equal(encode_as(sae, x, "output"), sae.encode(x))

    def test_before_topk_asks_the_sae(self, tmp_path: Path) -> None:
        """As published: TopK SAEs before their top-k, any other as it is."""
        topk = load_sae(tiny_sae(tmp_path / "topk", 32))
        assert [codes_for(topk, asked) for asked in ("before_topk", "output", "pre_activation")] == [
            *("pre_activation", "output", "pre_activation")
        ]
        write_saelens(tmp_path / "relu", tensors(32, 64))
        relu = load_sae(tmp_path / "relu")
        assert [codes_for(relu, asked) for asked in ("before_topk", "output", "pre_activation")] == [
            *("output", "output", "pre_activation")
        ]
