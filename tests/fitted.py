"""SAEs that do fit a tiny model's activations, trained in a second or two, and that text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tiny import saelens, sentences
from unifeat.models.activations import run_group
from unifeat.models.language import load_language_model
from unifeat.text.corpus import Part
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing

CONTEXT = 32


@cache
def activations(model: Path, point: HookPoint, bos: int | None = None, documents: int = 120) -> torch.Tensor:
    """(rows, d_model) float32 activations of a tiny model over sentences that the tests' own text has none of."""
    parts = [Part(n, 0, text) for n, text in enumerate(sentences(documents, seed=50))]
    loaded = load_language_model(str(model), [point], dtype="float32")
    return run_group(loaded, parts, [point], Windowing(CONTEXT, bos)).without_sinks(point)[0]


def fitted_sae(
    folder: Path, x: torch.Tensor, *, d_sae: int = 128, k: int = 8, steps: int = 300, **metadata: Any
) -> Path:
    """Train a TopK SAE on activations and write it as SAELens does.

    Args:
        x: (rows, d_in) float32.
        metadata: what the SAE says of itself: hook_name, model_name …
    """
    lens = saelens()
    generator = torch.Generator().manual_seed(0)
    n, d_in = x.shape
    size = float(x.norm(dim=-1).mean()) / d_in**0.5
    y = x / size
    first = torch.randn((d_sae, d_in), generator=generator)
    first /= first.norm(dim=-1, keepdim=True)
    weights = [first.T.clone(), first.clone(), torch.zeros(d_sae), y.mean(0)]
    encoder, decoder, b_enc, b_dec = (w.requires_grad_() for w in weights)
    optimiser = torch.optim.Adam(weights, lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, steps)
    for _ in range(steps):
        rows = y[torch.randint(n, (512,), generator=generator)]
        values, chosen = ((rows - b_dec) @ encoder + b_enc).topk(k)
        codes = torch.zeros(len(rows), d_sae).scatter(1, chosen, values.relu())
        loss = (rows - codes @ decoder - b_dec).pow(2).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    sae = lens.TopKSAE(lens.TopKSAEConfig(d_in=d_in, d_sae=d_sae, k=k, dtype="float32", device="cpu"))
    with torch.no_grad():
        tensors = {"W_enc": encoder / size, "b_enc": b_enc, "W_dec": decoder * size, "b_dec": b_dec * size}
    sae.load_state_dict({key: value.detach() for key, value in tensors.items()})
    for key, value in metadata.items():
        sae.cfg.metadata[key] = value
    folder.mkdir(parents=True, exist_ok=True)
    sae.save_model(folder)
    return folder


def changed(sae: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """A copy of an SAE's folder with its tensors changed."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(sae, folder)
    tensors = load_file(folder / "sae_weights.safetensors")
    change(tensors)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "sae_weights.safetensors")
    return folder
