"""A Hugging Face hub cache on disk with tiny stand-ins under real names, so that real names resolve without a network.

    hub = Hub(tmp_path / "hub")
    hub.model("google/gemma-2-2b", "gemma2", width=32)                       # a tiny language model under that name
    hub.sae("gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical")  # a SAE of SAELens' registry
    hub.sae("EleutherAI/sae-pythia-70m-32k/layers.3", width=32)              # a folder of a hub repository
    hub.use(monkeypatch)                                                     # this process; hub.env for another

The layout is the hub client's own: `models--ORG--NAME/refs/main` names the revision, `snapshots/REVISION/` holds its
files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from checkpoints import WRITERS, tensors, write_saelens, write_sparsify
from tiny import tiny_model
from unifeat.saes.registry import known_releases


class Hub:
    """A hub cache under one folder."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    @property
    def env(self) -> dict[str, str]:
        """What a child process needs in its environment to resolve from this cache and nowhere else."""
        return {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(self.cache)}

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make this process resolve from this cache; huggingface_hub reads its environment only when imported."""
        from huggingface_hub import constants

        for name, value in self.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(self.cache))

    def snapshot(self, repo: str) -> Path:
        """The folder of a repository's files, `ORG/NAME`, made if it is not there."""
        revision = hashlib.sha1(repo.encode()).hexdigest()
        home = self.cache / f"models--{repo.replace('/', '--')}"
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "refs" / "main").write_text(revision)
        (home / "blobs").mkdir(exist_ok=True)
        folder = home / "snapshots" / revision
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def model(self, repo: str, architecture: str, **settings: Any) -> Path:
        """A tiny language model (`tiny.tiny_model`) under a real name."""
        return tiny_model(self.snapshot(repo), architecture, **settings)

    def sae(self, name: str, *, width: int = 32, d_sae: int = 64, k: int = 4, seed: int = 0) -> Path:
        """A tiny SAE in the format its name stands for; returns the folder, or the file, that holds it.

        Args:
            name: `release/sae_id` of SAELens' registry, or `ORG/NAME/folder` of a repository of sparsify's.
            width: of the model's residual stream.
            k: features that fire a token, in the formats where that is a number.
        """

        release, _, sae_id = name.partition("/")
        known = known_releases().get(release)
        if known is None:
            org, repo, folder = name.split("/", 2)
            at = self.snapshot(f"{org}/{repo}") / folder
            write_sparsify(at, tensors(width, d_sae, seed), k)
            return at
        at = self.snapshot(known.repo_id) / known.saes_map[sae_id]
        write = WRITERS.get(known.conversion_func or "sae_lens")
        if write is None:
            raise ValueError(f"no stand-in for {name}: its format is {known.conversion_func}")
        if write is write_saelens:
            write_saelens(at, tensors(width, d_sae, seed), hook_point=sae_id)
        else:
            write(at, tensors(width, d_sae, seed), k)
        return at
