"""Both models of a pair, going on from a prompt with and without their feature."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.models.generation import Sampling, continuation
from unifeat.pipeline.effect_edits import DOSE
from unifeat.pipeline.reopen import Reopened, reopen
from unifeat.pipeline.spaces import Space
from unifeat.pipeline.transfer import sae_of
from unifeat.pipeline.transfer_loss import whole_model
from unifeat.runs.folder import Run
from unifeat.runs.roles import role_of
from unifeat.transfer.decoding import Decoding
from unifeat.transfer.steering import Steered, SteeredPair
from unifeat.vocabulary.openings import opening_tokens


def steer(
    run: Run,
    space: str,
    feature: int,
    prompt: str,
    *,
    partner: str | None = None,
    dose: float = 1.0,
    sampling: Sampling | None = None,
) -> SteeredPair:
    """Let both models of a pair go on from a prompt, with and without their feature.

    At every token of the prompt and after it, the feature's decoder row is added, times a dose. A dose of 1 is the 90th
    percentile of the feature's activation where it fires; a negative one pushes away from it.

    Args:
        run: a run whose cache is still there.
        space, feature: a feature that the run paired.
        partner: the space of the other feature; by default that of the feature's pair with the highest r (with an
            ordinary model rather than a control).
        dose: in standard doses, in either model its own.
        sampling: how next tokens are drawn; the same in all four texts.

    Raises:
        UserError: a space that the run lacks, or one as its own partner; a feature without a partner; a dose beyond the
            model's numbers; a temperature that is none; a pruned cache.
    """
    if not np.isfinite(dose):
        raise UserError(f"dose {dose}: give a number")
    row = _pair(run, space, feature, partner)
    opened = reopen(run)
    sampling = sampling or Sampling()

    def of_side(side: str) -> Steered:
        name, own = (row[f"{what}_{side}"] for what in ("space", "feature"))
        return _steered(opened, name, int(own), row[f"top_tokens_{side}"], prompt, dose, sampling)

    one, other = ("a", "b") if row["space_a"] == space else ("b", "a")
    return SteeredPair(float(row["correlation"]), (of_side(one), of_side(other)))


def _pair(run: Run, space: str, feature: int, partner: str | None) -> Any:
    """The row of `pairs.parquet` of a feature's pair."""
    cells, facts = [(own["space_a"], own["space_b"]) for own in run.info["pairs"]], run.info["spaces"]
    for name in (space, partner):
        if name is not None:
            run.check_space(name)
    if partner == space:
        raise UserError(f"{partner} is the feature's own space: name another one, or none for its best pair")
    found = []
    for a, b in cells:
        if space not in (a, b) or partner not in (None, a, b):
            continue
        side = "feature_a" if space == a else "feature_b"
        table = run.space_pair(a, b)
        own = table[table["kept"] & (table[side] == feature)]
        is_other = role_of(facts[a], facts[b]) != "ordinary"
        found += [(is_other, -row["correlation"], a, b, row) for _, row in own.iterrows()]
    if not found:
        with_whom = f" with {partner}" if partner is not None else ""
        raise UserError(
            f"feature {feature} of {space} has no kept pair{with_whom}: `unifeat show {run.folder} SPACE_A SPACE_B` "
            "lists the pairs"
        )
    return min(found, key=lambda one: one[:4])[4]


def _steered(
    opened: Reopened, name: str, feature: int, top_tokens: Any, prompt: str, dose: float, sampling: Sampling
) -> Steered:
    space = opened.space(name)
    assert space.loader is not None
    assert space.windowing is not None
    (planned,) = space.loader.spaces
    decoding = Decoding(sae_of(space), space.info["sae"])
    added = dose * standard_dose(space, feature)
    direction = added * decoding.weights(np.array([feature]))[0]
    if np.abs(direction).max() > np.finfo(np.float32).max:
        raise UserError(f"dose {dose:g} of feature {feature} of {name} is more than float32 holds: lower it")
    row = torch.from_numpy(direction.astype(np.float32))

    def add(value: Tensor) -> Tensor:
        scale = decoding.scale(value.reshape(-1, value.shape[-1]).cpu().numpy())
        rows = torch.from_numpy(scale.astype(np.float32))[:, None] * row
        return rows.reshape(value.shape).to(value.device)

    model, opening = whole_model(space), opening_tokens(space.windowing.opening)
    plain = continuation(model, prompt, opening, sampling)
    steered = continuation(model, prompt, opening, sampling, planned.writes_at, add)
    return Steered(name, feature, list(top_tokens), added, plain, steered)


def standard_dose(space: Space, feature: int) -> float:
    """The quantile `DOSE` of a feature's activation where it fires, over the whole text.

    Raises:
        UserError: it never fires.
    """
    values = [shard.value[shard.feature == feature] for shard in space.store.shards()]
    fired = np.concatenate(values) if values else np.zeros(0)
    if not len(fired):
        raise UserError(f"feature {feature} of {space.name} never fires, so its dose is not known")
    return float(np.quantile(fired.astype(np.float64), DOSE))
