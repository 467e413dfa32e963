"""What the sections of the report draw: figures by name, plain data that the page's script hands to plotly."""

from __future__ import annotations

from typing import Any

Drawn = dict[str, Any]
