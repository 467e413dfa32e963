"""Texts too short or too monotonous to tell anything: one line, or a verdict that says so; never a made-up cause."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tiny import sentences, tiny_sae, write_text
from unifeat.errors import UserError
from unifeat.report.terminal_check import show
from unifeat.saes.checking.check import Checked, check_sae

UNTOLD = "the SAE cannot be judged: the activations are the same on "


@pytest.fixture
def check(model_folder: Callable[..., Path], tmp_path: Path) -> Callable[..., Checked]:
    def run(texts: list[str], kind: str = "bpe", sae: Path | None = None, **settings: Any) -> Checked:
        folder = sae or tiny_sae(tmp_path / "sae", 32)
        text = write_text(tmp_path, texts)
        return check_sae(str(folder), str(model_folder("llama", tokenizer=kind)), 1, str(text), **settings)

    return run


def without_codes(folder: Path) -> Path:
    """An SAE none of whose features ever fires."""
    tiny_sae(folder, 32)
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    save_file(tensors | {"W_enc": tensors["W_enc"] * 0, "b_enc": tensors["b_enc"] * 0 - 1000}, path)
    return folder


def strict_json(checked: Checked) -> Any:
    """As other programs read it: NaN is no JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(json.dumps(checked.as_dict()), parse_constant=refuse)


@pytest.mark.parametrize("texts", [["a"], ["\0"], ["<|endoftext|>" * 40], ["", "a"]])
@pytest.mark.parametrize("loss", [True, False])
def test_no_token_left(check: Callable[..., Checked], texts: list[str], loss: bool):
    """(The first position of a window gives no row, nor do special tokens.)"""
    with pytest.raises(UserError, match=r"leaves no token to check an SAE of .* on: .* give more text") as caught:
        check(texts, loss=loss)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "tokens", "settings"),
    [
        (["a"], "the one token", {"bos": True}),
        (["ab"], "the one token", {}),
        (["a" * 300], "all 300 tokens", {"bos": True, "context": 2}),  # each after the same BOS
    ],
)
@pytest.mark.parametrize("fires", [True, False])
def test_tokens_that_are_all_alike(
    check: Callable[..., Checked],
    texts: list[str],
    tokens: str,
    settings: dict[str, Any],
    fires: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    checked = check(texts, sae=None if fires else without_codes(tmp_path / "silent"), **settings)
    assert [(f.level, f.text) for f in checked.findings] == [("fault", f"{UNTOLD}{tokens} of the text; give more text")]
    assert not checked.fits
    assert strict_json(checked)["fits"] is False
    show(checked)
    assert UNTOLD in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["bpe", "wordish"])
@pytest.mark.parametrize("context", [2, 64])
@pytest.mark.parametrize("text", ["the " * 60, "a" * 300, "<|endoftext|><bos><eos>" * 20, "😀", sentences(1)[0]])
def test_figures_of_monotonous_texts_are_numbers_or_none(
    check: Callable[..., Checked], kind: str, context: int, text: str
):
    checked = check([text], kind, bos=True, context=context)
    found = strict_json(checked)
    assert found["tokens"] > 0
    assert found["fvu"] is None or math.isfinite(found["fvu"])
    assert found["loss"]["recovered"] is None or context > 2


def test_an_sae_that_never_fires(check: Callable[..., Checked], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checked = check(sentences(4), sae=without_codes(tmp_path / "silent"))
    assert (checked.quality.l0, checked.quality.dead_share) == (0, 1)
    assert "L0 is 0.0, but its k says 4" in [finding.text for finding in checked.findings]
    strict_json(checked)
    show(checked)
    assert "100.0%" in capsys.readouterr().out
