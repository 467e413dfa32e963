"""Families of features over many spaces: multi-way matching, and what it says of the spaces.

(The package is not called `families`, since `unifeat.families` is a function.)
"""

from unifeat.multiway.find import find_families
from unifeat.multiway.methods import METHODS
from unifeat.multiway.result import Families

__all__ = ["METHODS", "Families", "find_families"]
