"""transformers' `from_pretrained`, quiet, and strict: missing weights are an error rather than random numbers."""

from __future__ import annotations

import warnings
from logging import ERROR, getLogger
from typing import Any

from unifeat.errors import UserError
from unifeat.models.own_code import is_own


def causal_lm(folder: Any, *, whole: bool = False, trust_remote_code: bool = False, **settings: Any) -> Any:
    """A model from a folder or hub name; `settings` go to `from_pretrained`.

    A model that also reads images is loaded whole; `get_decoder()` is its text part.

    Args:
        trust_remote_code: run the model's own code.

    Raises:
        Exception: of any type, as transformers raises for unknown names and damaged files.
        UserError: weights of the decoder (for a `whole` model, also of its head) are missing or have wrong shapes.
            transformers would replace them by random numbers.
    """
    from transformers.utils import logging

    settings["trust_remote_code"] = trust_remote_code  # always given: otherwise transformers asks on the terminal
    verbosity = logging.get_verbosity()
    spreading = getLogger("accelerate.big_modeling")  # warns of weights kept on the disk, which the user asked for
    spreading_level = spreading.level
    spreading.setLevel(ERROR)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, info = _auto_class(folder, settings).from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True, **settings
            )
    finally:
        spreading.setLevel(spreading_level)
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
    decoder = model.get_decoder()
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    bad = dict.fromkeys(info["missing_keys"], "hold no")
    bad |= {entry[0]: "do not fit config.json in the" for entry in info["mismatched_keys"]}
    bad = {key: how for key, how in sorted(bad.items()) if whole or key.startswith(prefix)}
    if bad:
        key, how = next(iter(bad.items()))
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        file = f"{folder}/{settings['gguf_file']}" if "gguf_file" in settings else folder
        raise UserError(f"model {file}: its files {how} weights {key}{more}")
    return model


def _auto_class(folder: Any, settings: dict[str, Any]) -> Any:
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    if "gguf_file" in settings:  # GGUF holds only text models, and reading its configuration is slow
        return AutoModelForCausalLM
    config = AutoConfig.from_pretrained(
        folder, revision=settings.get("revision", "main"), trust_remote_code=settings["trust_remote_code"]
    )
    if settings["trust_remote_code"] and is_own(config):
        return AutoModelForCausalLM
    kind = type(config)
    sees = kind not in MODEL_FOR_CAUSAL_LM_MAPPING and kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM
