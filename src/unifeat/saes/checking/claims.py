"""What an SAE claims about itself: its L0 and variance explained, and the model and hook point it was trained on.

Claims are read from unifeat's own card (`training.json`), SAELens' registry, and the SAE's name and metadata, in this
order. If none of these states a figure, it is taken from what the format's reader found (`saes.provenance`).
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
    """What an SAE claims about itself; None for what is not stated.

    Attributes:
        l0: active features per token, on average.
        variance_explained: 1 − FVU.
        k: active features per token by construction, for a TopK SAE.
        hook: where it reads: one of `HOOK_KINDS`, or the name of a place that unifeat cannot read.
        layer: the block, counted from 0.
        model: the model's name.
        bos: whether it was trained on windows that begin with BOS.
        source: where `l0` and `variance_explained` come from.
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
        """The hook point, if unifeat can read it."""
        for kind in HOOK_KINDS:
            if self.hook == kind and self.layer is not None:
                return HookPoint(self.layer, kind)
        return None

    @property
    def expected_l0(self) -> float | None:
        """The stated L0 or, without one, k."""
        return self.l0 if self.l0 is not None else self.k


def claims_of(sae: SAE, name: str | Path) -> Claims:
    """The claims of an SAE that was loaded by name.

    Args:
        sae: a SAELens SAE.
        name: `release/sae_id` from SAELens' registry, or a folder.
    """
    metadata = getattr(sae.cfg, "metadata", None)
    stated = metadata if isinstance(metadata, dict) else metadata.to_dict() if metadata is not None else {}
    provenance = getattr(sae, "unifeat_provenance", None)
    k = getattr(sae.cfg, "k", None)
    hook, layer = parse_hook(stated.get("hook_name") or getattr(provenance, "hook", None))
    model = stated.get("model_name") or getattr(provenance, "model", None)
    bos = stated.get("prepend_bos")
    l0, explained, source = _figures(str(name), stated)
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


def _figures(name: str, stated: dict[str, Any]) -> tuple[float | None, float | None, str | None]:
    """L0, variance explained, and their source."""
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
    l0 = _number(stated.get("l0"))
    return l0, None, None if l0 is None else "its metadata"


def _registered(name: str) -> tuple[float | None, float | None, str]:
    """L0, variance explained and path from SAELens' registry, which writes 0 and 1 for unknown figures."""
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
