"""Synthetic spaces and toy models with known shared features, for measuring how well methods recover them."""

from unifeat.synthetic._directions import plant_rows
from unifeat.synthetic._families import FamilyRecovery, PlantedFamilies, plant_families
from unifeat.synthetic._planted import Planted, Recovery, plant
from unifeat.synthetic._planted_models import PlantedModels, plant_models

__all__ = [
    "FamilyRecovery",
    "Planted",
    "PlantedFamilies",
    "PlantedModels",
    "Recovery",
    "plant",
    "plant_families",
    "plant_models",
    "plant_rows",
]
