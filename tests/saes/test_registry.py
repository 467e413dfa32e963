"""Names of SAELens' registry and of the hub, resolved offline by the real clients from a cache of stand-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
from hub import Hub
from unifeat.errors import UserError
from unifeat.saes import known_releases, load_sae, on_hub, provenance_of

# One name for each of SAELens' loaders, with the format unifeat reads it as and the hook that it must tell.
NAMES = {
    "gemma-2b-res-jb/blocks.6.hook_resid_post": ("saelens", "blocks.6.hook_resid_post"),
    "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical": ("gemma_scope", "blocks.12.hook_resid_post"),
    "gemma-scope-9b-pt-att-canonical/layer_3/width_16k/canonical": ("gemma_scope", "blocks.3.attn.hook_z"),
    "gemma-scope-2-270m-pt-res/layer_5_width_16k_l0_medium": ("gemma_scope_2", "blocks.5.hook_resid_post"),
    "llama_scope_lxr_8x/l15r_8x": ("llama_scope", "blocks.15.hook_resid_post"),
    "llama_scope_r1_distill/l15r_800m_slimpajama": ("llamascopium", "blocks.15.hook_resid_post"),
    "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109/blocks.12.hook_resid_post__trainer_0": (
        "dictionary_learning",
        "blocks.12.hook_resid_post",
    ),
    "deepseek-r1-distill-llama-8b-qresearch/blocks.19.hook_resid_post": ("linear", "blocks.19.hook_resid_post"),
    "goodfire-llama-3.1-8b-instruct/layer_19": ("goodfire", "blocks.19.hook_resid_post"),
    "qwen-scope-3-1.7b-base-w32k-l50/layer7": ("qwen_scope", "blocks.7.hook_resid_post"),
    "gpt2-small-hook-z-kk/blocks.0.hook_z": ("attention_z", "blocks.0.attn.hook_z"),
    "mwhanna-qwen3-4b-transcoders/layer_2": ("circuit_tracer", "blocks.2.mlp.hook_in"),
    "gemma-scope-2b-pt-transcoders/layer_0/width_16k/average_l0_76": ("gemma_scope", "blocks.0.ln2.hook_normalized"),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    hub.use(monkeypatch)
    return hub


@pytest.fixture
def x() -> torch.Tensor:
    return 1.5 * torch.randn(40, 32, generator=torch.Generator().manual_seed(5)) + 0.3


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_each_loader_resolves(hub: Hub, name: str, x: torch.Tensor):
    hub.sae(name, d_sae=64)
    sae = load_sae(name)
    provenance, (format, hook) = provenance_of(sae), NAMES[name]
    assert (provenance.format, provenance.hook) == (format, hook)
    assert provenance.model == known_releases()[name.partition("/")[0]].model
    assert (sae.encode(x) != 0).any()


def test_every_loader_of_the_registry_is_covered():
    """Or refused with a reason: cross-layer and temporal ones have no one decoder row, or no codes of one token."""
    loaders = {held.conversion_func for held in known_releases().values()}
    covered = {known_releases()[name.partition("/")[0]].conversion_func for name in NAMES}
    assert loaders - covered == {"mntss_clt_layer_transcoder", "temporal"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mntss-gemma-2-2b-2.5m-clt-as-per-layer/layer_0", "cross-layer transcoder: each feature writes to many"),
        ("temporal-sae-gemma-2-2b/blocks.12.hook_resid_post", "temporal SAE, whose codes depend on earlier tokens"),
    ],
)
def test_what_has_no_one_decoder_row_is_refused(hub: Hub, name: str, message: str):
    with pytest.raises(UserError, match=message):
        load_sae(name)


class TestClaims:
    def test_come_from_the_registry(self, hub: Hub):
        name = "gpt2-small-res-jb/blocks.6.hook_resid_pre"
        hub.sae(name)
        provenance, held = provenance_of(load_sae(name)), known_releases()["gpt2-small-res-jb"]
        assert provenance.claimed_l0 == held.expected_l0["blocks.6.hook_resid_pre"] > 1
        assert provenance.claimed_variance_explained == held.expected_var_explained["blocks.6.hook_resid_pre"] < 1
        assert any("mean" in fold for fold in provenance.folds), "its registry entry says that its model was centred"

    def test_are_read_off_the_name_where_the_registry_has_none(self, hub: Hub):
        name = "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical"
        hub.sae(name)
        provenance = provenance_of(load_sae(name))
        assert (provenance.claimed_l0, provenance.claimed_variance_explained) == (82, None)

    def test_a_norm_factor_is_folded(self, hub: Hub, x: torch.Tensor):
        """The registry's factor, and only it, says what scale R1-Distill's SAEs take."""
        name = "llama_scope_r1_distill/l15r_800m_slimpajama"
        hub.sae(name)
        factor = known_releases()["llama_scope_r1_distill"].norm_scaling_factor["l15r_800m_slimpajama"]
        held = {key: tensor.double().numpy() for key, tensor in checkpoints.tensors(32, 64).items()}
        g = np.linalg.norm(held["W_dec"], axis=1)
        z = (factor * x.double().numpy() @ held["W_enc"] + held["b_enc"]) * g
        codes = load_sae(name).encode(x).double().numpy()
        np.testing.assert_allclose(codes, z * (z > held["threshold"]), rtol=1e-4, atol=1e-4)


class TestHubFolders:
    def test_resolve(self, hub: Hub, x: torch.Tensor):
        at = hub.sae("EleutherAI/sae-pythia-70m-32k/layers.3", k=6)
        sae = load_sae("EleutherAI/sae-pythia-70m-32k/layers.3")
        assert torch.equal(sae.encode(x), load_sae(at).encode(x))
        provenance = provenance_of(sae)
        assert (provenance.format, provenance.k, provenance.hook) == ("sparsify", 6, "blocks.3.hook_resid_post")

    def test_tell_the_model_in_the_folder_above(self, hub: Hub):
        at = hub.sae("EleutherAI/sae-pythia-70m-32k/layers.3")
        (at.parent / "config.json").write_text('{"model": "EleutherAI/pythia-70m"}')
        assert provenance_of(load_sae("EleutherAI/sae-pythia-70m-32k/layers.3")).model == "EleutherAI/pythia-70m"

    def test_at_the_top_of_a_repository(self, hub: Hub):
        checkpoints.write_saelens(hub.snapshot("someone/my-sae"), checkpoints.tensors(32, 64))
        assert load_sae("someone/my-sae").cfg.d_sae == 64

    def test_a_file_of_a_repository(self, hub: Hub):
        repo = "Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_50"
        checkpoints.write_qwen_scope(hub.snapshot(repo) / "layer3.sae.pt", checkpoints.tensors(32, 64))
        assert provenance_of(load_sae(f"{repo}/layer3.sae.pt")).k == 50

    def test_that_are_not_there(self, hub: Hub):
        hub.sae("EleutherAI/sae-pythia-70m-32k/layers.3")
        with pytest.raises(UserError, match=r"layers\.4: no such folder or file"):
            load_sae("EleutherAI/sae-pythia-70m-32k/layers.4")
        with pytest.raises(UserError, match=r"no release 'EleutherAI'; .*is not in the cache"):
            load_sae("EleutherAI/sae-pythia-160m-32k/layers.3")

    def test_are_no_folders_to_train(self, hub: Hub):
        hub.sae("EleutherAI/sae-pythia-70m-32k/layers.3")
        assert on_hub("EleutherAI/sae-pythia-70m-32k/layers.3")
        assert not any(map(on_hub, ("EleutherAI/sae-pythia-70m-32k/layers.4", "saes/mine/l3", "saes/mine", "./a/b/c")))

    def test_half_fetched(self, hub: Hub):
        at = hub.sae("EleutherAI/sae-pythia-70m-32k/layers.3")
        (at / "sae.safetensors").unlink()
        with pytest.raises(UserError, match="holds neither a SAELens SAE"):
            load_sae("EleutherAI/sae-pythia-70m-32k/layers.3")
        with pytest.raises(UserError, match=r"not in the cache \(EleutherAI/sae-pythia-70m-32k: layers\.3/sae\.safe"):
            load_sae("EleutherAI/sae-pythia-70m-32k/layers.3", format="sparsify")

    def test_no_name_a_hub_could_have(self, hub: Hub):
        for name in ("a b/c d", "..a/b", "a/b//", "a/b/../../etc", "-/-"):
            with pytest.raises(UserError, match="SAE") as caught:
                load_sae(name)
            assert "\n" not in str(caught.value)


class TestSaelensLoaders:
    """Why the names go through our readers. When one of these fails, SAELens has changed: look again."""

    def theirs(self, name: str) -> Any:
        from sae_lens.loading import pretrained_sae_loaders as loaders
        from sae_lens.loading.pretrained_saes_directory import get_repo_id_and_folder_name

        release, _, sae_id = name.partition("/")
        load = loaders.NAMED_PRETRAINED_SAE_LOADERS[loaders.get_conversion_loader_name(release)]
        return load(*get_repo_id_and_folder_name(release, sae_id), "cpu", False, {"dtype": "float32"})

    @pytest.mark.parametrize(
        "name",
        [
            "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical",
            "deepseek-r1-distill-llama-8b-qresearch/blocks.19.hook_resid_post",
            "goodfire-llama-3.1-8b-instruct/layer_19",
            "qwen-scope-3-1.7b-base-w32k-l50/layer7",
            "gpt2-small-hook-z-kk/blocks.0.hook_z",
            "mwhanna-qwen3-4b-transcoders/layer_2",
        ],
    )
    def test_agree_on_the_tensors(self, hub: Hub, name: str):
        at = hub.sae(name)
        if "mwhanna" in name:
            (at.parent / "wandb-config.yaml").write_text(
                "{d_model: {value: 32}, d_feature: {value: 64}, batch_size: {value: 8}}"
            )
            (at.parent / "config.yaml").write_text("{model_name: Qwen/Qwen3-4B}")
        config, state, _ = self.theirs(name)
        sae = load_sae(name)
        ours = sae.state_dict()
        assert ours.keys() == state.keys()
        assert all(torch.equal(ours[key], state[key]) for key in ours)
        assert config["apply_b_dec_to_input"] == provenance_of(sae).pre_bias

    @pytest.mark.parametrize("name", ["llama_scope_lxr_8x/l15r_8x", "llama_scope_r1_distill/l15r_800m_slimpajama"])
    def test_forget_the_decoder_s_norm_in_the_gate(self, hub: Hub, name: str, x: torch.Tensor):
        hub.sae(name)
        config, state, _ = self.theirs(name)
        factor = known_releases()[name.partition("/")[0]].norm_scaling_factor[name.partition("/")[2]]
        if "lxr" in name:  # the registry's factor belongs to the real file, this one's to the stand-in
            factor = 32**0.5 / 3.0
        rows = 0.3 * x / factor  # near the thresholds
        z = factor * rows @ state["W_enc"] + state["b_enc"]
        theirs, ours = z > state["threshold"], load_sae(name).encode(rows) != 0
        assert not config["apply_b_dec_to_input"]
        assert (theirs != ours).float().mean() > 0.02

    def test_ask_the_network_for_gemma_scope_2(self, hub: Hub, monkeypatch: pytest.MonkeyPatch):
        import requests

        name = "gemma-scope-2-270m-pt-res/layer_5_width_16k_l0_medium"
        hub.sae(name)
        asked: list[str] = []

        def get(url: str, **_: Any) -> Any:
            asked.append(url)
            raise requests.ConnectionError("no network")

        monkeypatch.setattr(requests, "get", get)
        with pytest.raises(requests.ConnectionError):
            self.theirs(name)
        assert len(asked) == 1
        load_sae(name)
        assert len(asked) == 1


class TestWithANetwork:
    """What is asked of the hub, with its client's answers played."""

    def test_a_repository_that_is_not_there(self, hub: Hub, monkeypatch: pytest.MonkeyPatch):
        import httpx
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        def ask(self: Any, repo: str) -> list[str]:
            raise RepositoryNotFoundError(
                "404", response=httpx.Response(404, request=httpx.Request("GET", "https://h"))
            )

        monkeypatch.setattr(HfApi, "list_repo_files", ask)
        with pytest.raises(UserError, match="the hub has no repository someone/sae, or you have no access to it"):
            load_sae("someone/sae/layers.3")

    @pytest.mark.parametrize("client", ["httpx", "httpx2"])  # the hub's client raises the second's since 2.4
    def test_a_hub_that_does_not_answer_leaves_the_cache(self, hub: Hub, monkeypatch: pytest.MonkeyPatch, client: str):
        httpx = pytest.importorskip(client)
        from huggingface_hub import HfApi

        hub.sae("EleutherAI/sae-pythia-70m-32k/layers.3")

        def ask(self: Any, repo: str) -> list[str]:
            raise httpx.ConnectTimeout("too slow")

        monkeypatch.setattr(HfApi, "list_repo_files", ask)
        assert load_sae("EleutherAI/sae-pythia-70m-32k/layers.3").cfg.d_in == 32
        with pytest.raises(UserError, match=r"not in the cache: too slow"):
            load_sae("EleutherAI/sae-pythia-160m-32k/layers.3")

    def test_a_mistyped_path_is_not_asked_for(self, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        from huggingface_hub import HfApi

        (tmp_path / "saes" / "good").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(HfApi, "list_repo_files", lambda *_: pytest.fail("the hub was asked"))
        with pytest.raises(UserError, match="SAE saes/good/l99: no such folder"):
            load_sae("saes/good/l99")
