"""Units of work (pure functions whose results are pieces), and the engine that runs them."""

from unifeat.engine.local import Local
from unifeat.engine.unit import Engine, Unit

__all__ = ["Engine", "Local", "Unit"]
