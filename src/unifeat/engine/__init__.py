"""Carrying out units of work: pure functions whose results are pieces, mapped by this machine."""

from unifeat.engine.local import Local
from unifeat.engine.unit import Engine, Unit

__all__ = ["Engine", "Local", "Unit"]
