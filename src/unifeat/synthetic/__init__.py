"""Planted truth: two spaces of which it is known what they share, to measure the methods against."""

from unifeat.synthetic._directions import plant_rows
from unifeat.synthetic._planted import Planted, Recovery, plant

__all__ = ["Planted", "Recovery", "plant", "plant_rows"]
