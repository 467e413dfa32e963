"""What families say of the depth of models, for `run.json`."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pandas as pd

from unifeat.multiway.depth import Correspondence, Layer, correspondence, partner_depths, passages, spans, streams
from unifeat.multiway.graph import Pairs
from unifeat.multiway.result import Families
from unifeat.vocabulary.json_values import number_or_none, records

_DRAWS = 1000


def depth_facts(
    found: Families, pairs: Pairs, layers: dict[str, Layer], level: float, seed: int
) -> dict[str, Any] | None:
    """How long features last in each stream, and how the depths of two streams correspond; None without any stream.

    `lasting`: for each model, how many families have a member in its first, second … layer first (`begin`), by how many
    layers they have (`layers`), and whether each layer was compared with the next (`compared`). `passages`: see
    `passages`. `correspondence`: for both directions of two streams, the layers of the partners (see `correspondence`),
    with intervals over families.
    """
    streamed = streams(layers)
    if not streamed:
        return None
    lives = spans(found, layers)
    lasting = []
    for model, names in streamed.items():
        own = lives[lives["model"] == model]
        at = [layers[name].layer for name in names]
        lasting.append(
            {
                "model": model,
                "layer": at,
                "begin": [int((own["first"] == layer).sum()) for layer in at],
                "layers": [int((own["layers"] == count).sum()) for count in range(1, len(names) + 1)],
                "compared": all((a, b) in pairs or (b, a) in pairs for a, b in pairwise(names)),
            }
        )
    family = {
        name: dict(zip(own["feature"], own["family"], strict=True))
        for name, own in found.members.groupby("space", sort=False)
    }
    corresponding = []
    for of, there in permutations(streamed, 2):
        depths = partner_depths(pairs, layers, of, there)
        if len(depths):
            ridge = correspondence(depths, _units(depths, family), draws=_DRAWS, level=level, seed=seed)
            corresponding.append({"of": of, "in": there} | _facts(ridge))
    return {
        "lasting": lasting,
        "passages": records(passages(found, layers)),
        "correspondence": corresponding,
    }


def _units(depths: pd.DataFrame, family: dict[Any, dict[int, int]]) -> Any:
    """The family of each feature, and a number of its own for one that is in none."""
    known = [
        family.get(space, {}).get(feature, -1)
        for space, feature in zip(depths["space_a"], depths["feature_a"], strict=True)
    ]
    own = np.array(known, np.int64)
    alone = own < 0
    own[alone] = -1 - np.arange(int(alone.sum()))
    return own


def _facts(found: Correspondence) -> dict[str, Any]:
    ends = {name: number_or_none(getattr(found, name)) for name in ("order", "low", "high")}
    return {"layers": records(found.layers)} | ends
