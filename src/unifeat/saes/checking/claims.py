"""What an SAE says of itself: its L0 and variance explained, and the model and hook point it was trained on.

Read from unifeat's own card (`training.json`), SAELens' registry, the SAE's name and metadata, in this order, and,
where these are silent, from what its format's reader found (`saes.provenance`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unifeat.saes.protocol import SAE
from unifeat.saes.registry import known_releases
from unifeat.store.paths import user_path
from unifeat.vocabulary.hook_points import HOOK_KINDS, HookPoint, parse_hook

_AVERAGE_L0 = re.compile(r"average_l0_(\d+)")


@dataclass(frozen=True)
class Claims:
    """What an SAE is said to be; None where nothing is said.

    Attributes:
        l0: features active a token, on average.
        variance_explained: 1 − FVU.
        k: features active a token by construction, of a TopK SAE.
        hook: where it reads: one of `HOOK_KINDS`, or the name of a place that unifeat does not read.
        layer: the block, counted from 0.
        model: the model's name.
        bos: whether it was trained on windows that begin with BOS.
        source: where `l0` and `variance_explained` are from.
    """

    l0: float | None = None
    variance_explained: float | None = None
    k: int | None = None
    hook: str | None = None
    layer: int | None = None
    model: str | None = None
    bos: bool | None = None
    source: str | None = None

    @property
    def point(self) -> HookPoint | None:
        """The hook point, when it is one that unifeat reads."""
        for kind in HOOK_KINDS:
            if self.hook == kind and self.layer is not None:
                return HookPoint(self.layer, kind)
        return None

    @property
    def expected_l0(self) -> float | None:
        """The stated L0, or else k."""
        return self.l0 if self.l0 is not None else self.k


def claims_of(sae: SAE, name: str | Path) -> Claims:
    """What is said of an SAE that was loaded by a name.

    Args:
        sae: a SAELens SAE.
        name: `release/sae_id` from SAELens' registry, or a folder.
    """
    metadata = getattr(sae.cfg, "metadata", None)
    said = metadata if isinstance(metadata, dict) else metadata.to_dict() if metadata is not None else {}
    provenance = getattr(sae, "unifeat_provenance", None)
    k = getattr(sae.cfg, "k", None)
    hook, layer = parse_hook(said.get("hook_name") or getattr(provenance, "hook", None))
    model = said.get("model_name") or getattr(provenance, "model", None)
    bos = said.get("prepend_bos")
    l0, explained, source = _figures(str(name), said)
    if source is None and provenance is not None and provenance.claimed_l0 is not None:
        l0, explained, source = provenance.claimed_l0, provenance.claimed_variance_explained, "its checkpoint"
    return Claims(
        l0=l0,
        variance_explained=explained,
        k=None if k is None else int(k),
        hook=hook,
        layer=layer,
        model=None if model is None else str(model),
        bos=bos if bos is not None else getattr(provenance, "bos", None),
        source=source,
    )


def _figures(name: str, said: dict[str, Any]) -> tuple[float | None, float | None, str | None]:
    """L0, variance explained, and who says so."""
    path = user_path(name, "SAE")
    if path.is_dir():
        card = path / "training.json"
        if card.is_file():
            heldout = json.loads(card.read_text(encoding="utf-8")).get("heldout", {})
            fvu = _number(heldout.get("fvu"))
            return _number(heldout.get("l0")), None if fvu is None else 1 - fvu, "training.json"
    else:
        l0, explained, stored_as = _registered(name)
        if l0 is not None:
            return l0, explained, "SAELens' registry"
        if match := _AVERAGE_L0.search(stored_as):
            return float(match[1]), explained, "the name"
    if match := _AVERAGE_L0.search(name):
        return float(match[1]), None, "the name"
    l0 = _number(said.get("l0"))
    return l0, None, None if l0 is None else "its metadata"


def _registered(name: str) -> tuple[float | None, float | None, str]:
    """L0, variance explained and path from SAELens' registry, which writes 0 and 1 where it does not know them."""
    release, _, sae_id = name.partition("/")
    entry = known_releases().get(release)
    if entry is None:
        return None, None, ""
    l0 = _number(entry.expected_l0.get(sae_id))
    explained = _number(entry.expected_var_explained.get(sae_id))
    return (
        l0 if l0 is not None and l0 > 0 else None,
        explained if explained is not None and 0 < explained < 1 else None,
        str(entry.saes_map.get(sae_id, "")),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value == value else None
