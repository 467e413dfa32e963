"""Sets of features with a meaning: categories of words, their members, and what chance would give."""

from unifeat.subspaces.categories import Categories, load_categories
from unifeat.subspaces.control import control_lists, word_counts
from unifeat.subspaces.membership import members, within
from unifeat.subspaces.rates import RateTest, rate_test
from unifeat.subspaces.strata import frequency_strata, pair_frequency
from unifeat.subspaces.subsets import SubsetTest, random_subsets, subset_test
from unifeat.subspaces.words import words_at

__all__ = [
    "Categories",
    "RateTest",
    "SubsetTest",
    "control_lists",
    "frequency_strata",
    "load_categories",
    "members",
    "pair_frequency",
    "random_subsets",
    "rate_test",
    "subset_test",
    "within",
    "word_counts",
    "words_at",
]
