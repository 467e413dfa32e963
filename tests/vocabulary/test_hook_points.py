"""Hook points: the tables hold every kind, and names of other libraries lead to them and back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest

from unifeat.models.blocks import SITES
from unifeat.vocabulary.hook_points import (
    HOOK_KINDS,
    HOOKS,
    HookKind,
    HookPoint,
    parse_hook,
    stream_before,
    width_at,
)


def test_a_kind_is_a_row_of_both_tables() -> None:
    assert len(set(HOOK_KINDS)) == len(HOOK_KINDS)
    assert get_args(HookKind) == HOOK_KINDS
    assert set(HOOKS) == set(HOOK_KINDS)
    assert set(SITES) == set(HOOK_KINDS)


def test_rows_say_something_of_each() -> None:
    for field in ("lens", "what", "label"):
        said = [getattr(hook, field) for hook in HOOKS.values()]
        assert all(said)
        assert len(set(said)) == len(said), field


@pytest.mark.parametrize("kind", HOOK_KINDS)
def test_what_a_kind_is_mistaken_for_is_another_kind(kind: HookKind) -> None:
    others = HOOKS[kind].mistaken_for
    assert others
    assert len(set(others)) == len(others)
    assert set(others) <= set(HOOK_KINDS) - {kind}


@pytest.mark.parametrize("kind", HOOK_KINDS)
def test_names_lead_back(kind: HookKind) -> None:
    point = HookPoint(7, kind)
    assert parse_hook(point.saelens_name) == (kind, 7)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocks.3.mlp.hook_out", ("mlp_out", 3)),
        ("blocks.3.hook_mlp_in", ("resid_mid", 3)),
        ("layers.3", ("resid_post", 3)),
        ("h.3.mlp", ("mlp_out", 3)),
        ("model.layers.12.output", ("resid_post", 12)),
        ("model.layers.12.self_attn.o_proj.input", ("attn_z", 12)),
        ("model.layers.12.pre_feedforward_layernorm.output", ("mlp_in", 12)),
        ("blocks.3.attn.hook_q", ("blocks.3.attn.hook_q", None)),
        ("somewhere", ("somewhere", None)),
        ("", (None, None)),
        (None, (None, None)),
        (3, (None, None)),
    ],
)
def test_names_of_other_libraries(name: Any, expected: tuple[str | None, int | None]) -> None:
    assert parse_hook(name) == expected


def test_sinks_are_told_before_the_norm() -> None:
    behind = [kind for kind in HOOK_KINDS if stream_before(HookPoint(4, kind)) != HookPoint(4, kind)]
    assert sorted(behind) == ["ln2_normalized", "mlp_in"]
    assert {stream_before(HookPoint(4, kind)) for kind in behind} == {HookPoint(4, "resid_pre")}


def test_heads_have_a_width_of_their_own() -> None:
    config = SimpleNamespace(hidden_size=64, num_attention_heads=4)
    assert {width_at(config, kind) for kind in HOOK_KINDS} == {64}
    wide = SimpleNamespace(hidden_size=64, num_attention_heads=4, head_dim=32)
    latent = SimpleNamespace(hidden_size=64, num_attention_heads=4, head_dim=32, v_head_dim=8)
    assert [width_at(c, "attn_z") for c in (wide, latent)] == [128, 32]
    assert {width_at(wide, kind) for kind in HOOK_KINDS if kind != "attn_z"} == {64}
