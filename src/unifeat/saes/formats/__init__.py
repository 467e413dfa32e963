"""The checkpoint formats, one module per family, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from unifeat.saes.build import Known
from unifeat.saes.files import Files
from unifeat.saes.formats import (
    bare,
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    llamascopium,
    saelens,
    sparsify,
)


class Format(NamedTuple):
    """One format.

    Attributes:
        sniff: whether the files look like this format, by their names or, if needed, their content.
        read: reads them into a SAELens object with its `Provenance`, in float32 on the CPU.
    """

    sniff: Callable[[Files], bool]
    read: Callable[[Files, Known], Any]


# The first format that fits is used: formats with files of their own come first, then those with files that several
# formats have, and pickles last.
FORMATS: dict[str, Format] = {
    "saelens": Format(saelens.sniff, saelens.read),
    "sparsify": Format(sparsify.sniff, sparsify.read),
    "gemma_scope": Format(gemma_scope.sniff, gemma_scope.read),
    "gemma_scope_2": Format(gemma_scope_2.sniff, gemma_scope_2.read),
    "llama_scope": Format(llama_scope.sniff, llama_scope.read),
    "llamascopium": Format(llamascopium.sniff, llamascopium.read),
    "dictionary_learning": Format(dictionary_learning.sniff, dictionary_learning.read),
    "circuit_tracer": Format(circuit_tracer.sniff, circuit_tracer.read),
    "openai": Format(bare.sniff_openai, bare.read_openai),
    "goodfire": Format(bare.sniff_goodfire, bare.read_goodfire),
    "linear": Format(bare.sniff_linear, bare.read_linear),
    "qwen_scope": Format(bare.sniff_qwen_scope, bare.read_qwen_scope),
    "attention_z": Format(bare.sniff_attention_z, bare.read_attention_z),
}
