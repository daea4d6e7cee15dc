"""The plan of phases, and what is refused before training."""

import contextlib
import dataclasses

import numpy as np
import pytest
import tf_keras as keras

from apps.common import compressing
from apps.common.compressing import CompressionConfig
from strategies import compression


def config(**changes):
    return CompressionConfig(workdir="unused", **changes)


def plan(**changes):
    return [(phase.name, phase.config.epochs, phase.config.learning_rate) for phase in
            compressing.phases(config(epochs=30, learning_rate=0.1, compression_epochs=4,
                                      compression_learning_rate=0.02, **changes))]


def test_a_run_without_compression_is_one_phase_in_the_workdir_itself():
    assert plan() == [("", 30, 0.1)]


def test_training_comes_first():
    assert plan(compression="prune,quantize") == [
        ("00_train", 30, 0.1), ("01_prune", 4, 0.02), ("02_quantize", 4, 0.02)]


def test_a_trained_model_or_a_teacher_takes_its_place():
    assert plan(compression="prune", initial_model="run") == [("00_prune", 4, 0.02)]
    assert plan(compression="distill,low_bit", distill_teacher="run") == [
        ("00_distill", 30, 0.1), ("01_low_bit", 4, 0.02)]


def test_fitnets_has_a_stage_before():
    assert plan(compression="distill", distill_teacher="run", distill_hint="features", distill_hint_epochs=3) == [
        ("00_hint", 3, 0.1), ("01_distill", 30, 0.1)]
    stages = compressing.phases(config(compression="distill", distill_teacher="run", distill_hint="features"))
    hints = [compressing.make_method(stage, teachers=[object()]).hint for stage in stages]
    assert hints == ["features", "none"]


def test_iterated_pruning_keeps_the_same_share_each_time():
    phases = compressing.phases(config(compression="prune", initial_model="run", prune_iterations=3,
                                       prune_sparsity=0.875))
    assert [phase.name for phase in phases] == ["00_prune", "01_prune", "02_prune"]
    shares = [compressing.make_method(phase).sparsity for phase in phases]
    np.testing.assert_allclose(shares, [0.5, 0.75, 0.875])


def test_explain_says_which_compressions_fit():
    def build():
        inputs = keras.Input((6, 4))
        return keras.Model(inputs, keras.layers.Dense(3, name="logits")(keras.layers.LSTM(5)(inputs)))

    settings = config(prune_select="logits")
    samples = np.zeros((2, 6, 4), np.float32)
    found = compressing.what_fits(settings, build, lambda phase: compressing.make_method(
        phase, representative=lambda: samples))
    assert {name: found.pop(name) for name in ("prune", "share", "quantize", "low_bit")} == dict.fromkeys(
        ("prune", "share", "quantize", "low_bit"), "yes")
    assert list(found) == ["filters"] and "has no channel that can be removed" in found["filters"]
    found = compressing.what_fits(config(prune_select="nothing"), build, lambda phase: compressing.make_method(
        phase, representative=lambda: samples))
    assert all("matches 'nothing'" in found[name] for name in ("prune", "share", "low_bit"))


def test_only_the_first_training_has_a_time_budget():
    phases = compressing.phases(config(compression="prune", time_budget=3.0))
    assert [phase.config.time_budget for phase in phases] == [3.0, 0.0]


def test_methods_of_all_phases():
    chosen = {"filters": compression.FilterPruning, "share": compression.WeightSharing, "low_bit": compression.LowBit,
              "prune": compression.Pruning, "quantize": compression.Quantization}
    for name, cls in chosen.items():
        phase = compressing.phases(config(compression=name, initial_model="run"))[0]
        method = compressing.make_method(phase, representative=lambda: np.zeros((3, 2), np.float32))
        assert type(method) is cls


@pytest.mark.parametrize("first, is_refused", [("run", True), ("", False)])
def test_a_threshold_that_leaves_nothing_is_refused_where_the_weights_are_known(first, is_refused):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, kernel_initializer="ones")(inputs))
    *_, phase = compressing.phases(config(compression="prune", initial_model=first, prune_criterion="threshold",
                                          prune_threshold=2.0))
    with pytest.raises(ValueError, match="removes every weight") if is_refused else contextlib.nullcontext():
        compressing.rehearse(phase, model, lambda: compressing.make_method(phase))


def test_flags_reach_pruning():
    pruning = compressing.make_pruning(config(prune_block="4x2", prune_ramp=0.3, prune_select="dense"))
    assert (pruning.block, pruning.ramp, pruning.select) == ((4, 2), 0.3, "dense")
    assert compressing.make_pruning(config(prune_m_by_n="2:4")).m_by_n == (2, 4)


@pytest.mark.parametrize("changes, message", [
    ({"compression": "prune,distill", "distill_teacher": "x"}, "not a legal order.*distill, filters, prune"),
    ({"compression": "prune,prune"}, "each method once"),
    ({"compression": "shrink"}, "Unknown compression 'shrink'"),
    ({"compression": "share,quantize"}, "share and quantize exclude each other"),
    ({"compression": "quantize,low_bit"}, "exclude each other"),
    ({"compression": "distill"}, "needs --distill_teacher"),
    ({"quantize_engine": "tfmot", "precision": "mixed_bfloat16"}, "tfmot needs --precision=float32"),
    ({"distill_teacher": "x"}, "Did you mean --compression=distill"),
    ({"initial_model": "x"}, "received --compression=none"),
    ({"prune_sparsity": 1.0}, "--prune_sparsity must be .* below 1"),
    ({"prune_block": "4"}, "--prune_block must be two whole numbers such as 4x1; received '4'"),
    ({"prune_m_by_n": "2/4"}, "--prune_m_by_n must be two whole numbers such as 4:1"),
    ({"prune_m_by_n": "4:2"}, "m zeros in every n > m"),
    ({"low_bit_bits": 9}, "--low_bit_bits must be .* at most 8"),
    ({"low_bit_bits": 1}, "--low_bit_bits must be at least 2"),
    ({"distill_temperature": 0.0}, "--distill_temperature must be above 0"),
    ({"distill_hint_layers": "a"}, "must be student_layer:teacher_layer")])
def test_bad_flags(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_models_from_workdirs_and_files(tmp_path):
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "model.keras")
    names = f"{tmp_path}, {tmp_path / 'model.keras'}"
    assert [m.output_shape for m in compressing.load_models(names, "distill_teacher")] == [(None, 2)] * 2
    (tmp_path / "bad.keras").write_text("no")
    for name, message in ((str(tmp_path / "none"), "has no trained model"), (str(tmp_path / "bad.keras"), "be read")):
        with pytest.raises(ValueError, match=f"--distill_teacher.*{message}"):
            compressing.load_models(name, "distill_teacher")


def test_cached_outputs_are_the_mean_of_the_teachers():
    noise = np.random.default_rng(0).normal(size=(2, 10, 3))
    teachers = [lambda x, training, table=table: table[x] for table in noise]
    stream = dataclasses.make_dataclass("Stream", ["num_examples", "batch_size"])(10, 4)
    found = compressing.computed_logits(teachers, lambda index: (index, None), stream, config(distill_temperature=2.0))

    def soft(z):
        e = np.exp(z / 2.0)
        return e / e.sum(axis=-1, keepdims=True)

    np.testing.assert_allclose(soft(found), (soft(noise[0]) + soft(noise[1])) / 2, rtol=1e-5)


def test_outputs_are_kept_for_the_same_teachers_examples_and_temperature(tmp_path, monkeypatch):
    inputs = keras.Input((3,))
    teacher = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    examples = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    stream = dataclasses.make_dataclass("Stream", ["num_examples", "batch_size"])(10, 4)
    count, compute = [], compressing.computed_logits
    monkeypatch.setattr(compressing, "computed_logits", lambda *args: count.append(1) or compute(*args))

    def ask(folder=tmp_path, temperature=2.0):
        settings = config(compression="distill", distill_teacher=str(folder), distill_temperature=temperature)
        return compressing.cached_logits([teacher], lambda index: (examples[index], None), stream, settings)

    first = ask()
    np.testing.assert_array_equal(ask(), first)
    assert len(count) == 1 and len(list((tmp_path / "cache").iterdir())) == 1
    ask(temperature=4.0)
    examples[9, 2] += 1
    changed = ask()
    assert len(count) == 3 and not np.array_equal(changed, first)
    teacher.set_weights([w + 0.5 for w in teacher.get_weights()])
    ask()
    assert len(count) == 4
    ask(tmp_path / "model.keras")  # a file has no folder of its own
    assert len(count) == 5 and len(list((tmp_path / "cache").iterdir())) == 4
