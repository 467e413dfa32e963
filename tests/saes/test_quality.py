"""FVU, L0 and dead share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tiny import tiny_sae
from unifeat.saes import load_sae
from unifeat.saes.encoding import ENCODE_ROWS, encode_rows
from unifeat.saes.quality import Quality


@pytest.fixture
def values() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 8, generator=generator) + 50  # a large mean, as residual streams have
    codes = torch.randn(300, 20, generator=generator) * (torch.rand(300, 20, generator=generator) < 0.1)
    codes[:, [4, 7]] = 0
    return x, codes, x + 0.5 * torch.randn(300, 8, generator=generator)


def test_is_the_textbook_s_whatever_the_pieces(values: tuple[torch.Tensor, ...]):
    x, codes, reconstruction = values
    a, b = x.double().numpy(), reconstruction.double().numpy()
    fvu = ((a - b) ** 2).sum() / ((a - a.mean(0)) ** 2).sum()
    for size in (300, 64, 1):
        quality = Quality()
        for piece in zip(*(v.split(size) for v in values), strict=True):
            quality.add(*piece)
        assert quality.fvu == pytest.approx(fvu, rel=1e-9)
        assert quality.l0 == pytest.approx(float(np.count_nonzero(codes)) / 300)
        assert quality.dead_share == pytest.approx(2 / 20)
        assert quality.tokens == 300
    assert quality.as_dict() == {
        "fvu": round(fvu, 5),
        "l0": round(quality.l0, 3),
        "dead_share": 0.1,
        "tokens": 300,
    }
    assert str(quality).endswith("dead 10.0% over 300 tokens")


def test_negative_codes_count_as_active():
    quality = Quality()
    quality.add(torch.ones(2, 3), torch.tensor([[-1.0, 0.0], [0.0, 0.0]]), torch.ones(2, 3))
    assert (quality.l0, quality.dead_share) == (0.5, 0.5)


def test_of_nothing_is_nan():
    quality = Quality()
    assert all(np.isnan([quality.fvu, quality.l0, quality.dead_share]))
    quality.add(torch.ones(4, 3), torch.ones(4, 2), torch.zeros(4, 3))
    assert np.isnan(quality.fvu), "activations that never vary have no variance to explain"


def test_rows_are_encoded_in_bounded_pieces(tmp_path: Path):
    sae = load_sae(tiny_sae(tmp_path / "sae", 8))
    x = torch.randn(2 * ENCODE_ROWS + 10, 8, generator=torch.Generator().manual_seed(0))
    pieces = list(encode_rows(sae, x))
    assert [len(rows) for rows, _ in pieces] == [ENCODE_ROWS, ENCODE_ROWS, 10]
    assert torch.equal(torch.cat([rows for rows, _ in pieces]), x)
    torch.testing.assert_close(torch.cat([codes for _, codes in pieces]), sae.encode(x))
