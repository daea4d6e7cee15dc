"""Hyper-parameters of translation."""

import dataclasses

from apps.common import tokens
from apps.common.config import Options, Range, field
from apps.common.optimization import SHAPES
from apps.common.training import SupervisedConfig

BLEU_TOKENIZERS = ("13a", "none", "char", "intl", "ja-mecab", "zh")  # sacrebleu's


@dataclasses.dataclass(frozen=True)
class Config(SupervisedConfig):
    """Every hyper-parameter of the application; those that it shares with others are in `SupervisedConfig`."""

    NETWORK = ("model", "cell", "units", "num_layers", "bidirectional", "norm_first", "tie_embeddings", "embeddings",
               "dropout")

    data: str = field("dates", "dates (generated), tsv (files of source, tab, target in --data_dir), parallel (two "
                               "files a part, as train.en and train.de) or tfds:<name>.")
    encoding: str = field("utf-8", "Encoding of the files.")
    languages: str = field("", "source,target: endings of parallel files, or features of a tfds set, as en,de.")
    reverse: bool = field(False, "Translate from the second language to the first.")
    tokens: str = field("auto", "What texts are cut into; auto: characters of dates, subwords of anything else.",
                        choices=("auto", *tokens.KINDS))
    vocabulary_size: int = field(0, "Largest number of tokens of a language. 0: all characters or words, 8,000 "
                                    "subwords.", minimum=0)
    share_vocabulary: bool = field(False, "One vocabulary for both languages, and in a Transformer one embedding "
                                          "(Vaswani et al. 2017, section 3.4).")
    minimum_count: int = field(1, "Rarer words and characters are unknown.", minimum=1)
    lower_case: bool = field(False, "Lower-case both languages.")
    max_length: int = field(64, "Tokens of a sentence, its end included. Longer pairs are left out of training.",
                            minimum=3)
    validation_fraction: float = field(0.05, "Part of the training pairs set aside to choose the best epoch, where the "
                                             "data have no such part. 0: none.", minimum=0, below=1)
    test_fraction: float = field(0.1, "Part set aside for the test where the data have no such part.", above=0, below=1)
    buckets: int = field(6, "Groups of like length from which a batch is taken, so that less is padded. 1: every batch "
                            "is as long as the longest pair.", minimum=1)

    model: str = field("transformer_tiny", "A key of apps.translation.models.MODELS: seq2seq, additive, multiplicative "
                                           "or a Transformer.",
                       search=Options(("additive", "multiplicative", "transformer_tiny")))
    cell: str = field("lstm", "Recurrent layers of the models that have some.", choices=("lstm", "gru"))
    units: int = field(256, "Units of these, and of their embeddings.", minimum=1, search=Options((128, 256, 512)))
    num_layers: int = field(0, "Layers of encoder and decoder each. 0: the model's own, 1 where it is recurrent.",
                            minimum=0)
    bidirectional: bool = field(True, "The recurrent encoder's first layer reads both ways.")
    norm_first: bool = field(False, "Normalise before the Transformer's sub-layers instead of after them.")
    tie_embeddings: bool = field(True, "The target's embedding is also the last layer of a Transformer.")
    embeddings: str = field("", "Files of word vectors (word, blank, numbers a line) that the embeddings begin with: "
                                "source,target; either may be empty. words only.")
    dropout: float = field(-1.0, "Dropout. -1: the model's own, 0.2 where it is recurrent.", maximum=0.9,
                           search=Range(0.0, 0.5))

    epochs: int = field(30, "Passes over the training pairs.", minimum=0)
    batch_size: int = field(64, "Pairs a step, over all devices.", minimum=1, search=Options((32, 64, 128)))
    learning_rate: float = field(1e-3, "Peak learning rate.", above=0, search=Range(2e-4, 3e-3, log=True))
    compression_learning_rate: float = field(2e-4, "Peak learning rate of the phases of compression.", above=0)
    optimizer: str = field("adam", "sgd is with Nesterov momentum.", choices=("sgd", "adam", "adamw"))
    weight_decay: float = field(0.0, "Decoupled decay of kernels, relative to the learning rate (sgd, adamw).",
                                minimum=0)
    schedule: str = field("cosine", "Learning rate over the run; inverse_square_root is the Transformer paper's.",
                          choices=SHAPES)
    gradient_clip: float = field(1.0, "Largest global norm of the gradient. 0: not clipped.", minimum=0)
    label_smoothing: float = field(0.1, "Share of the target spread evenly over the vocabulary.", minimum=0, below=1,
                                   search=Range(0.0, 0.2))
    scheduled_sampling: float = field(0.0, "Share of the decoder's inputs that are its own predictions at the end of "
                                           "training; it grows from 0. Phases of compression go without.",
                                      minimum=0, maximum=1)
    average_epochs: int = field(0, "The weights kept are the mean of those after the last so many epochs. 0: as --keep "
                                   "says.", minimum=0)

    distill_sequences: str = field("", "Workdir of a trained run whose translations of the training sources, made as "
                                       "--decoding says, are learned instead of the given ones (sequence-level "
                                       "distillation).")
    decoding: str = field("greedy", "How the test is translated; sample draws tokens.",
                          choices=("greedy", "beam", "sample"))
    beam_width: int = field(4, "Beginnings that a beam follows.", minimum=1)
    length_penalty: float = field(0.6, "Alpha of the beam's length penalty.", minimum=0)
    temperature: float = field(1.0, "Of sample: the logits are divided by it.", above=0)
    top_k: int = field(0, "Of sample: among the k likeliest tokens only. 0: all.", minimum=0)
    top_p: float = field(1.0, "Of sample: among the likeliest tokens that together have this probability.", above=0,
                         maximum=1)
    bleu_tokenize: str = field("13a", "sacrebleu's tokenisation; none where the text has blanks between tokens "
                                      "already.", choices=BLEU_TOKENIZERS)
    num_translated: int = field(1000, "Pairs of the test that are translated, at most.", minimum=1)
    num_scored: int = field(100, "Of these, those that each exported file translates.", minimum=1)

    def validate(self):
        super().validate()
        alone = self.distribution == "single" and self.micro_batches == 1 and not self.distill_teacher
        if self.scheduled_sampling and not alone:
            raise ValueError("--scheduled_sampling brings a training step of its own: it needs --distribution=single, "
                             "--micro_batches=1 and no --distill_teacher.")
        if self.scheduled_sampling and self.time_budget:
            raise ValueError("--scheduled_sampling grows over the passes of --epochs; --time_budget leaves their "
                             "number open. Give --epochs.")
        if self.embeddings and self.token_kind != "words":
            raise ValueError(f"--embeddings are vectors of words; received --tokens={self.tokens}, by which --data="
                             f"{self.data} is cut into {self.token_kind}. Give --tokens=words.")
        if self.embeddings.count(",") > 1:
            raise ValueError(f"--embeddings are one file for the source and one for the target, or one: received "
                             f"{self.embeddings!r}.")
        if self.embeddings and self.share_vocabulary:
            raise ValueError("--embeddings are those of each language: they do not go with --share_vocabulary.")
        languages = {code.strip() for code in self.languages.split(",")} - {""}
        if (self.data == "parallel" or self.data.startswith("tfds:")) and len(languages) != 2:
            raise ValueError(f"--data={self.data} needs --languages=source,target, the endings of the files or "
                             f"features of the set, such as en,de; received {self.languages!r}.")
        if self.dropout < 0 and self.dropout != -1:
            raise ValueError(f"--dropout must be at least 0, or -1 for the model's own; received {self.dropout}.")

        if self.data == "dates" and (self.reverse or self.data_dir):
            raise ValueError("--data=dates is generated, from many languages to one form: it takes no --data_dir and "
                             "no --reverse. Give --data=tsv with files of your own.")

    @property
    def token_kind(self):
        """`--tokens`, with auto decided."""
        if self.tokens != "auto":
            return self.tokens
        return "characters" if self.data == "dates" else "subwords"
