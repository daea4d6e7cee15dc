"""Hyper-parameters of image classification."""

import dataclasses

from apps.common.config import Options, Range, field
from apps.common.training import SupervisedConfig
from layers.normalization import KINDS


@dataclasses.dataclass(frozen=True)
class Config(SupervisedConfig):
    """Every hyper-parameter of the application; those that it shares with others are in `SupervisedConfig`."""

    NETWORK = ("model", "width", "stem", "normalization", "batch_norm_momentum", "dropout")

    data: str = field("digits", "digits (embedded), mnist, fashion_mnist, cifar10, cifar100, folder (images in "
                                "--data_dir, one folder a class) or tfds:<name>.")
    model: str = field("resnet20", "A model of the zoo, such as resnet50, wrn_16_2 or densenet_bc_100_12.",
                       search=Options(("resnet20", "preact_resnet20", "wrn_16_2", "mobilenet_v1")))
    epochs: int = field(30, "Passes over the training data.", minimum=0)
    batch_size: int = field(64, "Images a step, over all devices.", minimum=1, search=Options((32, 64, 128)))
    learning_rate: float = field(0.1, "Peak learning rate.", above=0, search=Range(1e-2, 0.5, log=True))

    image_size: int = field(0, "Side to which images are resized, pixels. 0: as they are (in folders: 128).", minimum=0)
    resolution_multiplier: float = field(1.0, "MobileNet's rho: images are resized to rho times their size.", above=0,
                                         maximum=4)
    validation_fraction: float = field(0.1, "Part of the training images set aside, stratified, to choose the best "
                                            "epoch. 0: none.", minimum=0, below=1)
    test_fraction: float = field(0.2, "Part set aside for the test where the data set has no test part of its own.",
                                 above=0, below=1)
    split_seed: int = field(0, "Seed of these splits.", minimum=0)

    augmentation: str = field("none", "Comma-separated: flip, shift, cutout, mixup; or none.")
    shift_pixels: int = field(0, "Largest shift of `shift` (zero-padded random crop), pixels. 0: side / 8.",
                              minimum=0)
    cutout_pixels: int = field(0, "Side of the square that `cutout` blanks, pixels. 0: half the side.", minimum=0)
    mixup_alpha: float = field(0.2, "Beta(alpha, alpha) of `mixup`.", above=0)
    label_smoothing: float = field(0.0, "Share of the target spread evenly over all classes.", minimum=0, below=1,
                                   search=Range(0.0, 0.2))

    width: float = field(1.0, "Multiplies every filter count (MobileNet's alpha).", above=0, maximum=16)
    stem: str = field("auto", "Form of the first layers; auto takes small up to 64 pixels.",
                      choices=("auto", "small", "large"))
    normalization: str = field("default", "Normalisation of every backbone; default is the paper's, group:G is group "
                                          "normalisation of G groups.", choices=("default", *KINDS))
    batch_norm_momentum: float = field(0.9, "Share of the old value that a step leaves in batch normalisation's moving "
                                            "statistics. keras.applications' .99 and .999 need thousands of steps.",
                                       minimum=0, below=1)
    dropout: float = field(0.0, "Dropout before the classifier, and inside the blocks of wrn_* and densenet*.",
                           minimum=0, below=1, search=Range(0.0, 0.5))

    fold_batch_norm: bool = field(False, "Merge batch normalisation into the convolution before it when exporting.")
