"""From text to codes, one group of text at a time: one forward pass of a model serves all its spaces.

The unit of work is one group (`group_unit`). It is a pure function of stored text, model and SAEs, so it can run in a
loop, a pool or a cluster, in any order and again after a kill, with the same result bit for bit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from unifeat.codes.activations import activation_shard
from unifeat.codes.returning import Returning
from unifeat.codes.shard import Shard, narrow_ids, narrow_values, write_shard
from unifeat.codes.store import CodeStore
from unifeat.engine import Engine, Unit
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

Values = Literal["float32", "float16"]
# Part of the keys of all codes. A shard's format has a number of its own: the codes in it are the same in every format.
_VERSION = "unifeat-codes/1"
_TRIES = 5
_WRITERS = 2  # threads that write shards: checksums and flushing would else keep a GPU waiting
_FVU_EVERY_GROUPS = 4  # reconstructing costs as much as encoding, and a quarter of the groups estimates FVU well


@dataclass(frozen=True)
class Encoder:
    """How one space is encoded: hook point, SAE, the store for its codes, which codes to store, and as what."""

    space: str
    point: HookPoint
    sae: SAE
    store: CodeStore
    codes: Codes = "output"
    values: Values = "float32"


@dataclass(frozen=True)
class Sampler:
    """How activations are sampled: the name of the sample, where rows are kept and values read, its store."""

    name: str
    point: HookPoint
    target: HookPoint
    share: float
    store: CodeStore


@dataclass(frozen=True)
class Loaded:
    """A model, and what is made of its activations, ready to run."""

    model: LanguageModel
    encoders: list[Encoder]
    samplers: Sequence[Sampler] = ()


@dataclass(frozen=True)
class GroupShards:
    """The shards of one group of text in the stores of several spaces, as the result of a unit of work.

    Attributes:
        group: number of the group, and of the shards.
        stores: the stores, by the spaces' names.
    """

    group: int
    stores: dict[str, CodeStore]

    def missing(self) -> list[str]:
        """The spaces whose shard is not there."""
        return [space for space, store in self.stores.items() if not store.has(self.group)]

    def read(self) -> int | None:
        """The tokens read, masked ones included; None if a shard is missing."""
        try:
            return max(int(store.stats(self.group)["read"]) for store in self.stores.values())
        except FileNotFoundError:
            return None

    def write(self, shards: Iterator[tuple[str, Shard]]) -> None:
        """Write shards, while the next ones are computed."""
        writing: deque[Future[str]] = deque()
        with ThreadPoolExecutor(_WRITERS) as pool:
            for space, shard in shards:
                writing.append(pool.submit(write_shard, self.stores[space].shard_path(self.group), shard))
                if len(writing) > 2 * _WRITERS:
                    writing.popleft().result()
            while writing:
                writing.popleft().result()


def group_unit(
    load: Callable[[], Loaded], key: str, corpus: Corpus, shards: GroupShards, windowing: Windowing, *, gpu: bool = True
) -> Unit[int]:
    """Encoding one group of text as a unit of work; its result is the number of tokens read.

    Args:
        load: loads the model and its encoders, or gives those that this process holds.
        key: names what is loaded: units with the same key need the same.
        gpu: whether a GPU is used where there is one.
    """
    return Unit(shards, partial(_encode, load, corpus, shards, windowing), fills_machine=True, model=key, gpu=gpu)


def _encode(
    load: Callable[[], Loaded], corpus: Corpus, shards: GroupShards, windowing: Windowing
) -> Iterator[tuple[str, Shard]]:
    loaded, missing = load(), shards.missing()
    encoders = [encoder for encoder in loaded.encoders if encoder.space in missing]
    samplers = [sampler for sampler in loaded.samplers if sampler.name in missing]
    return encode_group(loaded.model, corpus, shards.group, encoders, windowing, samplers)


def encode_spaces(
    load: Callable[[], Loaded],
    key: str,
    corpus: Corpus,
    stores: dict[str, CodeStore],
    windowing: Windowing,
    engine: Engine,
    *,
    name: str = "",
    text: str = "the text",
    gpu: bool = True,
) -> None:
    """Encode the shards that are missing from the stores, and finish the stores. Memory does not grow with the text.

    Args:
        load, key: as for `group_unit`.
        stores: the stores, by the spaces' names.
        name: what to call the model in the display of progress.
        text: what to call the text in messages.

    Raises:
        UserError: activations or codes with NaN or Inf, a text shorter than a window, or a full disk.
    """
    for _ in range(_TRIES):
        missing = [shards for g in range(corpus.groups) if (shards := GroupShards(g, stores)).missing()]
        units = (group_unit(load, key, corpus, shards, windowing, gpu=gpu) for shards in missing)
        _encode_missing(units, [shards.group for shards in missing], corpus, stores, engine, name)
        try:
            for space, store in stores.items():
                if not store.finished():
                    _check_long_enough(space, store, corpus, windowing.context if windowing.limit is None else 2, text)
                    store.finish(corpus.groups)
            return
        except FileNotFoundError:
            continue  # another process found a damaged shard and removed it, to encode it again
    raise UserError("shards of codes disappear right after they are written: is another process removing them?")


def _encode_missing(
    units: Iterator[Unit[int]],
    groups: list[int],
    corpus: Corpus,
    stores: dict[str, CodeStore],
    engine: Engine,
    name: str,
) -> None:
    work = sum(corpus.group_characters[group] for group in groups)
    start, tokens = time.monotonic(), 0
    with track(f"encoding {name} ({len(stores)} spaces)", work, unit="characters") as advance:
        for group, read in zip(groups, engine.map(units), strict=True):
            for store in stores.values():
                store.note_use()
            tokens += read
            rate = tokens / (time.monotonic() - start)
            advance(corpus.group_characters[group], note=f"{rate:,.0f} tokens/s")


def encode_group(
    model: LanguageModel,
    corpus: Corpus,
    group: int,
    encoders: list[Encoder],
    windowing: Windowing,
    samplers: Sequence[Sampler] = (),
) -> Iterator[tuple[str, Shard]]:
    """Encode one group of text for several spaces of a model; yields each space's, or sample's, name and shard."""
    points = [encoder.point for encoder in encoders]
    points += [point for sampler in samplers for point in (sampler.point, sampler.target)]
    if _measures_fvu(group):
        points += [writes_at(encoder.sae, encoder.point) for encoder in encoders if encoder.codes == "output"]
    points = list(dict.fromkeys(points))
    activations = run_group(model, corpus.parts(group), points, windowing)
    for encoder in encoders:
        # (An SAE does not decode pre-activations.)
        with_fvu = _measures_fvu(group) and encoder.codes == "output"
        yield encoder.space, encode_shard(encoder, activations, with_fvu=with_fvu)
    for sampler in samplers:
        yield sampler.name, activation_shard(activations, sampler.point, sampler.target, sampler.share)


def _measures_fvu(group: int) -> bool:
    return group % _FVU_EVERY_GROUPS == 0


def encode_shard(encoder: Encoder, activations: GroupActivations, *, with_fvu: bool) -> Shard:
    """Codes of one space over one group's activations.

    Raises:
        UserError: codes with NaN or Inf, or beyond float16 if they are stored so, naming the space.
    """
    x, places, masked = activations.without_sinks(encoder.point)
    counts, features, values = Returning(torch.int64), Returning(torch.int32), Returning(torch.float32)
    unexplained = Variance()
    # A transcoder reconstructs the MLP's output, other SAEs their own input.
    wanted = activations.beside(encoder.point, writes_at(encoder.sae, encoder.point)) if with_fvu else x
    with torch.inference_mode():
        parts = zip(encode_rows(encoder.sae, x, encoder.codes), wanted.split(ENCODE_ROWS), strict=True)
        for (rows, codes), target in parts:
            row, feature = torch.nonzero(codes, as_tuple=True)  # (NaN is not zero)
            counts.send(torch.bincount(row, minlength=len(rows)))
            features.send(feature.to(torch.int32))
            values.send(codes[row, feature].to(torch.float32))
            if with_fvu:
                unexplained.add(target, reconstruct(encoder.sae, rows, codes))
    per_row, feature_ids, value = counts.whole(), features.whole(), values.whole()
    if not np.isfinite(value).all():
        raise UserError(f"space {encoder.space}: the SAE's codes hold NaN or Inf; check the SAE's weights")
    # Pads are listed only if there are any, so that the bytes of other shards do not change.
    counted = {reason: count for reason, count in asdict(masked).items() if count or reason != "pad"}
    stats: dict[str, Any] = counted | {"fvu_tokens": len(x) if with_fvu else 0}
    if with_fvu and len(x):
        stats |= {"fvu_error": unexplained.error, "fvu_total": unexplained.about_mean}
    if encoder.values == "float16":
        try:
            value = narrow_values(value)
        except ValueError as error:
            raise UserError(f"space {encoder.space}: activation {error}; leave out values: float16") from error
    ids = feature_ids.astype(narrow_ids(int(encoder.sae.cfg.d_sae)))
    return Shard(np.r_[0, np.cumsum(per_row, dtype=np.int64)], ids, value, places, stats)


def _check_long_enough(space: str, store: CodeStore, corpus: Corpus, context: int, text: str) -> None:
    read = 0
    for group in range(corpus.groups):
        read += store.stats(group)["read"]
        if read >= context:
            return
    raise UserError(
        f"{text} holds {read} tokens for {space}, fewer than one window of {context}: "
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
    values: Values = "float32",
    specials: str | None = None,
) -> dict[str, Any]:
    """Everything that determines a space's codes. The store's key is made from it.

    Args:
        model: `model_identity` of the language model.
        tokenizer: `tokenizer_digest` of its tokenizer.
        sae: a SAELens SAE.
        specials: `extra_specials` of the tokenizer: the digest does not say which tokens are masked as special.
    """
    bos = windowing.opening
    return {
        "format": _VERSION,
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
        # Only settings that differ from the default are listed, so that other codes keep their keys.
        **({"mask": windowing.mask.model_dump()} if windowing.mask != DEFAULT_MASK else {}),
        **({"windows": windowing.limit} if windowing.limit is not None else {}),
        **({"codes": codes} if codes != "output" else {}),
        **({"values": values} if values != "float32" else {}),
        **({"specials": specials} if specials is not None and windowing.mask.special else {}),
    }
