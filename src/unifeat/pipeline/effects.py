"""What the two features of a pair do to the next token, in their own models, and how alike that is.

Three ways: *direct* (decoder row through final norm and unembedding), *added* (a standard dose of the feature, at the
same probe tokens for all pairs) and *removed* (the feature's contribution taken out where the pair fires). Beside the
first two stands the second-best partner, beside the third another feature of the token.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unifeat.codes.beside import Beside
from unifeat.engine import Held, Unit
from unifeat.errors import UserError
from unifeat.models.language import LanguageModel, read_config
from unifeat.pipeline.effect_comparison import Comparison, Effects
from unifeat.pipeline.effect_edits import Side, ask
from unifeat.pipeline.effect_profiles import LaterLayer, later_space, probable_strings, profiles_of
from unifeat.pipeline.spaces import Space
from unifeat.pipeline.transfer import Direction
from unifeat.pipeline.transfer_loss import whole_model
from unifeat.progress import say
from unifeat.store import Form, Piece
from unifeat.study.transfer import TransferSpec
from unifeat.text.corpus import Corpus
from unifeat.transfer.direct import direct_effects, readout
from unifeat.transfer.strings import SharedStrings, shared_strings
from unifeat.vocabulary.hook_points import HOOKS

VERSION = 4  # raised whenever the results change
_STRINGS = Held(2)


def _write(found: Effects, folder: Path) -> dict[str, Any]:
    found.pairs.to_parquet(folder / "effects.parquet", index=False)
    return found.facts


_FORM: Form[Effects] = Form(_write, lambda facts, folder: Effects(pd.read_parquet(folder / "effects.parquet"), facts))


def strings_of(direction: Direction) -> SharedStrings:
    """The strings that are a token of both models. (Some seconds for a large vocabulary, so they are held.)

    Raises:
        UserError: there are none.
    """
    source, target = direction.source, direction.target
    sizes = [vocabulary_of(space) for space in (source, target)]

    def make() -> SharedStrings:
        tokenizers = source.tokenizer(), target.tokenizer()
        return shared_strings(*tokenizers, vocabulary_a=sizes[0], vocabulary_b=sizes[1])

    digests = source.store.settings["tokenizer"], target.store.settings["tokenizer"]
    return _STRINGS.get((*digests, *sizes), make)


def vocabulary_of(space: Space) -> int:
    """How many tokens a space's model gives logits for."""
    assert space.loader is not None
    spec = space.loader.spec
    config = read_config(spec.name, spec.dtype, spec.revision, trust_remote_code=spec.trust_remote_code)
    return int(config.vocab_size)


def effects_unit(
    direction: Direction, corpus: Corpus, spec: TransferSpec, level: float, spaces: list[Space]
) -> Unit[Effects]:
    """A unit of work: the effects of some of a cell's pairs. The direction is `a_to_b`.

    Args:
        spaces: all spaces of the study, for later layers.
    """
    sides = direction.source, direction.target
    later = [later_space(space, spaces) for space in sides]
    made_from = direction.made_from | {
        "effects": VERSION,
        "pairs asked for": spec.pairs,
        "contexts": spec.contexts,
        "level": level,
        "models": [space.loader.identity for space in sides if space.loader is not None],
        "later layers": [space.store.identity if space is not None else None for space in later],
        "matched": direction.cell.comparison.made_from(),
        "text": corpus.digest,
    }
    piece = Piece("effects", made_from, _FORM, "what features do to the next token")
    return Unit(piece, partial(_effects, direction, corpus, spec, level, later), fills_machine=True, gpu=True)


def _effects(
    direction: Direction, corpus: Corpus, spec: TransferSpec, level: float, later: list[Space | None]
) -> Effects:
    seed = direction.seed
    rng = np.random.default_rng([seed, 21])
    pairs = with_second_best(direction, direction.pairs)
    if len(pairs) > spec.pairs:
        pairs = pairs.iloc[np.sort(rng.choice(len(pairs), spec.pairs, replace=False))].reset_index(drop=True)
    rows = Beside.joined(list(direction.stretches()))  # a sample is bounded
    ids = pairs[["source_feature", "target_feature"]].to_numpy(np.int64).T
    asked = ask(rows, ids, pairs["second"].to_numpy(np.int64), ~direction.fitting, spec.contexts, rng)
    strings = strings_of(direction)
    source, target = Side(direction.source, rows), Side(direction.target, rows.turned())
    with tempfile.TemporaryDirectory(prefix="unifeat-effects-") as folder:
        files = [Path(folder) / f"{number}.npy" for number in range(4)]
        model = exact(whole_model(source.space, "float32"))
        direct = [_direct(model, source, ids[0], strings.exact_a, len(strings), files[2])]
        edited = np.r_[asked.probes, asked.row]
        kept = probable_strings(model, source, edited, corpus, strings.first_a, len(strings))
        of_strings = (strings.first_a, len(strings), kept, files[0])
        found = [profiles_of(model, source, asked.of_source(), corpus, *of_strings, _later(later[0]))]
        model = exact(whole_model(target.space, "float32"))
        both = np.r_[ids[1], np.maximum(asked.second, 0)]
        direct.append(_direct(model, target, both, strings.exact_b, len(strings), files[3]))
        of_strings = (strings.first_b, len(strings), kept, files[1])
        found.append(profiles_of(model, target, asked.of_target(), corpus, *of_strings, _later(later[1])))
        return Comparison(pairs, asked, strings, seed, level).of(direct, found)


def _later(space: Space | None) -> LaterLayer | None:
    return LaterLayer(space) if space is not None else None


def with_second_best(direction: Direction, pairs: pd.DataFrame) -> pd.DataFrame:
    """A direction's pairs with `second`, the other candidate of the source's feature with the highest r (−1: none),
    and `within`, r within token, and `token_share`, of both features' mean.
    """
    cell = direction.cell
    one, other = ("feature_a", "feature_b") if direction.name == "a_to_b" else ("feature_b", "feature_a")
    named = {one: "source_feature", other: "target_feature"}
    candidates = cell.table().rename(columns=named)[["source_feature", "target_feature", "correlation"]]
    true = set(zip(pairs["source_feature"], pairs["target_feature"], strict=True))
    is_pair = [both in true for both in zip(candidates["source_feature"], candidates["target_feature"], strict=True)]
    others = candidates[~np.array(is_pair, bool)].sort_values(
        ["correlation", "target_feature"], ascending=[False, True], kind="stable"
    )
    best = others.drop_duplicates("source_feature").set_index("source_feature")["target_feature"]
    more = cell.kept_with_token.rename(columns=named)
    shares = more[["token_share_a", "token_share_b"]].mean(axis=1)
    more = more.assign(within=more["correlation_within_token"], token_share=shares)
    keys = ["source_feature", "target_feature"]
    merged = pairs.merge(more[[*keys, "within", "token_share"]], on=keys, how="left")
    second = merged["source_feature"].map(best).fillna(-1).astype(np.int64)
    return merged.assign(second=second)


def exact(model: LanguageModel) -> LanguageModel:
    """The same weights, computed with in float32 on a CPU: in bfloat16, changes of 0.001 nats are rounding."""
    if model.device.type != "cpu" or model.dtype == torch.float32:
        return model
    model.causal.float()
    return replace(model, dtype=torch.float32)


def _direct(
    model: LanguageModel, side: Side, features: NDArray[np.int64], exact: NDArray[np.int64], n: int, path: Path
) -> NDArray[np.float32] | None:
    """The direct effects of features, (features, strings), on disk; None where they write outside the stream."""
    kind = side.point.kind
    try:
        if HOOKS[kind].behind_norm or kind == "attn_z":  # as wide as the stream, maybe, but not in it
            raise UserError(f"its SAE writes {HOOKS[kind].what}, not to the residual stream")
        read = readout(model, exact, n)
        found = np.lib.format.open_memmap(path, "w+", np.float32, (len(features), n))
        for rows, own in direct_effects(read, side.weights(features).astype(np.float32)):
            found[rows] = own
        return found
    except UserError as error:
        say(f"effects of {side.space.name}: no direct effects ({error})")
        return None
