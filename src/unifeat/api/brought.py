"""Codes, activations, functions and objects of a session, turned into codes in the cache that a study can name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unifeat.api.space import SpaceSource
from unifeat.codes.array_files import array_files
from unifeat.codes.brought import Codes, SavedCodes, decoder_array, write_codes
from unifeat.codes.row_places import RowPlaces, read_places
from unifeat.engine import Unit
from unifeat.errors import UserError
from unifeat.models.activations import Reader, run_group
from unifeat.models.language import load_language_model, load_tokenizer, model_identity, tokenizer_digest
from unifeat.models.opening import opening_of
from unifeat.models.own import OwnModel
from unifeat.pipeline.brought import coded, encoded_blocks, encoded_files, encoded_matrix, known_fvu
from unifeat.progress import track
from unifeat.saes.load import load_sae
from unifeat.saes.own import OwnSAE
from unifeat.saes.protocol import SAE
from unifeat.saes.quality import Variance
from unifeat.saes.weights import sae_digest
from unifeat.store import Form, Piece, cache_root
from unifeat.store.keys import digest_of_arrays
from unifeat.store.paths import user_path
from unifeat.store.writing import make_folder
from unifeat.text.corpus import Corpus, Part
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.masks import Mask
from unifeat.vocabulary.tables import column_names
from unifeat.vocabulary.windowing import Windowing

_VERSION = 1  # raised whenever the codes of the same function and SAE change
_PROBE_CHARACTERS = 2000


def stored_codes(codes: Codes | Iterable[Codes], decoder: Any = None, about: dict[str, Any] | None = None) -> Path:
    """Put codes into the cache, under a name made from what is in them; returns their folder."""
    make_folder(cache_root())
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache_root()) as aside:
        folder = Path(aside) / "codes"
        folder.mkdir()
        write_codes([codes] if isinstance(codes, Codes) else codes, folder, decoder, about)
        saved = SavedCodes.open(folder)
        rows = None if saved.decoder is None else digest_of_arrays(np.load(saved.decoder, mmap_mode="r"))
        made_from = {"version": _VERSION, "content": saved.identity, "decoder": rows, "about": saved.about}
        piece = _piece(made_from)
        if piece.read() is None:
            piece.write(folder)
    return piece.path


def _piece(made_from: dict[str, Any]) -> Piece[Path]:
    return Piece("brought", made_from, Form(_move, lambda value, folder: folder), "codes of a session")


def _move(source: Path, folder: Path) -> None:
    for path in sorted(source.iterdir()):
        os.replace(path, folder / path.name)


def codes_of_blocks(name: str, blocks: Iterable[Any], sae: Any, decoder: Any = None) -> Path:
    """Encode blocks `(activations, places)` and put the codes into the cache, with the SAE's decoder or another."""
    own = as_sae(sae)
    about: dict[str, Any] = {"sae": _called(sae, own)}
    return stored_codes(_encoded(name, blocks, own, about), own.W_dec if decoder is None else decoder, about)


def codes_of_files(name: str, path: Any, places: Any, sae: Any, decoder: Any = None) -> Path:
    """As `codes_of_blocks`, of activations in files, with a table of places."""
    own = as_sae(sae)
    files = array_files(user_path(path, "activations"))
    of_rows = None if places is None else read_places(user_path(places, "places"))
    blocks, about = encoded_files(name, files, of_rows, own, _called(sae, own))
    return stored_codes(blocks, own.W_dec if decoder is None else decoder, about)


def _called(given: Any, sae: SAE) -> str:
    return str(given) if isinstance(given, str | Path) else getattr(sae, "name", type(given).__name__)


def _encoded(name: str, blocks: Iterable[Any], sae: SAE, about: dict[str, Any]) -> Iterator[Codes]:
    unexplained = Variance()
    for block in blocks:
        if not isinstance(block, tuple | list) or len(block) != 2:
            raise UserError(f"space {name}: activations are blocks (activations, places), not {type(block).__name__}")
        values, places = block
        values = values.detach().float().cpu().numpy() if hasattr(values, "detach") else np.asarray(values, np.float32)
        if values.ndim != 2 or values.shape[1] != int(sae.cfg.d_in):
            raise UserError(
                f"space {name}: a block of activations of shape {values.shape} for an SAE of width {sae.cfg.d_in}"
            )
        own = as_places(places, len(values))
        yield from encoded_blocks(name, iter([values]), len(values), own, sae, unexplained)
    about["fvu"] = known_fvu(unexplained)


def as_places(places: Any, rows: int) -> RowPlaces:
    """Places of a block's rows: a table with `document` and `char_end` or `token`, or the rows' documents alone.

    Raises:
        UserError: another form, or another number of rows.
    """
    if isinstance(places, RowPlaces):
        found = places
    elif (names := column_names(places)) is not None:
        found = RowPlaces.of_columns({name: places[name] for name in names})
    else:
        documents = np.asarray(places)
        if documents.ndim != 1:
            raise UserError(
                "places: give the document of each row, or a table with document and, if they are known, char_end and "
                "token"
            )
        found = RowPlaces(documents)
    if len(found) != rows:
        raise UserError(f"places: {len(found):,} for {rows:,} rows")
    return found


def as_sae(sae: Any) -> SAE:
    """An SAE by its name, or an object of the user's in the form that unifeat reads."""
    if isinstance(sae, str | Path):
        return load_sae(str(sae))
    found: SAE = sae if hasattr(sae, "unifeat_provenance") else OwnSAE(sae)  # type: ignore[assignment]
    return found


def codes_of_model(
    name: str, source: SpaceSource, corpus: Corpus, context: int, windows: int | None, mask: Mask
) -> Path:
    """Run a model, or a function, over a text, encode its activations, and put the codes into the cache.

    Done once for each text, model and SAE: a function and an object are known by their `identity` or, without, by what
    they give for the beginning of the text.
    """
    point = HookPoint(source.layer, source.of_space.get("hook", "resid_post"))
    sae = as_sae(source.sae)
    model, identity, digest = _reader(name, source, point)
    opening = opening_of(model.tokenizer, source.of_model.get("bos", "auto"), source.of_model.get("chat", "none"))
    windowing = Windowing(context, opening, mask, windows)
    if source.identity is not None:
        known: Any = source.identity
    else:
        known = [identity, _probe(name, model, sae, corpus, point, windowing)]
    made_from = {
        "version": _VERSION,
        "text": corpus.digest,
        "cut": list(corpus.cut),
        "of": known,
        "tokenizer": digest,
        "point": list(point),
        "windowing": [context, str(opening), windows, mask.model_dump()],
        "decoder": sae_digest(sae) if hasattr(sae, "unifeat_provenance") else _sha256(sae.W_dec),
    }
    form: Form[Path] = Form(_write, lambda value, folder: folder)
    work = partial(_work, name, model, sae, corpus, point, windowing)
    piece: Piece[Path] = Piece("brought", made_from, form, "codes of a session")
    return Unit(piece, work).result()


def _reader(name: str, source: SpaceSource, point: HookPoint) -> tuple[Reader, Any, str]:
    """The model, what identifies it, and its tokenizer's digest."""
    if callable(source.model):
        own = OwnModel(source.model, source.tokenizer, name)
        return own, None, tokenizer_digest(source.tokenizer)
    settings = source.of_model
    named = {key: settings[key] for key in ("dtype", "revision", "trust_remote_code") if key in settings}
    assert isinstance(source.model, str)
    identity = model_identity(
        source.model,
        settings.get("dtype", "auto"),
        settings.get("randomise"),
        settings.get("revision"),
        trust_remote_code=settings.get("trust_remote_code", False),
    )
    more = {key: settings[key] for key in ("device", "randomise", "max_memory") if key in settings}
    model = load_language_model(source.model, [point], **named, **more)
    return model, identity, tokenizer_digest(load_tokenizer(source.model, **named))


def _probe(name: str, model: Reader, sae: SAE, corpus: Corpus, point: HookPoint, windowing: Windowing) -> str:
    """What a model and an SAE give for the beginning of a text: activations, codes and what is made of them again."""
    first = corpus.parts(0)[0]
    part = Part(first.document, first.start, first.text[:_PROBE_CHARACTERS])
    x, _, _ = run_group(model, [part], [point], windowing).without_sinks(point)
    given = [value for _, *values in coded(name, sae, x, point) for value in values if value is not None]
    return _sha256(x, *given)


def _sha256(*tensors: Any) -> str:
    return digest_of_arrays(*(torch.as_tensor(tensor).detach().float().cpu().numpy() for tensor in tensors))


def _work(
    name: str, model: Reader, sae: SAE, corpus: Corpus, point: HookPoint, windowing: Windowing
) -> tuple[Iterator[Codes], NDArray[np.float32], dict[str, Any]]:
    about: dict[str, Any] = {"sae": getattr(sae, "name", None) or getattr(sae.cfg, "name", None) or type(sae).__name__}
    rows = decoder_array(sae.W_dec, int(sae.W_dec.shape[0]))
    return _of_text(name, model, sae, corpus, point, windowing, about), rows, about


def _write(work: tuple[Iterator[Codes], NDArray[np.float32], dict[str, Any]], folder: Path) -> None:
    blocks, decoder, about = work
    write_codes(blocks, folder, decoder, about)


def _of_text(
    name: str,
    model: Reader,
    sae: SAE,
    corpus: Corpus,
    point: HookPoint,
    windowing: Windowing,
    about: dict[str, Any],
) -> Iterator[Codes]:
    """Codes of a text, one group after another."""
    unexplained = Variance()
    texts: dict[int, str] = {}
    with track(f"encoding {name}", corpus.groups, unit="groups") as advance:
        for group in range(corpus.groups):
            x, places, _ = run_group(model, corpus.parts(group), [point], windowing).without_sinks(point)
            for token in np.unique(places.token).tolist():
                texts.setdefault(token, model.tokenizer.decode([token]))
            if len(x):
                tokens = [texts[token] for token in places.token.tolist()]
                codes = encoded_matrix(name, sae, x, unexplained, point)
                yield Codes(codes, places.document, ends=places.char_end, tokens=tokens)
            advance(1)
    about["fvu"] = known_fvu(unexplained)
