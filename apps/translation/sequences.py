"""Sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947, section 3.2): a student learns what its teacher's
decoding says of the training sources, not what people said. With a beam the targets are near the teacher's mode, which
is easier to learn than all that people vary.
"""

import hashlib
import json
import os
import pathlib
import time

import tf_keras as keras

from apps.common import config as config_lib
from apps.common import workdir
from apps.translation import data, translating
from apps.translation.config import Config

CHUNK = 512  # translations kept at a time
DECODING = ("decoding", "beam_width", "length_penalty", "temperature", "top_k", "top_p", "seed", "max_length")


def check(config):
    """Raises ValueError unless `--distill_sequences` is empty or names a run that can translate the training part."""
    if not config.distill_sequences:
        return
    theirs, _ = config_lib.load(Config, config.distill_sequences)
    if theirs.max_length < config.max_length:
        raise ValueError(f"--distill_sequences={config.distill_sequences} reads at most {theirs.max_length} tokens; "
                         f"received --max_length={config.max_length}. Give a smaller one.")


def targets(run, spec):
    """The teacher's translations of the training sources, a list of texts; what has been made before is read back.

    They are kept in the teacher's workdir for the students that follow, by a hash of all that they depend on; where
    that folder cannot be written, in the run's.

    Args:
        run: `workdir.Run`; it begins here.
        spec: `data.PairSpec`, of the same vocabularies as the teacher's.
    """
    run.begin()
    try:
        return _targets(run, spec)
    except BaseException:
        run.end()  # who catches this, in the same process, may resume at once
        raise


def _targets(run, spec):
    config = run.config
    sources = [pair[0] for pair in data.read_parts(config)["train"]]
    folder = _folder(run, sources)
    translator, found, began = None, [], time.monotonic()
    for start in range(0, len(sources), CHUNK):
        path = folder / f"{start:08d}.json"
        if not path.exists():
            if translator is None:
                workdir.set_precision("float32")  # the teacher's, whatever the student's
                model = keras.models.load_model(f"{config.distill_sequences}/model.keras", compile=False)
                translator, first = translating.make_translator(model, spec, config), start
                workdir.set_precision(config.precision)
            config_lib.write_json(path, translator(sources[start:start + CHUNK]))
            done = min(start + CHUNK, len(sources))
            print(f"the teacher has translated {done} of {len(sources)} sentences, "
                  f"{(done - first) / (time.monotonic() - began):.0f} a second", flush=True)
        found += json.loads(path.read_text())
    return found


def _folder(run, sources):
    teacher = pathlib.Path(run.config.distill_sequences)
    if not os.access(teacher, os.W_OK):
        return run.folder("distilled")
    facts = [sources, *(getattr(run.config, name) for name in DECODING)]
    digest = hashlib.sha256(json.dumps(facts).encode() + (teacher / "model.keras").read_bytes())
    folder = teacher / "cache" / f"translations_{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
