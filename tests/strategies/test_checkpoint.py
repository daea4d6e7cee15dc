import numpy as np
import pytest
import tf_keras as keras

from strategies import checkpoint


def model(units=3, optimizer="adam", precision="float32"):
    inputs = keras.Input((4,))
    x = keras.layers.Dense(units, name="hidden", dtype=precision)(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    built = keras.Model(inputs, keras.layers.Dense(2, name="out")(x))
    chosen = keras.optimizers.get(optimizer)
    if precision == "mixed_float16":
        chosen = keras.mixed_precision.LossScaleOptimizer(chosen)
    built.compile(chosen, "mse", metrics=["mae"])
    return built


DATA = np.random.default_rng(0).normal(size=(8, 4)), np.random.default_rng(1).normal(size=(8, 2))


def trained(**kwargs):
    built = model(**kwargs)
    built.fit(*DATA, epochs=2, verbose=0)
    return built


@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd"}, {"precision": "mixed_float16"}])
def test_training_goes_on_as_if_uninterrupted(tmp_path, options):
    straight = trained(**options)
    checkpoint.save(tmp_path / "a.npz", straight, {"step": 2})
    straight.fit(*DATA, epochs=2, verbose=0, shuffle=False)

    resumed = model(**options)
    arrays, state = checkpoint.read(tmp_path / "a.npz")
    checkpoint.restore(resumed, arrays)
    assert state == {"step": 2}
    resumed.fit(*DATA, epochs=2, verbose=0, shuffle=False)
    for expected, value in zip(straight.get_weights(), resumed.get_weights()):
        np.testing.assert_array_equal(expected, value)


def test_duplicate_names_are_numbered():
    layer = keras.layers.Dense(2, name="same")
    layer.build((None, 2))
    names = checkpoint.variable_names([*layer.weights, *layer.weights])
    assert len(set(names)) == 4 and names[2].endswith("#1")


def test_another_architecture_is_refused_and_nothing_assigned(tmp_path):
    checkpoint.save(tmp_path / "a.npz", trained(), {})
    other = model(units=5)
    before = other.get_weights()
    with pytest.raises(checkpoint.CheckpointError, match=r"does not fit the model: .*hidden/kernel has shape \(4, 3\)"):
        checkpoint.restore(other, checkpoint.read(tmp_path / "a.npz")[0])
    for expected, value in zip(before, other.get_weights()):
        np.testing.assert_array_equal(expected, value)


def test_another_optimizer_is_refused(tmp_path):
    checkpoint.save(tmp_path / "a.npz", trained(), {})
    with pytest.raises(checkpoint.CheckpointError, match="optimizer/v/hidden/kernel is not in the model"):
        checkpoint.restore(model(optimizer=keras.optimizers.SGD(momentum=0.9)), checkpoint.read(tmp_path / "a.npz")[0])


def test_not_finite_weights_are_not_written(tmp_path):
    broken = trained()
    broken.layers[1].kernel.assign(broken.layers[1].kernel * np.nan)
    with pytest.raises(FloatingPointError, match="hidden/kernel is not finite"):
        checkpoint.save(tmp_path / "a.npz", broken, {})
    assert list(tmp_path.iterdir()) == []


def test_directory_keeps_the_newest_and_falls_back_from_a_damaged_one(tmp_path):
    directory = checkpoint.Directory(tmp_path / "checkpoints")
    assert directory.latest() is None
    built = trained()
    for step in (1, 2, 3):
        directory.save(built, step, {"note": step})
    assert directory.steps() == [2, 3]
    newest = tmp_path / "checkpoints" / "step_0000000003.npz"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(bytes(content))
    reports = []
    _, state = directory.latest(report=reports.append)
    assert state == {"note": 2, "step": 2}
    assert "step_0000000003.npz cannot be read" in reports[0]

    (tmp_path / "checkpoints" / "step_0000000002.npz").write_bytes(b"")
    with pytest.raises(checkpoint.CheckpointError, match="No readable checkpoint is left"):
        directory.latest(report=reports.append)


def test_format_version_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 99)
    checkpoint.save(tmp_path / "a.npz", trained(), {})
    monkeypatch.undo()
    with pytest.raises(checkpoint.CheckpointError, match="has format 99; expected 1"):
        checkpoint.read(tmp_path / "a.npz")
