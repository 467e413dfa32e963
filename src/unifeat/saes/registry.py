"""SAELens' registry: well-known names of SAEs, with their files, formats and claimed figures."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from unifeat.errors import UserError, did_you_mean
from unifeat.saes.build import Known

# SAELens' loaders, and the format that reads the same files here.
_FORMATS = {
    "sae_lens": "saelens",
    "connor_rob_hook_z": "attention_z",
    "gemma_2": "gemma_scope",
    "gemma_2_transcoder": "gemma_scope",
    "gemma_3": "gemma_scope_2",
    "llama_scope": "llama_scope",
    "llama_scope_r1_distill": "llamascopium",
    "dictionary_learning_1": "dictionary_learning",
    "deepseek_r1": "linear",
    "qwen_scope": "qwen_scope",
    "sparsify": "sparsify",
    "mwhanna_transcoder": "circuit_tracer",
    "goodfire": "goodfire",
}


@dataclass(frozen=True)
class Entry:
    """One SAE of the registry.

    Attributes:
        repo, within: the hub repository, and the folder or file in it.
        format: name of the format to read it with.
    """

    repo: str
    within: str
    format: str
    known: Known


def known_releases() -> Any:
    """SAELens' registry: a mapping from release names to their contents."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
    return get_pretrained_saes_directory()


def find(name: str) -> Entry | None:
    """The registry's entry for `release/sae_id`, or None if it has no such release.

    Raises:
        UserError: the release has no such SAE, or its kind does not have one decoder row per feature.
    """
    directory = known_releases()
    release, _, sae_id = name.partition("/")
    if release not in directory:
        return None
    held = directory[release]
    if sae_id not in held.saes_map:
        raise UserError(
            f"SAE {name}: release {release} has no SAE {sae_id!r}{did_you_mean(sae_id, held.saes_map)}; "
            f"it has {len(held.saes_map)}, e.g. {next(iter(held.saes_map))}"
        )
    loader = held.conversion_func or "sae_lens"
    within = held.saes_map[sae_id]
    if loader == "temporal":
        raise UserError(
            f"SAE {name} is a temporal SAE, whose codes depend on earlier tokens; unifeat does not support these"
        )
    if loader == "mntss_clt_layer_transcoder" or "clt" in within.split("/")[0]:
        raise UserError(
            f"SAE {name} is a cross-layer transcoder: each feature writes to many layers, so it has no single decoder "
            "row"
        )
    if loader not in _FORMATS:
        raise UserError(f"SAE {name}: its release is of the kind {loader!r}, which unifeat cannot read")
    known = Known(
        model=held.model,
        norm_factor=held.norm_scaling_factor.get(sae_id),
        l0=held.expected_l0.get(sae_id) or None,  # the registry's 0 and 1 stand for "not said"
        variance_explained=_said(held.expected_var_explained.get(sae_id)),
        overrides=held.config_overrides,
    )
    return Entry(held.repo_id, within, _FORMATS[loader], known)


def _said(variance_explained: float | None) -> float | None:
    return None if variance_explained is None or variance_explained == 1.0 else variance_explained
