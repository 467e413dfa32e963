"""The spaces and models of a planned study: their sizes, and the work of encoding them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from unifeat.codes.array_files import array_files
from unifeat.codes.brought import SavedCodes
from unifeat.models.sizes import Sizes
from unifeat.pipeline.brought import decoder_of
from unifeat.saes.checking.claims import claims_of
from unifeat.saes.recipe import Recipe
from unifeat.store.paths import exists, user_path
from unifeat.study.brought import BroughtSpec
from unifeat.study.plan import PlannedModel
from unifeat.study.spec import SpacesSpec, Study

_ASSUMED_L0 = 64
_ROW_BYTES = 24  # of a token's place and pointer in a shard


@dataclass(frozen=True)
class SpaceSize:
    """A space's size, and how many features fire on a token."""

    name: str
    prefix: str
    model: str
    features: int
    l0: float
    width: int


def space_of(study: Study, group: SpacesSpec, layer: int, width: int, notes: list[str]) -> SpaceSize:
    """A space that a model and an SAE make: from the SAE's configuration, from how it is to be trained, or loaded.

    Args:
        width: of the model, where the SAE does not say its own.
        notes: what had to be assumed is added to them.
    """
    name, prefix = group.sae_at(layer), group.prefix
    path = user_path(name, "SAE")
    features, l0 = _from_files(path)
    if features is None and not exists(path) and study.train is not None:
        spec = study.train.overridden(group.train)
        features, l0 = spec.features, float(spec.k)
    if features is None:
        sae = Recipe(name, group.format).load()
        claims = claims_of(sae, name)
        features, l0, width = int(sae.cfg.d_sae), claims.k or claims.l0, int(sae.cfg.d_in)
    if l0 is None:
        notes.append(f"{_ASSUMED_L0} active features a token where an SAE does not say ({prefix})")
    return SpaceSize(f"{prefix}@{layer}", prefix, group.model, features, float(l0 or _ASSUMED_L0), width)


def brought_space(spec: BroughtSpec) -> tuple[SpaceSize, int]:
    """A space whose codes or activations are there, and its rows."""
    name = f"{spec.name}@{spec.layer}"
    if spec.codes is not None:
        saved = SavedCodes.open(user_path(spec.codes, "codes"))
        rows = saved.store.rows
        l0 = sum(entry["nonzeros"] for entry in saved.store.manifest["shards"]) / max(rows, 1)
        return SpaceSize(name, spec.name, name, saved.features, l0, decoder_of(spec, saved, None)[1]), rows
    assert spec.activations is not None
    assert spec.sae is not None
    files = array_files(user_path(spec.activations, "activations"))
    sae = Recipe(spec.sae, spec.format).load()
    claims = claims_of(sae, spec.sae)
    l0 = float(claims.k or claims.l0 or _ASSUMED_L0)
    rows = sum(math.prod(file.shape[:-1]) for file in files)
    return SpaceSize(name, spec.name, name, int(sae.cfg.d_sae), l0, int(sae.cfg.d_in)), rows


def read_only(space: SpaceSize, rows: int) -> PlannedModel:
    """What stands for the model of a brought space: it is not run, and activations pass through an SAE alone."""
    row = space.l0 * ((2 if space.features <= 1 << 16 else 4) + 4) + _ROW_BYTES
    # (Encoded, and decoded to measure FVU, which takes seconds where codes are there already.)
    return PlannedModel(
        name=space.name,
        tokens=rows,
        flops=rows * 4.0 * space.width * space.features,
        model_bytes=0.0,
        sae_bytes=8.0 * space.width * space.features,
        largest_sae=8.0 * space.width * space.features,
        code_bytes=rows * row,
        spaces=1,
    )


def _from_files(path: Path) -> tuple[int | None, float | None]:
    """(features, active features a token) from the configuration in an SAE's folder, where it says so."""
    try:
        config = json.loads((path / "cfg.json").read_text(encoding="utf-8"))
        features = int(config["d_sae"])
        l0 = config.get("k")
        if l0 is None:
            l0 = json.loads((path / "training.json").read_text(encoding="utf-8"))["heldout"]["l0"]
        return features, float(l0)
    except (OSError, ValueError, LookupError, TypeError):
        return None, None


def model_of(
    name: str,
    texts: list[tuple[float, list[SpaceSize]]],
    sizes: Sizes,
    context: int,
    groups: list[SpacesSpec],
) -> PlannedModel:
    """The work of one model.

    Args:
        texts: tokens, and the spaces that are encoded on them: of the study's text, and of its text elsewhere.
    """
    flops = codes = 0.0
    value = 2 if all(group.values == "float16" for group in groups) else 4
    for tokens, spaces in texts:
        # An encoder is one product; every fourth group of text is also decoded, to measure FVU.
        saes = sum(2 * space.width * space.features * 1.25 for space in spaces)
        flops += tokens * (2 * sizes.parameters + 2 * sizes.blocks * context * sizes.width + saes)
        row = sum(s.l0 * ((2 if s.features <= 1 << 16 else 4) + value) + _ROW_BYTES for s in spaces)
        codes += tokens * row
    own = texts[0][1]
    return PlannedModel(
        name=name,
        tokens=texts[0][0],
        flops=flops,
        model_bytes=sizes.bytes,
        sae_bytes=sum(8.0 * space.width * space.features for space in own),
        largest_sae=max(8.0 * space.width * space.features for space in own),
        code_bytes=codes,
        spaces=len(own),
        tokens_elsewhere=texts[1][0],
    )
