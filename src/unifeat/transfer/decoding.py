"""An SAE's decoder as a linear function of its codes: x̂ = t + s · (c W), with t and s of each token."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from unifeat.errors import UserError
from unifeat.saes.decoding import is_transcoder, reconstruct
from unifeat.saes.protocol import SAE

_BY_TOKEN = ("layer_norm", "constant_norm_rescale")  # normalisations that need the token when decoding
_ROWS = 1024


class Parts(NamedTuple):
    """What an SAE makes of some tokens, float64.

    Attributes:
        own: (n, d) its reconstruction.
        constant: (n, d) t, what the decoder gives without any code.
        scale: (n,) s.
    """

    own: NDArray[np.float64]
    constant: NDArray[np.float64]
    scale: NDArray[np.float64]


class Decoding:
    """The decoder of an SAE (or of a transcoder, whose output stands for the MLP's)."""

    @torch.inference_mode()
    def __init__(self, sae: SAE, name: str) -> None:
        """Args:
            name: the SAE's, for messages.

        Raises:
            UserError: a transcoder whose output also depends on its input: activations are sampled where it writes.
        """
        self._sae: Any = sae
        self._by_token = getattr(sae.cfg, "normalize_activations", "none") in _BY_TOKEN
        if is_transcoder(sae) and (self._by_token or getattr(sae, "W_skip", None) is not None):
            raise UserError(
                f"SAE {name}: transfer rebuilds the MLP's output from codes alone, and this transcoder also needs its "
                "input; leave its cells out"
            )
        self.features = int(sae.cfg.d_sae)
        self._first = torch.zeros(1, self.features)
        self._first[0, 0] = 1.0
        reference = torch.ones(1, int(sae.cfg.d_in)) if self._by_token else None
        if reference is not None:
            reference[0, ::2] = -1.0
        self._reference = reference
        w = self.weights(np.array([0]))[0]
        self._direction = w / max(float(w @ w), np.finfo(np.float64).tiny)

    @torch.inference_mode()
    def weights(self, features: NDArray[np.integer]) -> NDArray[np.float64]:
        """W of some features, (n, d): what a code of 1 adds, on a token for which s is 1."""
        rows = []
        self._read(self._reference)
        base = self._decode(torch.zeros(1, self.features))
        for start in range(0, len(features), _ROWS):
            ids = torch.from_numpy(np.array(features[start : start + _ROWS], np.int64))
            codes = torch.zeros(len(ids), self.features)
            codes[torch.arange(len(ids)), ids] = 1.0
            rows.append((self._decode(codes) - base).double().numpy())
        return np.concatenate(rows)

    @torch.inference_mode()
    def combined(self, codes: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """c W of one vector of codes (features,), (d,), on a token for which s is 1."""
        self._read(self._reference)
        both = torch.stack([torch.zeros(self.features), torch.from_numpy(np.asarray(codes, np.float32))])
        base, made = self._decode(both).double().numpy()
        return np.asarray(made - base)

    @torch.inference_mode()
    def parts(self, x: NDArray[np.float32], codes: Any) -> Parts:
        """The SAE's reconstruction of tokens, and its parts.

        Args:
            x: (n, d) their activations.
            codes: SciPy sparse matrix (n, features).
        """
        made = []
        for start in range(0, len(x), _ROWS):
            rows = torch.from_numpy(np.ascontiguousarray(x[start : start + _ROWS]))
            self._read(rows if self._by_token else None)
            dense = torch.from_numpy(np.asarray(codes[start : start + _ROWS].toarray(), np.float32))
            own = self._decode(dense, rows).double().numpy()
            constant = self._decode(torch.zeros_like(dense), rows).double().numpy()
            scale = np.ones(len(rows))
            if self._by_token:
                unit = self._decode(self._first.expand(len(rows), -1), rows).double().numpy()
                scale = (unit - constant) @ self._direction
            made.append((own, constant, scale))
        return Parts(*(np.concatenate(part) for part in zip(*made, strict=True)))

    def scale(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """s of tokens with activations x (n, d): (n,), 1 unless the SAE normalises each token."""
        if not self._by_token:
            return np.ones(len(x))
        return self.parts(x, csr_array((len(x), self.features), dtype=np.float32)).scale

    @torch.inference_mode()
    def reconstructed(self, x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """What the SAE makes of activations (n, d) that it encodes itself, (n, d)."""
        made = []
        for rows in torch.from_numpy(np.ascontiguousarray(x, np.float32)).split(_ROWS):
            made.append(self._decode(self._sae.encode(rows), rows).double().numpy())
        return np.concatenate(made)

    def _read(self, x: Tensor | None) -> None:
        """SAEs that normalise each token remember its scale when they encode it."""
        if x is not None:
            self._sae.encode(x)

    def _decode(self, codes: Tensor, x: Tensor | None = None) -> Tensor:
        if is_transcoder(self._sae) or x is None:
            return self._sae.decode(codes)
        return reconstruct(self._sae, x, codes)
