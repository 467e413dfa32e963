"""Synthetic spaces with known shared features, for measuring how well methods recover them."""

from unifeat.synthetic._directions import plant_rows
from unifeat.synthetic._families import FamilyRecovery, PlantedFamilies, plant_families
from unifeat.synthetic._planted import Planted, Recovery, plant

__all__ = [
    "FamilyRecovery",
    "Planted",
    "PlantedFamilies",
    "Recovery",
    "plant",
    "plant_families",
    "plant_rows",
]
