"""The SAEs of a release of SAELens' registry: which layer each is of, where it reads, and whose model it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from unifeat.errors import UserError, did_you_mean
from unifeat.saes.registry import find, known_releases
from unifeat.study.spec import LAYER
from unifeat.vocabulary.hook_points import HOOK_KINDS, HookKind, parse_hook

_PLACE = re.compile(r"(blocks\.\d+\.(?:hook_resid_(?:pre|mid|post)|hook_(?:attn|mlp)_out|hook_z))(?:_|$)")
_LAYER = re.compile(r"((?:^|/)blocks\.|(?:^|[/_])layer_?|^l)(\d+)")
# What a name says of where its SAE reads, by loader; the first that is found. Others are of a block's output.
_SITES: dict[str, tuple[tuple[str, HookKind], ...]] = {
    "gemma_2": (("-att", "attn_z"), ("-mlp", "mlp_out")),
    "gemma_2_transcoder": (("", "ln2_normalized"),),
    "gemma_3": (("transcoder", "mlp_in"), ("-att", "attn_z"), ("-mlp", "mlp_out")),
    "llama_scope": (("_lxa", "attn_out"), ("_lxm", "mlp_out")),
    "mwhanna_transcoder": (("", "mlp_in"),),
}
# The registry's names of models that are not names on the hub, in their words of TransformerLens.
_HUB = {
    "gpt2-small": "openai-community/gpt2",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    **{f"gemma-{size}": f"google/gemma-{size}" for size in ("2b", "2b-it", "2-2b", "2-9b", "2-9b-it", "2-27b")},
    **{f"qwen3-{size}b": f"Qwen/Qwen3-{size}B" for size in ("0.6", "1.7", "4", "8", "14")},
}


@dataclass(frozen=True)
class Listed:
    """One SAE of a release.

    Attributes:
        name: `release/sae_id`.
        pattern: the name with {layer} for its layer.
        layer: the block that it is of.
        hook: where it reads.
    """

    name: str
    pattern: str
    layer: int
    hook: HookKind


def hub_name(model: str) -> str:
    """A model's name on the hub, from its name in the registry."""
    return _HUB.get(model, model)


def model_of(release: str) -> str:
    """The name on the hub of a release's model."""
    return hub_name(known_releases()[release].model)


def check_release(release: str) -> None:
    """Raise a UserError if the registry has no release of this name."""
    releases = known_releases()
    if release not in releases:
        raise UserError(
            f"no release {release!r} in SAELens' registry{did_you_mean(release, releases)}: give one of its "
            f"{len(releases)} releases, release/sae_id, or the folder of an SAE"
        )


def saes_of(release: str) -> list[Listed]:
    """The SAEs of a release that unifeat can read and whose layer their names say, in the registry's order.

    Raises:
        UserError: no such release, or none of its SAEs can be read; the message says why not.
    """
    check_release(release)
    held = known_releases()[release]
    loader = held.conversion_func or "sae_lens"
    refused: UserError | None = None
    listed = []
    for sae_id in held.saes_map:
        name = f"{release}/{sae_id}"
        try:
            find(name)
        except UserError as error:
            refused = error
            continue
        if (one := _listed(name, sae_id, loader)) is not None:
            listed.append(one)
    if not listed:
        raise refused or UserError(
            f"release {release}: the names of its SAEs do not say their layers: name one of them"
        )
    return listed


def listed(name: str) -> Listed:
    """One SAE by its name, `release/sae_id`.

    Raises:
        UserError: there is none, or it cannot be read; its name does not say its layer.
    """
    release, _, sae_id = name.partition("/")
    check_release(release)
    find(name)
    found = _listed(name, sae_id, known_releases()[release].conversion_func or "sae_lens")
    if found is None:
        raise UserError(f"SAE {name}: its name does not say its layer: write the study's spaces by hand")
    return found


def _listed(name: str, sae_id: str, loader: str) -> Listed | None:
    place = _PLACE.match(sae_id)
    number = _LAYER.search(sae_id)
    release = name.partition("/")[0]
    if number is None and "embedding" in sae_id:  # (the embeddings are what the first block is given)
        return Listed(name, name, 0, "resid_pre")
    if number is None:
        return None
    pattern = f"{release}/{sae_id[: number.start(2)]}{LAYER}{sae_id[number.end(2) :]}"
    if place is not None:
        kind = parse_hook(place[1].replace(".hook_z", ".attn.hook_z"))[0]
        hook = next(known for known in HOOK_KINDS if known == kind)
    else:
        hook = next((site for word, site in _SITES.get(loader, ()) if word in name), "resid_post")
    return Listed(name, pattern, int(number[2]), hook)
