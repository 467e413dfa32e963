"""From text to codes: one forward pass of a model serves all its spaces, one group of text at a time.

`encode_group` is the unit of work: a pure function of stored text, model and SAE, so that a loop, a pool or a cluster
can run it, in any order, again after a kill, with the same outcome bit for bit.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from unifeat.codes.shard import FORMAT, Shard, write_shard
from unifeat.codes.store import CodeStore
from unifeat.errors import UserError
from unifeat.models.activations import BATCH_TOKENS, GroupActivations, run_group
from unifeat.models.language import LanguageModel
from unifeat.progress import track
from unifeat.saes.decoding import reconstruct, writes_at
from unifeat.saes.encoding import ENCODE_ROWS, Codes, encode_rows
from unifeat.saes.protocol import SAE
from unifeat.saes.quality import Variance
from unifeat.saes.weights import sae_digest
from unifeat.text.corpus import Corpus
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.masks import DEFAULT_MASK, SINK_RATIO
from unifeat.vocabulary.windowing import Windowing

_TRIES = 5
_FVU_EVERY = 4  # reconstructing costs as much as encoding; a quarter of the groups tells the FVU well enough


@dataclass(frozen=True)
class Encoder:
    """What encodes one space: where it reads, its SAE, the store its codes go to, and which codes they are."""

    space: str
    point: HookPoint
    sae: SAE
    store: CodeStore
    codes: Codes = "output"


def encode_spaces(model: LanguageModel, corpus: Corpus, encoders: list[Encoder], windowing: Windowing) -> None:
    """Encode what is missing from the stores and finish them. Memory does not grow with the text.

    Raises:
        UserError: activations or codes with NaN or Inf, a text shorter than a window, a full disk.
    """
    for _ in range(_TRIES):
        _encode_missing(model, corpus, encoders, windowing)
        try:
            for encoder in encoders:
                if not encoder.store.finished():
                    _check_long_enough(encoder, corpus, windowing.context if windowing.limit is None else 2)
                    encoder.store.finish(corpus.groups)
            return
        except FileNotFoundError:
            continue  # another process found a shard damaged and took it out to encode it again
    raise UserError("shards of codes vanish as soon as they are written: is another process removing them?")


def _encode_missing(model: LanguageModel, corpus: Corpus, encoders: list[Encoder], windowing: Windowing) -> None:
    missing = [[e for e in encoders if not e.store.has(group)] for group in range(corpus.groups)]
    work = sum(size for size, todo in zip(corpus.group_characters, missing, strict=True) if todo)
    name = model.name.rsplit("/", 1)[-1]
    start, tokens = time.monotonic(), 0
    with track(f"encoding {name} ({len(encoders)} spaces)", work, unit="characters") as advance:
        for group, todo in enumerate(missing):
            if todo:
                for encoder in todo:
                    encoder.store.note_use()
                tokens += encode_group(model, corpus, group, todo, windowing)
                rate = tokens / (time.monotonic() - start)
                advance(corpus.group_characters[group], note=f"{rate:,.0f} tokens/s")


def encode_group(
    model: LanguageModel, corpus: Corpus, group: int, encoders: list[Encoder], windowing: Windowing
) -> int:
    """Encode one group of text for some spaces of a model and write their shards; returns the tokens read."""
    points = [encoder.point for encoder in encoders]
    if _tells_fvu(group):
        points += [writes_at(encoder.sae, encoder.point) for encoder in encoders if encoder.codes == "output"]
    points = list(dict.fromkeys(points))
    activations = run_group(model, corpus.parts(group), points, windowing)
    for encoder in encoders:
        # (Pre-activations are not what an SAE decodes.)
        with_fvu = _tells_fvu(group) and encoder.codes == "output"
        shard = encode_shard(encoder, activations, with_fvu=with_fvu)
        write_shard(encoder.store.shard_path(group), shard)
    return activations.masked.read


def _tells_fvu(group: int) -> bool:
    return group % _FVU_EVERY == 0


def encode_shard(encoder: Encoder, activations: GroupActivations, *, with_fvu: bool) -> Shard:
    """Codes of one space over one group's activations.

    Raises:
        UserError: codes with NaN or Inf, naming the space.
    """
    x, places, masked = activations.without_sinks(encoder.point)
    counts, features, values = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    unexplained = Variance()
    # Of a transcoder, what the MLP puts out is to be made; of other SAEs, what they read.
    wanted = activations.beside(encoder.point, writes_at(encoder.sae, encoder.point)) if with_fvu else x
    with torch.inference_mode():
        parts = zip(encode_rows(encoder.sae, x, encoder.codes), wanted.split(ENCODE_ROWS), strict=True)
        for (rows, codes), target in parts:
            if not bool(torch.isfinite(codes).all()):
                raise UserError(f"space {encoder.space}: the SAE's codes hold NaN or Inf; its weights do not fit")
            row, feature = torch.nonzero(codes, as_tuple=True)
            counts.append(torch.bincount(row, minlength=len(rows)).cpu().numpy())
            features.append(feature.to(torch.int32).cpu().numpy())
            values.append(codes[row, feature].to(torch.float32).cpu().numpy())
            if with_fvu:
                unexplained.add(target, reconstruct(encoder.sae, rows, codes))
    # (Pads are named where there are any, so that ordinary shards keep their bytes.)
    counted = {reason: count for reason, count in asdict(masked).items() if count or reason != "pad"}
    stats: dict[str, Any] = counted | {"fvu_tokens": len(x) if with_fvu else 0}
    if with_fvu and len(x):
        stats |= {"fvu_error": unexplained.error, "fvu_total": unexplained.about_mean}
    return Shard(
        np.cumsum(np.concatenate(counts), dtype=np.int64),
        np.concatenate(features),
        np.concatenate(values),
        places,
        stats,
    )


def _check_long_enough(encoder: Encoder, corpus: Corpus, context: int) -> None:
    read = 0
    for group in range(corpus.groups):
        read += encoder.store.stats(group)["read"]
        if read >= context:
            return
    raise UserError(
        f"the text holds {read} tokens for {encoder.space}, fewer than one window of {context}: "
        "give more text or lower text.context"
    )


def store_settings(
    corpus: Corpus,
    model: dict[str, Any],
    tokenizer: str,
    point: HookPoint,
    sae: SAE,
    windowing: Windowing,
    *,
    codes: Codes = "output",
    specials: str | None = None,
) -> dict[str, Any]:
    """Everything that determines a space's codes: the store's key is made from it.

    Args:
        model: `model_identity` of the language model.
        tokenizer: `tokenizer_digest` of its tokenizer.
        sae: a SAELens SAE.
        specials: `extra_specials` of the tokenizer, whose digest does not say which tokens are masked as special.
    """
    bos = windowing.opening
    return {
        "format": FORMAT,
        "text": corpus.digest,
        "cut": list(corpus.cut),
        "model": model,
        "tokenizer": tokenizer,
        "hook": list(point),
        "sae": sae_digest(sae),
        "d_sae": int(sae.cfg.d_sae),
        "context": windowing.context,
        "bos": list(bos) if isinstance(bos, tuple) else bos,
        "sink_ratio": SINK_RATIO,
        "batch_tokens": BATCH_TOKENS,
        # Only what is out of the ordinary is named, so that ordinary codes keep their keys.
        **({"mask": windowing.mask.model_dump()} if windowing.mask != DEFAULT_MASK else {}),
        **({"windows": windowing.limit} if windowing.limit is not None else {}),
        **({"codes": codes} if codes != "output" else {}),
        **({"specials": specials} if specials is not None and windowing.mask.special else {}),
    }
