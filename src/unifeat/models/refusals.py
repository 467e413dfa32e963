"""One clear line for each reason why a model cannot be loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from unifeat.errors import UserError, did_you_mean
from unifeat.models.own_code import is_own, refused
from unifeat.store.machine import machine_error
from unifeat.store.paths import exists, user_path

# Larger sizes are taken for a damaged configuration: the largest models have a few hundred blocks.
_LARGEST_SIZES = {"num_hidden_layers": 10_000, "hidden_size": 1 << 22, "vocab_size": 1 << 28}


@contextmanager
def loading_errors(name: str, revision: str | None = None) -> Iterator[None]:
    """Inside this context, errors of transformers, of the hub and of a model's own code become one clear line.

    Raises:
        UserError: instead of any other exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # these libraries raise many types of error
        raise refused(name, error) or machine_error(error) or cannot_load(name, error, revision) from error


def cannot_load(name: str, error: Exception, revision: str | None = None) -> UserError:
    """The message for the user when transformers or the hub raised `error` for a model."""
    text = str(error).strip()
    reason = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, SafetensorError):
        reason = f"a weights file is damaged or truncated ({reason}); download it again"
    elif isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
        reason = f"it takes more memory than available ({reason})" if text else "it takes more memory than available"
    elif isinstance(error, RecursionError):
        reason = "one of its files is nested too deeply"
    if exists(user_path(name, "model")):
        return UserError(f"model {name} cannot be loaded: {reason}")
    if "gated repo" in reason:
        reason = "access is restricted: request it on the model's page, then log in with `hf auth login`"
    elif "couldn't connect" in reason or (_offline() and "does not appear to have" in reason):
        holds = "only a part of it" if name in cached_models() else "no such model"
        reason = f"the hub cannot be reached, and the local cache holds {holds}"
    of = f" at revision {revision}" if revision else ""
    return UserError(
        f"model {name!r}{of} is neither a local folder or GGUF file nor a hub model that can be loaded now: "
        f"{reason}{did_you_mean(name, [known for known in cached_models() if known != name])}"
    )


def cached_models() -> list[str]:
    """Names of the models of which the hub's local cache holds at least a part."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    found = folder.glob("models--*") if folder.is_dir() else ()
    return sorted(path.name.removeprefix("models--").replace("--", "/") for path in found)


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def check_sizes(name: str, config: Any) -> None:
    """Raise a UserError for a text configuration with impossible sizes."""
    for key, most in _LARGEST_SIZES.items():
        value = getattr(config, key, None)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
            raise UserError(f"model {name} cannot be loaded: its config.json says {key} = {str(value)[:40]}")


def check_room(name: str, config: Any, folder: str) -> None:
    """Raise a UserError if a local model's configuration has sizes too large for its weights files.

    transformers would allocate matrices of any size before it finds that the files hold other ones.
    """
    weights = [path for path in Path(folder).glob("*") if path.suffix in (".safetensors", ".bin") and exists(path)]
    try:
        for path in weights:
            if path.suffix == ".safetensors":
                with safe_open(path, "numpy"):
                    pass
        bits = 8 * sum(path.stat().st_size for path in weights)
    except (OSError, SafetensorError):
        return  # damaged files are reported when they are loaded
    for key in ("vocab_size", "intermediate_size"):
        value = getattr(config, key, None)
        if weights and isinstance(value, int) and value * config.hidden_size > bits:
            raise UserError(
                f"model {name} cannot be loaded: its config.json says hidden_size = {config.hidden_size:,} and {key} = "
                f"{value:,}, more than its weights files can hold"
            )


def check_kind(name: str, config: Any, *, trust_remote_code: bool = False) -> None:
    """Raise a UserError for a model that is not a decoder, before its weights are downloaded.

    Args:
        trust_remote_code: accept any model with code of its own.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"model {name} cannot be loaded: it is an encoder–decoder model ({kind}), and unifeat reads only decoders"
        )
    if trust_remote_code and is_own(config):
        return
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise UserError(
            f"model {name} cannot be loaded: transformers has no language model of its kind ({kind}); "
            "unifeat reads only decoders"
        )
