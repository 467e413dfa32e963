"""Spaces that a user brings: codes, or activations and an SAE, that are on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from unifeat.codes.array_files import KINDS, ArrayFile, array_files, row_blocks
from unifeat.codes.brought import Codes, SavedCodes, decoder_array, write_codes
from unifeat.codes.facts import facts_unit
from unifeat.codes.imported import import_codes, token_texts
from unifeat.codes.row_places import RowPlaces, read_places
from unifeat.codes.top_activations import TopTokens, top_unit
from unifeat.engine import Engine, Unit
from unifeat.errors import UserError
from unifeat.pipeline.rows import at_their_places
from unifeat.pipeline.space_facts import facts_of_store
from unifeat.pipeline.spaces import Space
from unifeat.progress import track, warn
from unifeat.saes.decoding import reconstruct, writes_at
from unifeat.saes.encoding import ENCODE_ROWS, encode_rows
from unifeat.saes.protocol import SAE
from unifeat.saes.quality import Variance
from unifeat.saes.recipe import Recipe
from unifeat.saes.weights import Decoder, RowsOfSae, decoder_rows, sae_digest, unit_norm
from unifeat.store import Form, Piece, cache_root, file_stamp
from unifeat.store.keys import digest_of_arrays
from unifeat.store.paths import exists, user_path
from unifeat.store.pieces import note_use
from unifeat.study.brought import BroughtSpec
from unifeat.study.spec import Study
from unifeat.text.corpus import Corpus
from unifeat.vocabulary.hook_points import HookPoint

_VERSION = 1  # raised whenever the codes made from the same activations change
_BLOCK = 16 * ENCODE_ROWS  # rows of activations in memory at once
_HIGH_FVU = 1.0
_ANYWHERE = HookPoint(0)  # of activations in files it is not known


@dataclass(frozen=True)
class RowsOfFile:
    """Decoder rows that are an array in a file.

    Attributes:
        path: the file.
        features: how many rows there must be.
    """

    path: Path
    features: int

    def unit_rows(self, digest: str) -> NDArray[np.float32]:
        """See `unifeat.saes.weights.Rows`."""
        rows = self.read()
        if digest_of_arrays(rows) != digest:
            raise UserError(f"decoder {self.path} changed while it was used: run the same command again")
        return unit_norm(torch.from_numpy(rows))

    def read(self) -> NDArray[np.float32]:
        """The rows as they are in the file."""
        file = ArrayFile(self.path, "W_dec")
        return decoder_array(file[slice(None)].copy(), self.features)


def check_brought(study: Study) -> None:
    """Raise a UserError if something that a brought space names is not there, before any work begins."""
    for spec in study.brought:
        for key in ("codes", "activations", "places"):
            name = getattr(spec, key)
            if name is not None and not exists(user_path(name, f"spaces.{key}")):
                raise UserError(f"space {spec.name}: {key} {name}: no such file or folder")
        if spec.codes is not None:
            decoder_of(spec, SavedCodes.open(user_path(spec.codes, "codes")), None)


def brought_spaces(study: Study, corpus: Corpus, engine: Engine, *, encode: bool = True) -> dict[str, Space]:
    """The brought spaces of a study, by name, with codes over its text.

    Args:
        encode: if False, nothing is made: what a finished run has left in the cache is opened.

    Raises:
        UserError: files that are not what they should be, or that do not fit each other or the text; codes that are not
            in the cache, without `encode`.
    """
    spaces: dict[str, Space] = {}
    as_given: dict[str, tuple[SavedCodes, Recipe | None]] = {}
    for spec in study.brought:
        _note_use(spec)
        as_given[f"{spec.name}@{spec.layer}"] = _saved(f"{spec.name}@{spec.layer}", spec)
    placed = at_their_places({name: saved for name, (saved, _) in as_given.items()})
    for spec in study.brought:
        name = f"{spec.name}@{spec.layer}"
        saved = placed[name]
        texts = token_texts(saved, corpus)
        decoder, width, decoded_by = decoder_of(spec, *as_given[name])
        store = import_codes(name, saved, decoder.digest, corpus, texts, engine, run=encode)
        if not store.finished():
            raise UserError(
                f"the cache {cache_root()} does not hold the codes of {name} (any more): run the study again, which "
                "makes what is missing"
            )
        (counted,) = engine.map([facts_unit(store)])
        about = saved.about
        info: dict[str, Any] = {"model": spec.of_model, "layer": spec.layer, "hook": spec.hook}
        info |= {"sae": about.get("sae") or decoded_by}
        info |= {"d_in": width, "architecture": "codes of your own", "control": None, "decoder": decoder.digest}
        info |= facts_of_store(store, counted, "output") | {"fvu": about.get("fvu")}
        info["warnings"] = _warnings(name, saved, store.rows, about)
        for warning in info["warnings"] if encode else ():
            warn(f"space {name}: {warning}")
        tokens = TopTokens(top_unit(store), texts, saved.identity, study.matching.top_tokens)
        spaces[name] = Space(name, spec.name, spec.layer, store, texts, decoder, tokens, info)
    return spaces


def _note_use(spec: BroughtSpec) -> None:
    """Note that a run uses codes that lie in the cache itself (see `unifeat.api`), so that they are not pruned."""
    if spec.codes is not None and (folder := user_path(spec.codes, "codes")).parent.parent == cache_root():
        note_use(folder.parent.name, folder.name)


def brought_models(spaces: dict[str, Space]) -> dict[str, dict[str, Any]]:
    """Facts of the models that brought spaces are of, for `run.json`: unifeat has not seen them."""
    found: dict[str, dict[str, Any]] = {}
    for space in spaces.values():
        label = space.info["model"]
        layers = max(space.layer + 1, found.get(label, {}).get("layers", 0))
        found[label] = {
            "name": label,
            "revision": None,
            "commit": None,
            "architecture": "not run",
            "layers": layers,
            "d_model": space.info["d_in"],
            "dtype": "–",
            "bos": False,
            "chat": "none",
        }
    return found


def _warnings(name: str, saved: SavedCodes, rows: int, about: dict[str, Any]) -> list[str]:
    warnings = []
    if rows < saved.store.rows:
        left = saved.store.rows - rows
        warnings.append(f"{left:,} of {saved.store.rows:,} rows of codes are at places that this text does not have")
    fvu = about.get("fvu")
    if fvu is not None and fvu > _HIGH_FVU:
        warnings.append(
            f"its SAE leaves {fvu:.0%} of the variance of these activations unexplained: they are of another layer, "
            "model or hook point"
        )
    return warnings


def _saved(name: str, spec: BroughtSpec) -> tuple[SavedCodes, Recipe | None]:
    """A space's codes as saved; activations are encoded first, which is done once."""
    if spec.codes is not None:
        return SavedCodes.open(user_path(spec.codes, "codes")), None
    assert spec.activations is not None
    assert spec.sae is not None
    recipe = Recipe(spec.sae, spec.format)
    sae = recipe.load()
    path = user_path(spec.activations, "activations")
    files = array_files(path)
    stamps = [file_stamp(file.path) if file.path.is_file() else _zarr_stamp(file.path) for file in files]
    places = read_places(user_path(spec.places, "places")) if spec.places is not None else None
    made_from = {
        "version": _VERSION,
        "activations": stamps,
        "places": None if places is None else places.digest,
        "sae": sae_digest(sae),
    }
    form: Form[SavedCodes] = Form(_write, lambda value, folder: SavedCodes(folder))
    piece = Piece("brought", made_from, form, "the codes of activations")
    work = partial(encoded_files, name, files, places, sae, spec.sae)
    return Unit(piece, work).result(), recipe


def _zarr_stamp(folder: Path) -> list[Any]:
    return [[str(path.relative_to(folder)), file_stamp(path)] for path in sorted(folder.rglob("*")) if path.is_file()]


def _write(work: tuple[Iterator[Codes], dict[str, Any]], folder: Path) -> None:
    blocks, about = work
    write_codes(blocks, folder, about=about)


def encoded_files(
    name: str, files: list[ArrayFile], places: RowPlaces | None, sae: SAE, sae_name: str
) -> tuple[Iterator[Codes], dict[str, Any]]:
    """Blocks of codes of activations in files, and what is known of them when all blocks have been made.

    Raises:
        UserError: arrays or places that do not fit each other or the SAE.
    """
    rows = sum(int(np.prod(file.shape[:-1])) for file in files)
    if files[0].shape[-1] != sae.cfg.d_in or len(files[0].shape) not in (2, 3):
        raise UserError(
            f"space {name}: activations of shape {files[0].shape} for an SAE of width {sae.cfg.d_in}: give "
            "(rows, width) or (documents, positions, width)"
        )
    places = places or RowPlaces.of_shape([file.shape for file in files])
    if len(places) != rows:
        raise UserError(f"space {name}: {len(places):,} places for {rows:,} rows of activations")
    about: dict[str, Any] = {"sae": sae_name}
    return _with_fvu(name, files, rows, places, sae, about), about


def _with_fvu(
    name: str, files: list[ArrayFile], rows: int, places: RowPlaces, sae: SAE, about: dict[str, Any]
) -> Iterator[Codes]:
    unexplained = Variance()
    yield from encoded_blocks(name, row_blocks(files, _BLOCK), rows, places, sae, unexplained)
    about["fvu"] = known_fvu(unexplained)


def known_fvu(unexplained: Variance) -> float | None:
    """The FVU, or None where nothing was decoded or nothing varies."""
    return float(unexplained.fvu) if unexplained.rows and np.isfinite(unexplained.fvu) else None


def encoded_blocks(
    name: str,
    blocks: Iterator[NDArray[np.float32]],
    rows: int,
    places: RowPlaces,
    sae: SAE,
    unexplained: Variance,
) -> Iterator[Codes]:
    """Codes of blocks of activations.

    Args:
        rows: of all blocks.
        unexplained: what the reconstruction leaves is added to it, if the SAE decodes.
    """
    done = 0
    with track(f"encoding activations of {name}", rows, unit="rows") as advance:
        for block in blocks:
            matrix = encoded_matrix(name, sae, torch.from_numpy(np.array(block)), unexplained)
            yield places.codes(matrix, slice(done, done + len(block)))
            done += len(block)
            advance(len(block))


def encoded_matrix(
    name: str, sae: SAE, x: torch.Tensor, unexplained: Variance, point: HookPoint = _ANYWHERE
) -> sparse.csr_array:
    """(rows, features) codes of (rows, width) activations.

    Args:
        unexplained: what the reconstruction leaves is added to it, if the SAE decodes to where it reads.
        point: where the activations are read.
    """
    parts = []
    for rows, codes, made in coded(name, sae, x, point):
        parts.append(sparse.csr_array(codes.float().cpu().numpy()))
        if made is not None:
            unexplained.add(rows.cpu(), made.float().cpu())
    return sparse.vstack(parts, format="csr")


@torch.inference_mode()
def coded(
    name: str, sae: SAE, x: torch.Tensor, point: HookPoint
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """Activations, their codes and, if the SAE decodes to where it reads, their reconstruction; some rows at a time.

    Raises:
        UserError: activations of another width than the SAE's.
    """
    if x.shape[1] != int(sae.cfg.d_in):
        raise UserError(f"space {name}: activations of width {x.shape[1]} for an SAE of width {sae.cfg.d_in}")
    for rows, codes in encode_rows(sae, x.to(sae.W_dec.device)):
        made = None
        if getattr(sae, "decodes", True) and writes_at(sae, point) == point:
            with suppress(NotImplementedError):  # of an object that has no decoder after all
                made = reconstruct(sae, rows, codes)
        yield rows, codes, made


def decoder_of(spec: BroughtSpec, saved: SavedCodes, sae: Recipe | None) -> tuple[Decoder, int, str]:
    """The decoder rows, their width, and what they are called."""
    if spec.decoder is not None and (path := user_path(spec.decoder, "decoder")).suffix in KINDS:
        return _of_file(spec.name, path, saved.features, path.name)
    if spec.decoder is not None:
        sae = Recipe(spec.decoder, spec.format)
    if sae is not None:
        loaded = sae.load()
        decoder = Decoder(RowsOfSae(sae), sae_digest(loaded))
        if int(loaded.cfg.d_sae) != saved.features:
            raise UserError(
                f"space {spec.name}: codes of {saved.features:,} features, and {loaded.cfg.d_sae:,} in SAE {sae.name}"
            )
        decoder.store(partial(decoder_rows, loaded))
        return decoder, int(loaded.W_dec.shape[-1]), sae.name
    if saved.decoder is not None:
        return _of_file(spec.name, saved.decoder, saved.features, "saved with the codes")
    raise UserError(
        f"space {spec.name}: geometry compares decoder rows: give decoder, an array file or an SAE, or save them with "
        "the codes"
    )


def _of_file(name: str, path: Path, features: int, called: str) -> tuple[Decoder, int, str]:
    if not exists(path):
        raise UserError(f"space {name}: decoder {path}: no such file")
    source = RowsOfFile(path, features)
    rows = source.read()
    decoder = Decoder(source, digest_of_arrays(rows))
    decoder.store(lambda: unit_norm(torch.from_numpy(rows)))
    return decoder, rows.shape[1], called
