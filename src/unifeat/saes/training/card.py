"""A trained SAE's folder: weights and settings for SAELens, how it was trained, and a model card."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unifeat import __version__
from unifeat.errors import UserError
from unifeat.saes.protocol import SAE
from unifeat.store import written_aside

_ARCHITECTURES = {
    "topk": "TopK: the {k} largest features of each token",
    "batchtopk": "BatchTopK: {k} features per token on average; saved with one threshold for all features (JumpReLU)",
    "matryoshka": "Matryoshka BatchTopK: nested dictionaries; saved with one threshold for all features (JumpReLU)",
    "jumprelu": "JumpReLU: thresholds per feature, initialised by BatchTopK and trained towards {k} features per token",
    "relu": "ReLU with an L1 penalty",
}


def cast(sae: Any, dtype: str) -> dict[str, Tensor]:
    """The SAE's tensors in the dtype they are saved in. The SAE itself is set to the rounded values.

    Raises:
        UserError: a value is too large for the dtype.
    """
    tensors = {key: value.detach().to("cpu", getattr(torch, dtype)) for key, value in sae.state_dict().items()}
    overflown = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if overflown:
        raise UserError(f"train.save_dtype {dtype} cannot hold {', '.join(overflown)}: use float32 or bfloat16")
    sae.load_state_dict(tensors)
    return tensors


def check_target(folder: Path) -> None:
    """Check before a long training that its SAE can be saved.

    Raises:
        UserError: the folder, or a folder above it, is something else; or the folder above it cannot be written.
    """
    if folder.is_symlink() and not folder.exists():
        raise UserError(f"{folder} is a broken link: remove it, or name another folder")
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir():
        raise UserError(f"{above}: a file is where a folder should be: move it, or name another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be saved, since {above} cannot be written: name another folder")


def write_sae(folder: Path, sae: SAE, tensors: dict[str, Tensor], dtype: str, about: dict[str, Any]) -> bool:
    """Write `cfg.json`, `sae_weights.safetensors`, `training.json` and `README.md`, all or nothing.

    Args:
        sae: the SAE whose settings go into `cfg.json`.
        tensors: the tensors from `cast`.
        about: how it was trained, and its figures: the content of `training.json`.

    Returns:
        Whether this SAE was saved. If another process saved one there first, that one stays.
    """
    from safetensors.torch import save_file

    cfg = sae.cfg.to_dict() | {"dtype": dtype, "device": "cpu"}
    with written_aside(folder, replace=False) as aside:
        aside.mkdir()
        made = aside.stat()
        weights = aside / "sae_weights.safetensors"
        save_file({key: value.contiguous() for key, value in tensors.items()}, weights)
        (aside / "cfg.json").write_text(json.dumps(cfg, indent=1) + "\n", encoding="utf-8")
        (aside / "training.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        (aside / "README.md").write_text(model_card(folder.name, about), encoding="utf-8")
    return os.path.samestat(made, folder.stat())


def model_card(name: str, about: dict[str, Any]) -> str:
    """The card in Markdown, with front matter for the hub."""
    settings, reached = about["settings"], about["heldout"]
    what = _ARCHITECTURES[settings["architecture"]].format(k=settings["k"])
    of_model = f"`{about['model']}`" + (
        f", all weights redrawn at random with seed {about['randomised']} (a control)"
        if about["randomised"] is not None
        else ""
    )
    rows = [
        ("fraction of variance unexplained (FVU)", f"{reached['fvu']:.4f}"),
        ("active features per token (L0)", f"{reached['l0']:.2f}"),
        (f"features that never fire on these {reached['tokens']:,} tokens", f"{reached['dead_share']:.2%}"),
    ]
    loss = about["loss"]
    if loss["recovered"] is not None:
        rows.append(
            (f"loss recovered when spliced into the model ({loss['tokens']:,} tokens)", f"{loss['recovered']:.4f}")
        )
    table = "\n".join(f"| {left} | {right} |" for left, right in rows)
    curve = "\n".join(
        f"| {point['tokens']:,} | {point['fvu']:.4f} | {point['l0']:.2f} | {point['dead']:.2%} |"
        for point in about["curve"][::-1][:: max(1, len(about["curve"]) // 8)][::-1]  # includes the last point
    )
    return f"""---
library_name: saelens
tags: [sparse-autoencoder, saelens, mechanistic-interpretability]
---
# {name}

A sparse autoencoder of the activations at `{about["hook"]}` of {of_model}.

* {what}.
* {settings["features"]:,} features; saved as {settings["save_dtype"]}; encodes the model's activations unscaled.
* Trained on {about["tokens"]:,} activations ({about["training_documents"]:,} documents of `{about["text"]}`, in
  windows of {about["context"]} tokens), seed {about["seed"]}, by unifeat {about["version"]} with SAELens' trainer.
  Special tokens, first positions and attention sinks (norm above 5 × the median) were left out.

```python
from sae_lens import SAE

sae = SAE.load_from_disk("{name}", dtype="float32")
codes = sae.encode(activations)  # (tokens, {settings["features"]})
```

## Quality

On {reached["documents"]:,} held-out documents of the same source:

| | |
| --- | --- |
{table}

## Training curve

FVU and L0 on a sample of held-out activations, and the share of features that have not fired recently in training. The
whole curve is in `training.json`.

| activations | FVU | L0 | dead |
| --- | --- | --- | --- |
{curve}
"""


def version() -> str:
    """unifeat's version, for `training.json`."""
    return __version__
