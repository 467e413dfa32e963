"""The result of a comparison: a number with its settings, details and flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any


@dataclass(frozen=True)
class Score:
    """How alike two sets of paired rows are, by one measure. `float(score)` is the number."""

    measure: str
    """Name of the measure: `svcca`, `rsa`, `cka` … (the keys of `unifeat.geometry.MEASURES`)."""
    value: float
    """The score; NaN if it is undefined for the input (a flag then says why)."""
    settings: dict[str, Any]
    """The settings used; passing them as keywords gives the same score."""
    n: int
    """Number of pairs (rows)."""
    d_a: int
    """Columns of x."""
    d_b: int
    """Columns of y."""
    details: dict[str, Any] = field(default_factory=dict)
    """Intermediate results, e.g. `dims_a`, `dims_b`, `correlations` of SVCCA."""
    flags: tuple[str, ...] = ()
    """Reasons to read the value with care, each starting with a short code and a colon: `saturated: …`."""

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        inside = "; ".join(part for part in (describe(self.settings), self.extent()) if part)
        lines = [f"{self.measure} {self.value:.4f}  ({inside})"]
        return "\n".join(lines + [f"  ! {flag}" for flag in self.flags])

    def _repr_html_(self) -> str:
        rows = [("settings", describe(self.settings)), ("pairs", self.extent())]
        return html_card(f"{self.measure} = {self.value:.4f}", rows, self.flags)

    def extent(self) -> str:
        """`n=300, 40 x 60 dims, components 32 and 41`."""
        used = ""
        if "dims_a" in self.details:
            used = f", components {self.details['dims_a']} and {self.details['dims_b']}"
        return f"n={self.n}, {self.d_a} x {self.d_b} dims{used}"


def describe(settings: dict[str, Any]) -> str:
    """`inner=cosine, outer=spearman`."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def html_card(title: str, rows: list[tuple[str, str]], flags: tuple[str, ...]) -> str:
    """A small table for notebooks; everything in it is escaped."""
    cells = [f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows]
    cells += [f"<tr><th>note</th><td>{escape(flag)}</td></tr>" for flag in flags]
    return f"<table><caption><b>{escape(title)}</b></caption>{''.join(cells)}</table>"
