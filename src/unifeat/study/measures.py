"""The measures of a study, in their short and long forms."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from unifeat.study.values import Part, Text
from unifeat.vocabulary.bounds import LARGEST_SEED

LARGEST_SETTING = 1_000_000  # dims, folds, k
# Settings that are arrays with a row for each pair.
_OF_PAIRS = {
    "groups": "a study groups pairs that share a feature by itself; drop it",
}
GIVEN = ("token_embeddings",)
"""What partial RSA can take out of both sides in a study."""


class MetricSpec(Part):
    """One measure of how alike the paired decoder rows are, with its settings."""

    metric: Text
    settings: dict[str, Any] = Field(default_factory=dict)

    @field_validator("settings")
    @classmethod
    def _plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, setting in value.items():
            if name in _OF_PAIRS:
                raise ValueError(f"{name}: {_OF_PAIRS[name]}")
            if name == "given":
                _check_given(setting)
            else:
                _check_setting(name, setting)
        return value


def _check_given(value: Any) -> None:
    """Check what is taken out of both sides.

    Raises:
        ValueError: anything but a list of names in `GIVEN`, each once.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"given: give a list of what is taken out, such as [{GIVEN[0]}]")
    for name in value:
        if name not in GIVEN:
            raise ValueError(f"given: {name!r} is not known; a study can take out {', '.join(GIVEN)}")
    if len(set(value)) < len(value):
        raise ValueError("given: a name is there twice")


def _check_setting(name: str, value: Any) -> None:
    """Check one setting.

    Raises:
        ValueError: a value that no measure takes: a list, a number that is not finite, or one that is too large.
    """
    if value is None or isinstance(value, bool | str):
        return
    if isinstance(value, int):
        most = LARGEST_SEED if name == "seed" else LARGEST_SETTING
        if abs(value) > most:
            raise ValueError(f"{name}: at most {most}")
        return
    if not isinstance(value, float):
        raise ValueError(f"{name}: give a number, text, true or false")
    if not abs(value) < float("inf"):  # false for NaN too
        raise ValueError(f"{name}: give a finite number")


def _long_forms(value: Any) -> Any:
    """Accept `- cka` and `- svcca: {dims: 64}` as well as the long form."""
    return [_long_form(item) for item in value] if isinstance(value, list) else value


def _long_form(item: Any) -> Any:
    if isinstance(item, str):
        return {"metric": item}
    if isinstance(item, dict) and len(item) == 1 and "metric" not in item:
        ((metric, settings),) = item.items()
        return {"metric": metric, "settings": {} if settings is None else settings}
    return item


def _different(metrics: list[MetricSpec]) -> list[MetricSpec]:
    """Refuse a measure given twice with the same settings: its rows could not be told apart."""
    seen: set[str] = set()
    for metric in metrics:
        key = json.dumps([metric.metric, metric.settings], sort_keys=True)
        if key in seen:
            raise ValueError(f"{metric.metric} is given twice with the same settings: drop one")
        seen.add(key)
    return metrics


Measures = Annotated[list[MetricSpec], BeforeValidator(_long_forms), AfterValidator(_different)]
"""A list of measures, each given once with the same settings."""
