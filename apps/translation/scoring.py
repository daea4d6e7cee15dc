"""How good translations are: BLEU and chrF by sacrebleu, and the share that is exactly right."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Scores:
    """bleu and chrf 0 to 100, exact_match 0 to 1, and sacrebleu's signatures of the first two."""

    bleu: float
    chrf: float
    exact_match: float
    bleu_signature: str
    chrf_signature: str


def score(translations, references, *, tokenize="13a", lower_case=False):
    """Scores of a corpus.

    Args:
        translations, references: lists of texts, one reference each.
        tokenize: sacrebleu's tokenisation before BLEU (Post 2018).
        lower_case: whether case does not count.

    Returns:
        `Scores`.

    Raises:
        ValueError: sacrebleu, or the tokeniser that it needs, is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
        bleu, chrf = BLEU(tokenize=tokenize, lowercase=lower_case), CHRF(lowercase=lower_case)
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"--bleu_tokenize={tokenize} needs a package that is not installed ({error}). Install "
                         "usagi-suite[nlp], or the package that is named.") from None
    results = [metric.corpus_score(translations, [references]).score for metric in (bleu, chrf)]
    equal = sum(a.strip() == b.strip() for a, b in zip(translations, references, strict=True))
    return Scores(*results, equal / max(1, len(references)), str(bleu.get_signature()), str(chrf.get_signature()))


def by_length(translations, references, sources, edges):
    """Rows of how good translations are by the length of their source, [(first, last, count, exact match, chrF)].

    Args:
        translations, references: lists of texts.
        sources: lists of tokens.
        edges: lengths at which a row ends, ascending.
    """
    rows, first = [], 1
    for last in edges:
        chosen = [i for i, source in enumerate(sources) if first <= len(source) <= last]
        if chosen:
            found = score([translations[i] for i in chosen], [references[i] for i in chosen])
            rows.append((first, last, len(chosen), found.exact_match, found.chrf))
        first = last + 1
    return rows
