"""Documents, token windows, and places, which tokens of different tokenizers share."""

from unifeat.text.corpus import Corpus, build_corpus
from unifeat.text.windows import TokenizedPart, tokenize_part

__all__ = ["Corpus", "TokenizedPart", "build_corpus", "tokenize_part"]
