"""`compare`: a study without a file, of spaces that `space` describes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from unifeat.api.brought import codes_of_blocks, codes_of_files, codes_of_model, stored_codes
from unifeat.api.run import Run, run
from unifeat.api.space import SpaceSource
from unifeat.codes.array_files import KINDS
from unifeat.codes.brought import TEXT, Codes, SavedCodes, decoder_array
from unifeat.errors import UserError
from unifeat.models.language import load_tokenizer
from unifeat.models.own import fast_tokenizer
from unifeat.pipeline.rows import text_of
from unifeat.pipeline.spaces import study_corpus
from unifeat.store import Form, Piece
from unifeat.store.keys import digest_of, digest_of_arrays
from unifeat.store.paths import user_path
from unifeat.study.brought import BroughtSpec
from unifeat.study.read import study_from
from unifeat.study.spec import Study
from unifeat.study.text import ROWS

if TYPE_CHECKING:
    from unifeat.engine import Engine


def compare(
    spaces: Sequence[SpaceSource],
    text: Any = None,
    *,
    matching: dict[str, Any] | None = None,
    geometry: list[Any] | None = None,
    inference: dict[str, Any] | None = None,
    name: str = "comparison",
    out: str | Path | None = None,
    force: bool = False,
    engine: Engine | str = "local",
    **sections: Any,
) -> Run:
    """Compare spaces, as a study does: the same steps, cache and bits, and the same `Run`.

    Args:
        spaces: two or more, from `space`.
        text: a file, folder, glob or dataset's name; a list of documents; or the settings of a study's `text`. Not
            needed if the codes of a space have tokens, which then make the text, or if row i is row i.
        matching, geometry, inference, sections: as in a study (docs/study.md): `families={}`, `seed=1` …
        name: of the run.
        out: its folder; by default `runs/<name>`.
        force, engine: see `run`.

    Raises:
        UserError: settings that a study would refuse; spaces, text or codes that do not fit each other.
    """
    study = study_of(spaces, text, matching=matching, geometry=geometry, inference=inference, name=name, **sections)
    return run(study, out, force=force, engine=engine)


def study_of(spaces: Sequence[SpaceSource], text: Any = None, **sections: Any) -> Study:
    """The study that `compare` runs. Codes, activations, functions and objects of the session are put into the cache.

    Raises:
        UserError: as `compare` does.
    """
    spaces = [
        one if one.name is not None else replace(one, name=_name(one, number))
        for number, one in enumerate(_checked(spaces))
    ]
    spaces = [
        one if one.tokenizer is None else replace(one, tokenizer=fast_tokenizer(str(one.name), one.tokenizer))
        for one in spaces
    ]
    entries: dict[int, dict[str, Any]] = {}
    models: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(spaces):
        if _is_named(one):
            entries[number] = _named(one, models)
        elif not _needs_text(one):
            entries[number] = _brought(one)
    settings = {key: value for key, value in sections.items() if value is not None}
    data: dict[str, Any] = {"text": _text(text), "models": models, **settings}
    if any(number not in entries for number in range(len(spaces))):
        first = _partial(data, entries, spaces)
        counter = next((one.tokenizer or load_tokenizer(str(one.model)) for one in spaces if _needs_text(one)), None)
        there = [one for number, one in enumerate(first.spaces) if number in entries and isinstance(one, BroughtSpec)]
        corpus = study_corpus(text_of(first.text, there, encoded=True), counter)
        for number, one in enumerate(spaces):
            if number not in entries:
                folder = codes_of_model(str(one.name), one, corpus, first.text.context, first.text.windows, first.mask)
                entries[number] = _entry(one) | {"codes": str(folder)}
    return study_from(data | {"spaces": [entries[number] for number in range(len(spaces))]}, Path.cwd(), "compare")


def _checked(spaces: Sequence[SpaceSource]) -> list[SpaceSource]:
    if isinstance(spaces, SpaceSource) or not isinstance(spaces, Iterable):
        raise UserError("compare takes a list of spaces: uf.compare([a, b], text)")
    found = list(spaces)
    wrong = next((one for one in found if not isinstance(one, SpaceSource)), None)
    if wrong is not None:
        raise UserError(f"compare takes spaces from uf.space(…), not {type(wrong).__name__}")
    if len(found) < 2:
        raise UserError("compare needs two spaces or more")
    return found


def _name(one: SpaceSource, number: int) -> str:
    if isinstance(one.model, str):
        return Path(one.model).name.removesuffix(".gguf")
    return ascii_lowercase[number] if number < len(ascii_lowercase) else f"space{number}"


def _is_named(one: SpaceSource) -> bool:
    """Whether a study can name both model and SAE."""
    encoded = one.codes is None and one.activations is None
    return encoded and isinstance(one.model, str) and isinstance(one.sae, str | Path)


def _needs_text(one: SpaceSource) -> bool:
    return one.codes is None and one.activations is None and not _is_named(one)


def _named(one: SpaceSource, models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """An entry of a study's spaces, and that of its model, which several spaces may share."""
    settings = {"name": str(one.model), **one.of_model}
    called = next((name for name, known in models.items() if known == settings), None)
    if called is None:
        called = str(one.name) if str(one.name) not in models else f"{one.name}-{len(models)}"
        models[called] = settings
    more = {("codes" if key == "codes_as" else key): value for key, value in one.of_space.items()}
    return {"model": called, "layers": [one.layer], "sae": str(one.sae), "name": one.name, **more}


def _entry(one: SpaceSource) -> dict[str, Any]:
    keys = ("hook", "format", "labels")
    label = one.model if isinstance(one.model, str) else None
    entry = {"name": one.name, "layer": one.layer, **{key: one.of_space[key] for key in keys if key in one.of_space}}
    return entry | ({"model": label} if label else {})


def _brought(one: SpaceSource) -> dict[str, Any]:
    """The entry of a space with codes or activations; those of the session are put into the cache."""
    entry, decoder = _entry(one), one.decoder
    named = isinstance(decoder, str | Path)
    if named:
        entry["decoder"] = _absolute(decoder)
    array = None if named else decoder
    if isinstance(one.codes, Codes):
        return entry | {"codes": str(stored_codes(one.codes, array))}
    if one.codes is not None:
        if array is not None:
            saved = SavedCodes.open(user_path(one.codes, "codes"))
            entry["decoder"] = str(_decoder_file(array, saved.features))
        return entry | {"codes": _absolute(one.codes)}
    files = isinstance(one.activations, str | Path)
    if files and isinstance(one.sae, str | Path) and array is None:
        places = {} if one.places is None else {"places": _absolute(one.places)}
        return entry | {"activations": _absolute(one.activations), "sae": str(one.sae), **places}
    if files:
        return entry | {"codes": str(codes_of_files(str(one.name), one.activations, one.places, one.sae, array))}
    return entry | {"codes": str(codes_of_blocks(str(one.name), one.activations, one.sae, array))}


def _absolute(path: Any) -> str:
    found = user_path(path, "path")
    return str(found.resolve()) if found.exists() or found.suffix in KINDS else str(path)


def _decoder_file(decoder: Any, features: int) -> Path:
    """Decoder rows of the session as a file in the cache."""
    rows = decoder_array(decoder, features)
    form: Form[Path] = Form(lambda value, folder: np.save(folder / "rows.npy", value), lambda value, folder: folder)
    piece = Piece("brought", {"decoder": digest_of_arrays(rows)}, form, "decoder rows of a session")
    if piece.read() is None:
        piece.write(rows)
    return piece.path / "rows.npy"


def _text(text: Any) -> dict[str, Any]:
    if text is None:
        return {"source": ROWS}
    if isinstance(text, dict):
        return dict(text)
    if isinstance(text, str | Path):
        return {"source": str(text)}
    if not isinstance(text, Iterable):
        raise UserError(f"text: give a file, a dataset's name, or a list of documents, not {type(text).__name__}")
    documents = [str(document) for document in text]
    if not documents:
        raise UserError("text: the list has no documents")
    form: Form[Path] = Form(_write_documents, lambda value, folder: folder / TEXT)
    piece = Piece("brought", {"documents": digest_of(documents)}, form, "documents of a session")
    if piece.read() is None:
        piece.write(documents)
    return {"source": str(piece.path / TEXT)}


def _write_documents(documents: list[str], folder: Path) -> None:
    with (folder / TEXT).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": document}) + "\n" for document in documents)


def _partial(data: dict[str, Any], entries: dict[int, dict[str, Any]], spaces: list[SpaceSource]) -> Study:
    """The study, checked before a function of the session runs; what it will make is not there yet."""
    later = [entries.get(number) or _entry(one) | {"codes": "later"} for number, one in enumerate(spaces)]
    return study_from(data | {"spaces": later}, Path.cwd(), "compare")
