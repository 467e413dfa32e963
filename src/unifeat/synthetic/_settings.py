"""Checks of settings that all synthetic worlds share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unifeat.errors import UserError


def check_whole(settings: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """Raise a UserError for a setting that is no whole number, or is below its least value."""
    for name, smallest in least.items():
        value = settings[name]
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < smallest:
            raise UserError(f"{name}={value!r}: give a whole number, {smallest} or more")


def check_ranges(settings: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise a UserError for a setting that is no number, or outside its range."""
    for name, (least, most) in ranges.items():
        value = settings[name]
        real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not real or not least <= value <= most:
            raise UserError(f"{name}={value!r}: give a number from {least} to {most:g}")


def check_documents(settings: Mapping[str, Any]) -> None:
    """Raise a UserError if there are more documents than tokens."""
    if settings["documents"] > settings["n_tokens"]:
        raise UserError(f"documents={settings['documents']} is more than n_tokens={settings['n_tokens']}")
