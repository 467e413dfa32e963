"""The figures of the report by name: plain data that the page's script passes to plotly."""

from __future__ import annotations

from typing import Any

Drawn = dict[str, Any]
