"""`space`: one model, hook point and SAE, or codes or activations that are there already, for `compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unifeat.codes.brought import Codes
from unifeat.errors import UserError, did_you_mean

Settings = dict[str, Any]
_OF_MODEL = ("dtype", "revision", "device", "max_memory", "bos", "chat", "trust_remote_code", "randomise")
_OF_SPACE = ("hook", "format", "codes_as", "values", "random_directions", "labels")


@dataclass(frozen=True)
class SpaceSource:
    """A space before it is compared: what `space` was given.

    Attributes:
        name: prefix of the space's name; None for one that `compare` chooses.
        layer: the block it is of.
        model: a model's name, a function from token ids to activations, or the label of a model that is not run.
        sae: an SAE's name, or an object with `encode` and `W_dec`.
        codes, activations, places, decoder, tokenizer: as `space` was given them.
        of_model, of_space: further settings of a study's model, and of its spaces.
        identity: names a function or object that is brought, so that its codes are found again in the cache.
    """

    name: str | None
    layer: int
    model: str | Callable[..., Any] | None = None
    sae: Any = None
    codes: Codes | str | Path | None = None
    activations: Any = None
    places: Any = None
    decoder: Any = field(default=None, repr=False)
    tokenizer: Any = field(default=None, repr=False)
    of_model: Settings = field(default_factory=dict)
    of_space: Settings = field(default_factory=dict)
    identity: str | None = None

    def __repr__(self) -> str:
        what = {
            "codes": self.codes,
            "activations": None if self.activations is None else _short(self.activations),
            "model": self.model if isinstance(self.model, str | None) else _short(self.model),
            "sae": self.sae if isinstance(self.sae, str | None) else _short(self.sae),
        }
        shown = ", ".join(f"{key}={value!r}" for key, value in what.items() if value is not None)
        return f"space({self.name or '…'}@{self.layer}: {shown})"


def _short(value: Any) -> str:
    return getattr(value, "__name__", type(value).__name__)


def space(
    name: str | None = None,
    *,
    model: str | Callable[..., Any] | None = None,
    sae: Any = None,
    layer: int = 0,
    tokenizer: Any = None,
    codes: Codes | str | Path | None = None,
    activations: str | Path | Iterable[Any] | None = None,
    places: Any = None,
    decoder: Any = None,
    identity: str | None = None,
    **settings: Any,
) -> SpaceSource:
    """Describe a space, for `compare`. Nothing is loaded or run yet.

    One of three:

    * `model` and `sae`: a model that unifeat runs (hub name, folder or GGUF file), or any function from token ids,
      (batch, position) int64, to activations, (batch, position, width), with its fast `tokenizer` (TransformerLens,
      nnsight, a vLLM worker, plain PyTorch). The SAE is a name, or any object with `encode` and `W_dec`.
    * `codes`: `Codes`, or a folder that `save_codes` wrote; with `decoder`.
    * `activations` and `sae`: a file or folder of arrays, or an iterable of blocks `(activations, places)`; with
      `places` of the rows for files.

    Args:
        name: prefix of the space's name, `name@layer`; by default the model's name, or a letter.
        layer: the block that is read, or that codes and activations are of.
        decoder: (features, width) decoder rows: an array, a file, or an SAE's name. By default the SAE's, or those that
            were saved with the codes. Of a crosscoder, each side is a space of its own: the same codes, `decoder[0]`
            and `decoder[1]`.
        places: of the rows of activation files: a table's file with `document` and, where they are known, `char_end`
            and `token`; without these, row i is row i. By default, an array (documents, positions, width) has a
            document for each of its first index.
        identity: a name for a function or an object, which must change when it does. By default what it gives for the
            beginning of the text stands for it.
        settings: `hook`, `format`, `labels` … as in a study's `spaces`, and `dtype`, `device`, `bos` … as in its
            `models` (docs/study.md).

    Raises:
        UserError: none of the three, or more than one; a setting that does not exist.
    """
    unknown = [key for key in settings if key not in (*_OF_MODEL, *_OF_SPACE)]
    if unknown:
        near = did_you_mean(unknown[0], [*_OF_MODEL, *_OF_SPACE])
        raise UserError(f"a space has no setting {unknown[0]!r}{near}")
    given = [what for what, value in (("codes", codes), ("activations", activations)) if value is not None]
    if codes is not None and not isinstance(codes, Codes | str | Path):
        raise UserError(
            f"codes: give uf.Codes(matrix, documents, …), or a folder that save_codes wrote, not {type(codes).__name__}"
        )
    if len(given) == 2:
        raise UserError("a space has codes or activations, not both")
    if not given and (model is None or sae is None):
        raise UserError("a space needs a model and an sae, or codes, or activations and an sae")
    if activations is not None and sae is None:
        raise UserError("activations need an sae that encodes them")
    if codes is not None and sae is not None:
        raise UserError("codes are encoded: leave out sae, or give it as decoder")
    if callable(model) and tokenizer is None:
        raise UserError("a function as a model needs its tokenizer: give tokenizer=…, a fast one of transformers")
    return SpaceSource(
        name,
        layer,
        model,
        sae,
        codes,
        activations,
        places,
        decoder,
        tokenizer,
        {key: value for key, value in settings.items() if key in _OF_MODEL},
        {key: value for key, value in settings.items() if key in _OF_SPACE},
        identity,
    )
