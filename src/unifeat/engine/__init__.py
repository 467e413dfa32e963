"""Units of work (pure functions whose results are stored), and the engines that run them."""

from unifeat.engine.held import Held, forget
from unifeat.engine.local import Local
from unifeat.engine.unit import Engine, Stored, Unit

__all__ = ["Engine", "Held", "Local", "Stored", "Unit", "forget"]
