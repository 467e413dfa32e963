"""Wrong SAE files and names, over the formats: one clear line each."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints
from tiny import tiny_model
from unifeat.errors import UserError
from unifeat.saes import load_sae
from unifeat.saes.formats import FORMATS

D, M = 18, 40

# Format, how to write it, and the file of its tensors.
KINDS: dict[str, tuple[Callable[..., None], str]] = {
    "saelens": (checkpoints.write_saelens, "sae/sae_weights.safetensors"),
    "sparsify": (checkpoints.write_sparsify, "sae/sae.safetensors"),
    "gemma_scope": (checkpoints.write_gemma_scope, "sae/params.npz"),
    "gemma_scope_2": (checkpoints.write_gemma_scope_2, "sae/params.safetensors"),
    "llama_scope": (checkpoints.write_llama_scope, "sae/checkpoints/final.safetensors"),
    "llamascopium": (
        lambda at, held: checkpoints.write_llamascopium(at, held, average=2.0),
        "sae/sae_weights.safetensors",
    ),
    "dictionary_learning": (checkpoints.write_dictionary_learning, "sae/ae.pt"),
    "circuit_tracer": (checkpoints.write_circuit_tracer, "sae/layer_5.safetensors"),
    "openai": (checkpoints.write_openai, "sae/6.pt"),
    "goodfire": (checkpoints.write_goodfire, "sae/SAE-l19.pt"),
    "linear": (checkpoints.write_linear, "sae/SAE-l19.pt"),
    "qwen_scope": (checkpoints.write_qwen_scope, "sae-L0_4/layer7.sae.pt"),
    "attention_z": (checkpoints.write_attention_z, "sae/L0.pt"),
}
PICKLED = {"dictionary_learning", "openai", "goodfire", "linear", "qwen_scope", "attention_z"}


class Checkpoint:
    """One format's files: what to load, and how to change a tensor in them."""

    def __init__(self, format: str, root: Path) -> None:
        write, file = KINDS[format]
        self.format, self.file = format, root / file
        single = (
            write
            not in (
                checkpoints.write_saelens,
                checkpoints.write_sparsify,
                checkpoints.write_gemma_scope,
                checkpoints.write_gemma_scope_2,
                checkpoints.write_llama_scope,
                checkpoints.write_dictionary_learning,
            )
            and format != "llamascopium"
        )
        self.name = self.file if single else root / file.split("/")[0]
        write(self.name, checkpoints.tensors(D, M))

    def change(self, make: Callable[[dict[str, Any]], Any]) -> None:
        if self.file.suffix == ".npz":
            with np.load(self.file) as stored:
                held: dict[str, Any] = {key: torch.from_numpy(stored[key]) for key in stored.files}
            make(held)
            np.savez(self.file, **{key: tensor.numpy() for key, tensor in held.items()})
        elif self.file.suffix == ".safetensors":
            held = load_file(self.file)
            make(held)
            save_file({key: tensor.contiguous() for key, tensor in held.items()}, self.file)
        else:
            held = torch.load(self.file, weights_only=True)
            make(held)
            torch.save(held, self.file)

    def key(self, letters: str) -> str:
        """A matrix of the decoder ("decoder"), or a vector of biases ("bias")."""
        held = load_file(self.file) if self.file.suffix == ".safetensors" else dict(self._held())
        wanted = ("w_dec", "decoder_linear.weight", "decoder.weight") if letters == "decoder" else ("b_dec", "bias")
        return next(key for key in held for part in wanted if key.lower().endswith(part))

    def _held(self) -> Any:
        if self.file.suffix == ".npz":
            with np.load(self.file) as stored:
                return {key: stored[key] for key in stored.files}
        return torch.load(self.file, weights_only=True)

    def refused(self, message: str, *, format: str = "auto") -> None:
        with pytest.raises(UserError, match=message) as caught:
            load_sae(self.name, format=format)
        text = str(caught.value)
        assert "\n" not in text, text
        assert self.name.name in text, text


@pytest.fixture(params=sorted(KINDS))
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    made = Checkpoint(request.param, tmp_path)
    load_sae(made.name)  # it is good until something is changed
    return made


def test_all_formats_are_here():
    assert set(KINDS) == set(FORMATS)


def test_missing_tensors(checkpoint: Checkpoint):
    key = checkpoint.key("decoder")
    checkpoint.change(lambda held: held.pop(key))
    # named, it says what lacks; sniffed, a bare file without it looks like nothing known
    checkpoint.refused(f"lacks {key}|Missing key.*{key}", format=checkpoint.format)
    checkpoint.refused(r"lacks|cannot be read|bare file of tensors")


def test_extra_tensors(checkpoint: Checkpoint):
    checkpoint.change(lambda held: held.update({"W_gate": torch.ones(M)}))
    checkpoint.refused(r"that its format does not have: W_gate|Unexpected key.*W_gate")


def test_transposed_decoders(checkpoint: Checkpoint):
    key = checkpoint.key("decoder")
    checkpoint.change(lambda held: held.update({key: held[key].T.contiguous()}))
    checkpoint.refused(rf"cannot be read.*{key}.*({M}.*{D}|{D}.*{M})")


def test_a_dimension_too_many(checkpoint: Checkpoint):
    key = checkpoint.key("decoder")
    checkpoint.change(lambda held: held.update({key: held[key][None].contiguous()}))
    checkpoint.refused(r"cannot be read|cross-layer transcoder|crosscoder")


def test_whole_numbers_for_weights(checkpoint: Checkpoint):
    key = checkpoint.key("decoder")
    checkpoint.change(lambda held: held.update({key: (held[key] * 100).to(torch.int8)}))
    checkpoint.refused(rf"{key} (in .* )?holds (int8|I8)")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf(checkpoint: Checkpoint, bad: float):
    key = checkpoint.key("decoder")
    checkpoint.change(lambda held: held[key].view(-1)[3].fill_(bad))
    checkpoint.refused("holds NaN or Inf; the checkpoint is damaged")


@pytest.mark.parametrize("kept", [0, 7, 200, -300])
def test_truncated_files(checkpoint: Checkpoint, kept: int):
    checkpoint.file.write_bytes(checkpoint.file.read_bytes()[:kept])
    checkpoint.refused("cannot be read|holds more than tensors, or is damaged", format=checkpoint.format)
    checkpoint.refused("cannot be read|holds more than tensors, or is damaged")


def test_pickles_hold_tensors_only(tmp_path: Path):
    for format in sorted(PICKLED):
        made = Checkpoint(format, tmp_path / format)
        held = torch.load(made.file, weights_only=True)
        torch.save(held | {"note": np.random.default_rng(0)}, made.file)
        made.refused("holds more than tensors, or is damaged: it is refused")


@pytest.mark.parametrize(
    ("write", "config", "changes", "message"),
    [
        (checkpoints.write_saelens, "cfg.json", {"d_sae": 80}, r"size mismatch|shape"),
        (checkpoints.write_sparsify, "cfg.json", {"d_in": 19}, "d_in = 19, but the weights have 18"),
        (checkpoints.write_sparsify, "cfg.json", {"num_latents": 80}, "num_latents = 80, but the weights have 40"),
        (checkpoints.write_sparsify, "cfg.json", {"k": 41}, "k = 41 of 40 features"),
        (checkpoints.write_llama_scope, "hyperparams.json", {"d_model": 19}, "d_model = 19, but the weights have 18"),
        (checkpoints.write_llama_scope, "hyperparams.json", {"d_sae": 80}, "d_sae = 80, but the weights have 40"),
        (checkpoints.write_llama_scope, "hyperparams.json", {"act_fn": "gelu"}, "act_fn 'gelu'"),
        (
            checkpoints.write_llama_scope,
            "hyperparams.json",
            {"dataset_average_activation_norm": None},
            "lacks dataset_average_activation_norm, without which its scale is unknown",
        ),
        (checkpoints.write_llama_scope, "hyperparams.json", {"norm_activation": "batch-wise"}, "depends on the batch"),
        (
            checkpoints.write_llamascopium,
            "config.json",
            {},
            "neither its weights nor SAELens' registry state the factor",
        ),
        (checkpoints.write_llamascopium, "config.json", {"d_model": 19}, "d_model = 19, but the weights have 18"),
        (
            checkpoints.write_llamascopium,
            "config.json",
            {"act_fn": "batchtopk", "norm_activation": "inference"},
            "a token's codes depend on its batch",
        ),
        (checkpoints.write_llamascopium, "config.json", {"sae_type": "crosscoder"}, "is a crosscoder"),
        (checkpoints.write_llamascopium, "config.json", {"use_glu_encoder": True}, "use_glu_encoder"),
        (
            checkpoints.write_gemma_scope_2,
            "config.json",
            {"architecture": "topk"},
            "architecture 'topk', not jump_relu",
        ),
        (
            checkpoints.write_saelens,
            "cfg.json",
            {"normalize_activations": "expected_average_only_in"},
            "does not state the factor: put activation_scaler.json",
        ),
    ],
)
def test_configs_that_contradict_or_say_too_little(
    tmp_path: Path, write: Any, config: str, changes: dict[str, Any], message: str
):
    at = tmp_path / "sae"
    write(at, checkpoints.tensors(D, M))
    (at / config).write_text(json.dumps(json.loads((at / config).read_text()) | changes))
    with pytest.raises(UserError, match=message) as caught:
        load_sae(at)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", ["{", "[]", "3", "", "\x00\x01"])
def test_configs_that_are_none(tmp_path: Path, config: str):
    for write, name in (
        (checkpoints.write_llama_scope, "hyperparams.json"),
        (checkpoints.write_llamascopium, "config.json"),
        (checkpoints.write_dictionary_learning, "config.json"),
        (checkpoints.write_gemma_scope_2, "config.json"),
    ):
        at = tmp_path / write.__name__
        write(at, checkpoints.tensors(D, M))
        (at / name).write_text(config)
        with pytest.raises(UserError, match=rf"cannot be read \({name}"):
            load_sae(at)


class TestNoDecoderRows:
    def test_cross_layer_transcoders(self, tmp_path: Path):
        held = checkpoints.tensors(D, M)
        checkpoints.write_gemma_scope_2(tmp_path / "a", held | {"W_dec": held["W_dec"][:, None].repeat(1, 3, 1)})
        with pytest.raises(UserError, match="cross-layer transcoder: each feature writes to many layers"):
            load_sae(tmp_path / "a")
        save_file({"W_enc_3": held["W_enc"], "b_enc_3": held["b_enc"]}, tmp_path / "W_layer_3.safetensors")
        with pytest.raises(UserError, match=r"cross-layer transcoder|holds neither"):
            load_sae(tmp_path / "W_layer_3.safetensors")

    def test_crosscoders(self, tmp_path: Path):
        held = checkpoints.tensors(D, M)
        both = {"W_enc": held["W_enc"][None].repeat(2, 1, 1), "W_dec": held["W_dec"][:, None].repeat(1, 2, 1)}
        torch.save(both | {"b_enc": held["b_enc"], "b_dec": held["b_dec"]}, tmp_path / "cc_weights.pt")
        with pytest.raises(UserError, match=r"bare file of tensors \(W_dec, W_enc, b_dec, b_enc\)"):
            load_sae(tmp_path / "cc_weights.pt")


class TestNames:
    def test_a_folder_of_something_else(self, tmp_path: Path):
        tiny_model(tmp_path / "model", "llama")
        with pytest.raises(UserError, match=r"the folder holds neither a SAELens SAE .* it holds config\.json"):
            load_sae(tmp_path / "model")

    def test_an_empty_folder(self, tmp_path: Path):
        (tmp_path / "sae").mkdir()
        with pytest.raises(UserError, match="no such folder or file, or an empty folder"):
            load_sae(tmp_path / "sae")

    def test_several_bare_files(self, tmp_path: Path):
        for layer in (1, 2):
            checkpoints.write_goodfire(tmp_path / f"SAE-l{layer}.pt", checkpoints.tensors(D, M))
        with pytest.raises(UserError, match="2 pickled files; give one of them"):
            load_sae(tmp_path, format="goodfire")
        assert load_sae(tmp_path / "SAE-l2.pt").cfg.d_sae == M

    def test_a_format_that_is_none(self, tmp_path: Path):
        with pytest.raises(UserError, match=r"no SAE format 'sparsfy' \(did you mean 'sparsify'\?\)"):
            load_sae(tmp_path, format="sparsfy")

    def test_the_wrong_format(self, tmp_path: Path):
        checkpoints.write_sparsify(tmp_path / "sae", checkpoints.tensors(D, M))
        for format in FORMATS:
            if format != "sparsify":
                with pytest.raises(UserError, match="SAE"):
                    load_sae(tmp_path / "sae", format=format)

    def test_qwen_scope_whose_k_nobody_says(self, tmp_path: Path):
        checkpoints.write_qwen_scope(tmp_path / "layer7.sae.pt", checkpoints.tensors(D, M))
        with pytest.raises(UserError, match="only the repository's name"):
            load_sae(tmp_path / "layer7.sae.pt")

    @pytest.mark.parametrize("state", [{"postact_fn": "Identity"}, {"k": 2.5}])
    def test_openai_s_other_top_ks(self, tmp_path: Path, state: dict[str, Any]):
        checkpoints.write_openai(tmp_path / "6.pt", checkpoints.tensors(D, M), **state)
        with pytest.raises(UserError, match="top-k needs a number k, followed by ReLU"):
            load_sae(tmp_path / "6.pt")


def test_files_that_the_machine_cannot_open(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch):
    """safetensors calls a file that it may not open missing, and torch one that holds more than tensors."""
    ours = Path.open

    def opened(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.parent == checkpoint.file.parent:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return ours(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    checkpoint.refused("permission denied: name another folder, or ask its owner", format=checkpoint.format)
    checkpoint.refused("permission denied: name another folder, or ask its owner")
