"""Sparse autoencoders as SAELens objects, from its registry, a SAELens folder, or a sparsify folder."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch

from unifeat.errors import UserError, did_you_mean

_SAELENS_WEIGHTS = "sae_weights.safetensors"
_SPARSIFY_WEIGHTS = "sae.safetensors"


def load_sae(name: str | Path, *, device: str = "cpu", dtype: str = "float32") -> Any:
    """Load an SAE by what its name turns out to be.

    Args:
        name: `release/sae_id` from SAELens' registry, a folder saved by SAELens, or a folder saved by sparsify.
        device, dtype: where and in what precision to hold it.

    Returns:
        A `sae_lens.SAE`: `.encode`, `.decode`, `.W_dec` (d_sae, d_in), `.cfg`.

    Raises:
        UserError: no such SAE, a damaged file, or a file that holds more than tensors.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / _SAELENS_WEIGHTS).exists() and (path / "cfg.json").exists():
            sae = _read(path, lambda: _sae_class().load_from_disk(path, device=device, dtype=dtype))
        elif (path / _SPARSIFY_WEIGHTS).exists() and (path / "cfg.json").exists():
            sae = _read(path, lambda: _from_sparsify(path, device, dtype))
        else:
            pickles = sorted([*path.glob("*.pt"), *path.glob("*.pth")])
            if pickles:
                _refuse_pickle(pickles[0])
            raise UserError(
                f"SAE {name}: the folder holds neither a SAELens SAE (cfg.json and {_SAELENS_WEIGHTS}) nor a "
                f"sparsify one (cfg.json and {_SPARSIFY_WEIGHTS})"
            )
    elif path.is_file():
        if path.suffix in (".pt", ".pth", ".bin"):
            _refuse_pickle(path)
        raise UserError(f"SAE {name}: give the folder that holds the file, not the file")
    else:
        sae = _from_registry(str(name), device, dtype)
    _check_sane(sae, name)
    return sae.eval().requires_grad_(False)


def is_local(name: str | Path) -> bool:
    """Whether an SAE's name says a local folder, there or not yet."""
    text = str(name)
    return Path(text).expanduser().exists() or text.startswith((".", "/", "~"))


def sae_digest(sae: Any) -> str:
    """SHA-256 over an SAE's tensors and the settings that shape its codes."""
    digest = hashlib.sha256()
    settings = {k: v for k, v in sae.cfg.to_dict().items() if k not in ("metadata", "device")}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for key, tensor in sorted(sae.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def decoder_rows(sae: Any) -> Any:
    """The decoder, one unit-norm row a feature: a NumPy array (d_sae, d_in), float32.

    Norms are a convention of the checkpoint, not of the feature, so geometry never sees them; a row of zeros
    stays zero.
    """
    rows = sae.W_dec.detach().to("cpu", torch.float32)
    return (rows / rows.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)).numpy()


def check_width(sae: Any, name: str | Path, model: str, d_model: int) -> None:
    """Raise a UserError if the SAE does not take vectors of the model's width."""
    if sae.cfg.d_in != d_model:
        raise UserError(
            f"SAE {name} takes vectors of width {sae.cfg.d_in}, but {model} has width {d_model}: "
            "it was trained on another model or hook point"
        )


def _sae_class() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens import SAE
    return SAE


def _read(path: Path, load: Any) -> Any:
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except (SafetensorError, AttributeError, KeyError, RuntimeError, ValueError, TypeError) as error:
        text = str(error).strip()
        reason = text.splitlines()[0] if text else type(error).__name__
        raise UserError(
            f"SAE {path} cannot be read ({reason}): is the file whole, and does cfg.json fit it?"
        ) from error


def registry() -> Any:
    """SAELens' registry: release names with what they hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
    return get_pretrained_saes_directory()


def _from_registry(name: str, device: str, dtype: str) -> Any:
    directory = registry()
    release, _, sae_id = name.partition("/")
    if is_local(name):
        raise UserError(f"SAE {name}: no such folder")
    if release not in directory:
        raise UserError(
            f"SAE {name}: no such folder, and SAELens' registry has no release {release!r}"
            f"{did_you_mean(release, directory)}"
        )
    known = directory[release].saes_map
    if sae_id not in known:
        raise UserError(
            f"SAE {name}: release {release} has no SAE {sae_id!r}{did_you_mean(sae_id, known)}; "
            f"it has {len(known)}, e.g. {next(iter(known))}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _sae_class().from_pretrained(release, sae_id, device=device, dtype=dtype)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"SAE {name} cannot be fetched from the hub now, and is not in the cache: {reason}") from error


def _from_sparsify(path: Path, device: str, dtype: str) -> Any:
    """A sparsify checkpoint as a SAELens TopK SAE.

    SAELens' own loader is not used: it transposes `W_dec`, which sparsify stores as (num_latents, d_in) like SAELens,
    and ties the `b_dec` subtraction to `normalize_decoder`, whereas sparsify always subtracts except in transcoders.
    sparsify takes relu before top-k and SAELens after: the k largest of relu(z) are the positive ones of the k
    largest z.
    """
    from safetensors.torch import load_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens import TopKSAE, TopKSAEConfig
        from sae_lens.saes.sae import SAEMetadata

    cfg = json.loads((path / "cfg.json").read_text())
    if cfg.get("activation", "topk") != "topk":
        raise UserError(f"SAE {path}: sparsify's {cfg['activation']!r} activation is not supported, only topk")
    if cfg.get("transcode") or cfg.get("skip_connection"):
        raise UserError(f"SAE {path} is a transcoder, which has no decoder into the space it reads")
    if cfg.get("signed"):
        raise UserError(f"SAE {path}: sparsify's signed top-k is not supported")
    tensors = {k: v.to(device, getattr(torch, dtype)) for k, v in load_file(path / _SPARSIFY_WEIGHTS).items()}
    missing = {"encoder.weight", "encoder.bias", "W_dec", "b_dec"} - set(tensors)
    if missing:
        raise UserError(f"SAE {path}: {_SPARSIFY_WEIGHTS} lacks {', '.join(sorted(missing))}")
    d_sae, d_in = tensors["W_dec"].shape
    sae = TopKSAE(
        TopKSAEConfig(
            d_in=d_in,
            d_sae=d_sae,
            k=int(cfg["k"]),
            dtype=dtype,
            device=device,
            apply_b_dec_to_input=True,
            normalize_activations="none",
            rescale_acts_by_decoder_norm=False,
            metadata=SAEMetadata(hook_name=path.name, sparsify_config=cfg),
        )
    )
    sae.load_state_dict(
        {
            "W_enc": tensors["encoder.weight"].T.contiguous(),
            "b_enc": tensors["encoder.bias"],
            "W_dec": tensors["W_dec"],
            "b_dec": tensors["b_dec"],
        }
    )
    return sae


def _refuse_pickle(path: Path) -> None:
    """Pickles run code when opened: look inside only with `weights_only`, and say what was found."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noise unpickles to errors of every kind
        raise UserError(
            f"SAE {path} holds more than tensors, or is damaged: it is refused, since opening it could run code; "
            "save its tensors as safetensors"
        ) from error
    keys = sorted(map(str, held))[:6] if isinstance(held, dict) else [type(held).__name__]
    raise UserError(
        f"SAE {path} is a bare file of tensors ({', '.join(keys)}), which says nothing of how to read it: "
        "give a SAELens or sparsify folder"
    )


def _check_sane(sae: Any, name: str | Path) -> None:
    bad = [key for key, tensor in sae.state_dict().items() if not torch.isfinite(tensor).all()]
    if bad:
        raise UserError(f"SAE {name}: {', '.join(bad)} holds NaN or Inf; the checkpoint is damaged")
    k = getattr(sae.cfg, "k", None)
    if k is not None and not 0 < k <= sae.cfg.d_sae:
        raise UserError(f"SAE {name}: cfg.json says that k = {k} of {sae.cfg.d_sae} features fire; that cannot be")
