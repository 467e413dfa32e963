"""unifeat: the features that language models share, how alike their feature spaces are, and how sure that is."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from unifeat import synthetic as synthetic
    from unifeat.api.compare import compare as compare
    from unifeat.api.run import Run as Run
    from unifeat.api.run import open_run as open  # noqa: F401
    from unifeat.api.run import run as run
    from unifeat.api.space import space as space
    from unifeat.codes.brought import Codes as Codes
    from unifeat.codes.brought import save_codes as save_codes
    from unifeat.correlation.correlate import correlate as correlate
    from unifeat.correlation.given_pairs import pair_correlation as pair_correlation
    from unifeat.errors import UserError as UserError
    from unifeat.geometry import cka as cka
    from unifeat.geometry import heldout_cca as heldout_cca
    from unifeat.geometry import mean_max_cosine as mean_max_cosine
    from unifeat.geometry import mutual_knn as mutual_knn
    from unifeat.geometry import procrustes as procrustes
    from unifeat.geometry import pwcca as pwcca
    from unifeat.geometry import ridge_map as ridge_map
    from unifeat.geometry import rsa as rsa
    from unifeat.geometry import svcca as svcca
    from unifeat.inference import permutation_test as permutation_test
    from unifeat.inference import subsample_interval as subsample_interval
    from unifeat.matching.match import match as match
    from unifeat.pipeline.transfer_vector import transfer_vector as transfer_vector
    from unifeat.runs.families import families as families
    from unifeat.saes import load_sae as load_sae
    from unifeat.study.spec import Study as Study
    from unifeat.transfer.agreement import effect_agreement as effect_agreement
    from unifeat.transfer.carried import carried as carried
    from unifeat.transfer.maps import stitch as stitch

# Public name -> (module, attribute), or (module, None) for a module. Each is imported on first use, so that
# `import unifeat` is fast.
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "UserError": ("unifeat.errors", "UserError"),
    "correlate": ("unifeat.correlation.correlate", "correlate"),
    "pair_correlation": ("unifeat.correlation.given_pairs", "pair_correlation"),
    "match": ("unifeat.matching.match", "match"),
    "families": ("unifeat.runs.families", "families"),
    "svcca": ("unifeat.geometry", "svcca"),
    "rsa": ("unifeat.geometry", "rsa"),
    "cka": ("unifeat.geometry", "cka"),
    "pwcca": ("unifeat.geometry", "pwcca"),
    "heldout_cca": ("unifeat.geometry", "heldout_cca"),
    "procrustes": ("unifeat.geometry", "procrustes"),
    "ridge_map": ("unifeat.geometry", "ridge_map"),
    "mutual_knn": ("unifeat.geometry", "mutual_knn"),
    "mean_max_cosine": ("unifeat.geometry", "mean_max_cosine"),
    "permutation_test": ("unifeat.inference", "permutation_test"),
    "subsample_interval": ("unifeat.inference", "subsample_interval"),
    "effect_agreement": ("unifeat.transfer.agreement", "effect_agreement"),
    "synthetic": ("unifeat.synthetic", None),
    "load_sae": ("unifeat.saes", "load_sae"),
    "carried": ("unifeat.transfer.carried", "carried"),
    "stitch": ("unifeat.transfer.maps", "stitch"),
    "transfer_vector": ("unifeat.pipeline.transfer_vector", "transfer_vector"),
    "Codes": ("unifeat.codes.brought", "Codes"),
    "save_codes": ("unifeat.codes.brought", "save_codes"),
    "space": ("unifeat.api.space", "space"),
    "compare": ("unifeat.api.compare", "compare"),
    "Study": ("unifeat.study.spec", "Study"),
    "Run": ("unifeat.api.run", "Run"),
    "run": ("unifeat.api.run", "run"),
    "open": ("unifeat.api.run", "open_run"),
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'unifeat' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    found = importlib.import_module(module)
    return found if attribute is None else getattr(found, attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
