"""Models and SAEs of a study, loaded where and when a unit of work needs them, and kept until another one does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from unifeat.codes.encode import Encoder, Loaded, Sampler, Values
from unifeat.codes.store import CodeStore
from unifeat.engine import Held
from unifeat.models.language import LanguageModel, load_language_model, read_config
from unifeat.saes.checking.claims import Claims
from unifeat.saes.encoding import Codes
from unifeat.saes.fit import fit_to_model
from unifeat.saes.recipe import Recipe
from unifeat.saes.weights import Decoder
from unifeat.study.spec import ModelSpec
from unifeat.vocabulary.hook_points import HookPoint

_MODELS, _SAES = Held(1), Held(1)


@dataclass(frozen=True)
class PlannedSpace:
    """A space of a study before it is encoded, without its SAE.

    Attributes:
        name, group, layer: as of `Space`.
        point, writes_at: where its SAE reads, and what it reconstructs.
        sae: how the SAE is made.
        size: bytes of its weights.
        claims: what the SAE states about itself.
        info: facts for the report that are known before encoding.
        sample: how the activations that its SAE reconstructs are sampled, if the study asks for them.
        elsewhere: the store for its codes on the study's text elsewhere; None if they are not needed.
    """

    name: str
    group: str
    layer: int
    point: HookPoint
    writes_at: HookPoint
    sae: Recipe
    size: int
    store: CodeStore
    codes: Codes
    values: Values
    claims: Claims
    decoder: Decoder
    info: dict[str, Any]
    sample: Sampler | None = None
    elsewhere: CodeStore | None = None

    @property
    def finished(self) -> bool:
        """Whether it is encoded on all texts."""
        return all(store.finished() for store in (self.store, self.elsewhere) if store is not None)


@dataclass(frozen=True)
class Loader:
    """Loads a model with some of its spaces' encoders.

    Attributes:
        spec: the model.
        points: all hook points at which the study reads it.
        spaces: the spaces whose SAEs are in memory at once.
        identity: everything that determines the model's activations.
        samplers: how activations are sampled in the same pass.
    """

    spec: ModelSpec
    points: tuple[HookPoint, ...]
    spaces: tuple[PlannedSpace, ...]
    identity: str
    samplers: tuple[Sampler, ...] = ()

    def __call__(self) -> Loaded:
        """The model, cut after the deepest block that is read, and the encoders on its device."""
        return self._with_encoders(self.model())

    def model(self) -> LanguageModel:
        """The model alone."""
        return _MODELS.get(self.key, self._load)

    @property
    def key(self) -> str:
        """Names the model, as far as it is loaded: two names of a study may be one model, read at other layers."""
        return f"{self.identity} {self.spec.device} {sorted(self.points)}"

    def deeper(self) -> Loaded:
        """The same with one more block of the model, for the check of SAEs; see `cut`."""
        return self._with_encoders(_MODELS.get(f"{self.key} deeper", partial(self._load, 1)))

    def cut(self) -> None:
        """Drop the block that `deeper` loaded: then the model is the one that encoding needs."""
        model = _MODELS.get(f"{self.key} deeper", partial(self._load, 1))
        model.cut(max(point.layer for point in self.points))
        _MODELS.rename(f"{self.key} deeper", self.key)

    def _load(self, deeper: int = 0) -> LanguageModel:
        spec, points = self.spec, list(self.points)
        if deeper:
            config = read_config(spec.name, spec.dtype, spec.revision, trust_remote_code=spec.trust_remote_code)
            last = config.num_hidden_layers - 1
            points.append(HookPoint(min(last, max(point.layer for point in points) + deeper)))
        return load_language_model(
            spec.name,
            points,
            dtype=spec.dtype,
            device=spec.device,
            randomise=spec.randomise,
            revision=spec.revision,
            max_memory=spec.max_memory,
            trust_remote_code=spec.trust_remote_code,
        )

    def _with_encoders(self, model: LanguageModel) -> Loaded:
        key = (self.key, tuple(str(space.store.folder) for space in self.spaces))
        return Loaded(model, _SAES.get(key, partial(self._encoders, model)), self.samplers)

    def _encoders(self, model: LanguageModel) -> list[Encoder]:
        encoders = []
        for space in self.spaces:
            sae = space.sae.load()
            fit_to_model(sae, space.sae.name, model.blocks, space.point)
            sae.to(str(model.device))
            encoders.append(Encoder(space.name, space.point, sae, space.store, space.codes, space.values))
        return encoders
