"""`load_sae`: from a name to a SAELens object that encodes as its format specifies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unifeat.errors import UserError, did_you_mean
from unifeat.saes import registry
from unifeat.saes.build import Known
from unifeat.saes.files import Files, hub_files, local_files
from unifeat.saes.protocol import SAE
from unifeat.saes.tensors import read_pickle
from unifeat.store.paths import exists, user_path


def load_sae(name: str | Path, *, format: str = "auto", device: str = "cpu", dtype: str = "float32") -> Any:
    """Load an SAE.

    Args:
        name: `release/sae_id` from SAELens' registry, a local folder or file, or `ORG/NAME/folder` on the hub.
        format: one of those in `docs/saes.md`; auto uses the registry's entry or recognises the files.
        device, dtype: where to put it, and in what precision.

    Returns:
        A `sae_lens.SAE`: `.encode`, `.decode`, `.W_dec` (d_sae, d_in), `.cfg`. Its `.unifeat_provenance` says how it
        was read and what the checkpoint claims.

    Raises:
        UserError: no such SAE, a damaged file, a file that holds more than tensors, or tensors that do not fit the
            format.
    """
    from unifeat.saes.formats import FORMATS

    if format != "auto" and format not in FORMATS:
        raise UserError(f"no SAE format {format!r}{did_you_mean(format, FORMATS)}; there are {', '.join(FORMATS)}")
    files, known, given = _find(str(name))
    chosen = format if format != "auto" else given or _sniff(files)
    sae = FORMATS[chosen].read(files, known)
    _check_sane(sae, name)
    provenance = sae.unifeat_provenance
    sae.unifeat_provenance = replace(
        provenance,
        claimed_l0=known.l0 or provenance.claimed_l0,
        claimed_variance_explained=known.variance_explained,
    )
    return sae.to(device=device, dtype=getattr(torch, dtype)).eval().requires_grad_(False)


def is_local(name: str | Path) -> bool:
    """Whether an SAE's name is that of a local folder or file, which need not exist yet."""
    text = str(name)
    return exists(user_path(text, "SAE")) or text.startswith((".", "/", "~"))


def on_hub(name: str) -> bool:
    """Whether `ORG/NAME/folder` is available from the hub or the cache. A name of two parts counts as local."""
    parts = name.strip("/").split("/")
    if len(parts) < 3 or is_local(name):
        return False
    try:
        return bool(hub_files(name, "/".join(parts[:2]), "/".join(parts[2:])).names)
    except UserError:
        return False


def _find(name: str) -> tuple[Files, Known, str | None]:
    """The files, what the registry says about them, and the format if the registry states it."""
    path = user_path(name, "SAE")
    if exists(path):
        return local_files(name, path), Known(), None
    if is_local(name):
        raise UserError(f"SAE {name}: no such folder")
    entry = registry.find(name)
    if entry is not None:
        files = hub_files(name, entry.repo, entry.within)
        return files, entry.known, entry.format
    parts = name.strip("/").split("/")
    if len(parts) > 1 and Path(parts[0]).is_dir():  # a local path, so there is no need to ask the hub
        raise UserError(f"SAE {name}: no such folder")
    unknown = (
        f"SAE {name}: no such folder, and SAELens' registry has no release {parts[0]!r}"
        f"{did_you_mean(parts[0], registry.known_releases())}"
    )
    if len(parts) < 2 or "did you mean" in unknown:
        raise UserError(unknown)
    try:
        return hub_files(name, "/".join(parts[:2]), "/".join(parts[2:])), Known(), None
    except UserError as error:
        raise UserError(f"{unknown}; {str(error).removeprefix(f'SAE {name}').strip(' :')}") from error


def _sniff(files: Files) -> str:
    from unifeat.saes.formats import FORMATS

    if files.file is not None and files.file in ("sae_weights.safetensors", "sae.safetensors"):
        raise UserError(f"SAE {files.name}: give the folder that holds the file, not the file")
    if not files.names:
        raise UserError(f"SAE {files.name}: no such folder or file, or an empty folder")
    for name, format in FORMATS.items():
        if format.sniff(files):
            return name
    if files.pickles:
        held = read_pickle(files, files.pickles[0])
        keys = sorted(map(str, held))[:6] if isinstance(held, dict) else [type(held).__name__]
        raise UserError(
            f"SAE {files.path(files.pickles[0])} is a bare file of tensors ({', '.join(keys)}), which does not say "
            "how to read it: name its format, or give a SAELens or sparsify folder"
        )
    raise UserError(
        f"SAE {files.name}: the folder holds neither a SAELens SAE (cfg.json and sae_weights.safetensors) nor one of "
        f"the other formats ({', '.join(list(FORMATS)[1:])}); it holds {', '.join(sorted(files.names)[:4])}"
    )


def _check_sane(sae: SAE, name: str | Path) -> None:
    bad = [key for key, tensor in sae.state_dict().items() if not torch.isfinite(tensor).all()]
    if bad:
        raise UserError(f"SAE {name}: {', '.join(bad)} holds NaN or Inf; the checkpoint is damaged")
    k = getattr(sae.cfg, "k", None)
    if k is not None and not 0 < k <= sae.cfg.d_sae:
        raise UserError(f"SAE {name}: cfg.json says that k = {k} of {sae.cfg.d_sae} features fire, which is impossible")
