"""Data sets that tensorflow_datasets prepares: `--data=tfds:<name>`."""


def prepared(config, check=lambda features: None):
    """Downloads and prepares the set that `config.data` names, in `config.data_dir` where that is given.

    Args:
        config: configuration of an application.
        check: called with the set's features before anything is downloaded; raises ValueError where they are unfit.

    Returns:
        (the module tensorflow_datasets, the set's builder).

    Raises:
        ValueError: no name, the package is not installed, or the set cannot be prepared.
    """
    name = config.data.removeprefix("tfds:")
    if not name:
        raise ValueError("--data=tfds: lacks a name: expected tfds:<name>, as in tensorflow.org/datasets.")
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise ValueError(f"--data={config.data} needs tensorflow_datasets, which is not installed. Install the extra: "
                         "pip install 'usagi-suite[tfds]'.") from None
    try:
        builder = tfds.builder(name, data_dir=config.data_dir or None)
    except Exception as error:  # any of tensorflow_datasets' and the network's errors
        raise _unprepared(config, error) from None
    check(builder.info.features)
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise _unprepared(config, error) from None
    return tfds, builder


def _unprepared(config, error):
    return ValueError(f"--data={config.data} could not be prepared ({type(error).__name__}: {error}). Check the name "
                      "at tensorflow.org/datasets, or give --data_dir=FOLDER where it is prepared.")
