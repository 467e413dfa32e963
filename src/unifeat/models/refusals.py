"""One clear line for each way in which a model cannot be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from unifeat.errors import UserError, did_you_mean


def cannot_load(name: str, error: Exception, revision: str | None = None) -> UserError:
    """What to tell the user when transformers or the hub raised `error` on a model."""
    text = str(error).strip()
    reason = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, SafetensorError):
        reason = f"a weights file is damaged or cut short ({reason}); fetch it again"
    if Path(name).expanduser().exists():
        return UserError(f"model {name} cannot be loaded: {reason}")
    if "gated repo" in reason:
        reason = "its access is restricted: ask for it on the model's page, then log in with `hf auth login`"
    elif "couldn't connect" in reason or (_offline() and "does not appear to have" in reason):
        holds = "only a part of it" if name in cached_models() else "no such model"
        reason = f"the hub cannot be reached, and the local cache holds {holds}"
    of = f" at revision {revision}" if revision else ""
    return UserError(
        f"model {name!r}{of} is neither a local folder or GGUF file nor a hub model that can be loaded now: "
        f"{reason}{did_you_mean(name, [known for known in cached_models() if known != name])}"
    )


def cached_models() -> list[str]:
    """Names of the models that the hub's local cache holds, or a part of which it holds."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    found = folder.glob("models--*") if folder.is_dir() else ()
    return sorted(path.name.removeprefix("models--").replace("--", "/") for path in found)


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def check_kind(name: str, config: Any) -> None:
    """Raise a UserError for a configuration that is no decoder's, before its weights are fetched."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"model {name} cannot be loaded: it is an encoder–decoder model ({kind}), and unifeat reads decoders only"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise UserError(
            f"model {name} cannot be loaded: transformers knows no language model of its kind ({kind}); "
            "unifeat reads decoders only"
        )
