"""Hyper-parameters of language models."""

import dataclasses

from apps.common import tokens
from apps.common.config import Options, Range, field
from apps.common.training import SupervisedConfig


@dataclasses.dataclass(frozen=True)
class Config(SupervisedConfig):
    """Every hyper-parameter of the application; those that it shares with others are in `SupervisedConfig`."""

    NETWORK = ("model", "units", "num_layers", "num_heads", "feed_forward", "positions", "dropout")

    data: str = field("sums", "sums (generated), text (--data_dir: a text file, or a folder of them), or tfds:<name>.")
    encoding: str = field("utf-8", "Encoding of text files.")
    tokens: str = field("characters", "What is predicted one after another.", choices=tokens.KINDS)
    vocabulary_size: int = field(0, "Largest number of different tokens; 0: all characters or words, 4,000 subwords.",
                                 minimum=0)
    minimum_count: int = field(1, "Rarer words and characters are unknown, so that the model learns how likely an "
                                  "unknown one is.", minimum=1)
    validation_fraction: float = field(0.05, "Part of the text, after the training part, that chooses the best epoch, "
                                             "where the data have no such part. 0: none.", minimum=0, below=1)
    test_fraction: float = field(0.1, "Part at the end of the text set aside for the test, where the data have no such "
                                      "part.", above=0, below=1)
    length: int = field(64, "Tokens of a window: how far back gradients and attention reach.", minimum=2)
    test_stride: int = field(0, "Tokens from one window of the test to the next. The tokens before the last so many of "
                                "a window are context only. 0: --length, windows side by side.", minimum=0)
    carry_state: bool = field(False, "Recurrent models begin each window with the state that the window before left "
                                     "(truncated backpropagation through time over the whole text), in validation and "
                                     "test too; in phases of compression, with zeros.")
    mask_share: float = field(0.15, "Part of the tokens that a masked model has to find.", above=0, below=1)

    model: str = field("lstm", "A key of apps.language_model.models.MODELS, such as rnn, gru or transformer.",
                       search=Options(("lstm", "gru", "transformer")))
    units: int = field(128, "Units of a recurrent layer, or d_model of a Transformer.", minimum=1,
                       search=Options((64, 128, 256)))
    num_layers: int = field(2, "Layers, one above the other.", minimum=1, search=Options((1, 2, 3)))
    num_heads: int = field(4, "Heads of a Transformer's attention.", minimum=1)
    feed_forward: int = field(0, "d_ff of a Transformer. 0: four times --units.", minimum=0)
    positions: str = field("learned", "Positional encoding of a Transformer.", choices=("learned", "sinusoidal"))
    dropout: float = field(0.1, "Dropout after the embedding and each layer.", minimum=0, below=1,
                           search=Range(0.0, 0.4))

    epochs: int = field(10, "Passes over the training text.", minimum=0)
    batch_size: int = field(32, "Windows a step, over all devices.", minimum=1, search=Options((16, 32, 64)))
    learning_rate: float = field(3e-3, "Peak learning rate.", above=0, search=Range(5e-4, 1e-2, log=True))
    compression_learning_rate: float = field(3e-4, "Peak learning rate of the phases of compression.", above=0)
    optimizer: str = field("adamw", "sgd is with Nesterov momentum.", choices=("sgd", "adam", "adamw"))
    weight_decay: float = field(1e-2, "Decoupled decay of kernels, relative to the learning rate (sgd, adamw).",
                                minimum=0, search=Range(1e-3, 1e-1, log=True))
    gradient_clip: float = field(1.0, "Largest global norm of the gradient. 0: not clipped.", minimum=0)
    label_smoothing: float = field(0.0, "Share of the target spread evenly over the vocabulary.", minimum=0, below=1)

    export_window: bool = field(False, "Export the model of a whole window too, into window/: recurrent layers that "
                                       "LiteRT does not have stand in it step by step.")
    sample_tokens: int = field(200, "Tokens of the sample in the report.", minimum=0, volatile=True)
    temperature: float = field(0.8, "Temperature of that sample.", minimum=0, volatile=True)

    def validate(self):
        super().validate()
        if self.test_stride > self.length:
            raise ValueError(f"--test_stride must be at most --length, or tokens would be left out; received "
                             f"{self.test_stride} and {self.length}.")
        if self.test_stride and self.model.startswith("masked"):
            raise ValueError(f"--test_stride gives tokens some that stand before them; --model={self.model} sees both "
                             "sides of a window. Leave it out.")
        if self.carry_state and self.test_stride:
            raise ValueError("--test_stride gives tokens of the test some that stand before them; with --carry_state "
                             f"all of those are known. Leave one out; received --test_stride={self.test_stride}.")
        if self.carry_state and (self.distribution != "single" or self.micro_batches > 1):
            raise ValueError("--carry_state hands the state of each row from step to step, which one device does: it "
                             "needs --distribution=single and --micro_batches=1. Leave it out, or use a longer "
                             "--length.")
        if self.carry_state and self.distill_teacher:
            raise ValueError("--carry_state and --distill_teacher both bring a training step of their own. Leave one "
                             "out.")
        if self.units % 2 and self.positions == "sinusoidal":
            raise ValueError(f"Sinusoidal positions come in pairs: --units must be even; received {self.units}.")
