import functools
import json
import pathlib
import subprocess
import sys
import tempfile

import pytest
import tensorflow as tf
import tf_keras as keras

from layers import recurrent
from strategies.distribution import model_parallel
from strategies.distribution.model_parallel import ModelParallel
from tests.strategies.distribution import on_mesh

MESHES = [*(pytest.param(mesh, marks=pytest.mark.conformance) for mesh in ("batch:4", "model:4")), "batch:2,model:2"]
ROOT = pathlib.Path(__file__).parents[3]


@functools.cache
def run(mesh):
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([sys.executable, "-m", on_mesh.__name__, mesh, folder], cwd=ROOT, capture_output=True,
                              text=True, timeout=600)


def measured(mesh):
    """What a process of its own found on a mesh, since it can have one only."""
    done = run(mesh)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("mesh", MESHES)
class TestMesh:
    @pytest.mark.parametrize("precision, name, tolerance", [
        ("float32", "dense", 2e-5), ("float64", "dense", 1e-12), ("float64", "attention", 1e-12),
        ("float64", "convolution", 1e-12)])
    def test_equals_one_device(self, mesh, precision, name, tolerance):
        assert measured(mesh)[f"{precision}/{name}"] <= tolerance

    def test_the_stock_update_is_caught(self, mesh):
        assert measured(mesh)["stock"] > 1e-4

    def test_micro_batches(self, mesh):
        assert measured(mesh)["micro_batches"] <= 1e-12

    def test_batches_of_several_lengths(self, mesh):
        assert max(measured(mesh)["lengths"]) <= 1e-12

    def test_masks_and_teachers(self, mesh):
        assert measured(mesh)["compressed"] <= 2e-5

    def test_checkpoints_change_hands(self, mesh):
        assert measured(mesh)["checkpoints"] <= 2e-5

    def test_speed_is_measured(self, mesh):
        assert min(measured(mesh)["timed"]) > 0

    def test_every_layout(self, mesh):
        for name, axes in measured(mesh)["layouts"].items():
            variable = name.split(":")[0]
            cut = {"dense": "logits/bias" if variable.endswith("bias") else "kernel", "attention": "", "convolution":
                   "logits/"}[name.split("/")[0]]
            whole = ("norm", "iteration", "learning_rate", "step", "attention_output/bias")
            wanted = cut in variable and not any(word in variable for word in whole)
            assert ("model" in axes) == wanted, (name, axes)

    def test_memory(self, mesh):
        held, whole = measured(mesh)["bytes"]
        share = {"batch:4": 1.0, "model:4": 0.30, "batch:2,model:2": 0.55}[mesh]
        assert max(held) <= share * whole, (held, whole)


def model():
    return on_mesh.dense()


@pytest.mark.parametrize("mesh, words", [
    ("", "expected sizes of the axes batch and model, such as --mesh=batch:2,model:2"), ("rows:2", "received 'rows:2'"),
    ("batch:0", "received 'batch:0'"), ("batch:two", "received 'batch:two'"),
    ("batch:64", "num_devices=64: TensorFlow runs already")])
def test_bad_mesh(mesh, words):
    tf.config.list_logical_devices()  # TensorFlow begins
    with pytest.raises(ValueError, match=words):
        ModelParallel(mesh=mesh)


@pytest.mark.parametrize("layout, words", [
    ("no_such_file", "there is no such file"), ("dense0/kernel=-,rows", "received axis 'rows'"),
    ("=model", "expected pattern=axes"), ("dense(=-,model", "is not a regular expression")])
def test_bad_layout(layout, words):
    with pytest.raises(ValueError, match=words):
        model_parallel.parse_layout(layout)


@pytest.mark.parametrize("layout, words", [
    ("dens0/kernel=-,model", r"'dens0/kernel' matches no variable of .*dense0/kernel"),
    ("dense0/kernel=model", "has shape \\(12, 16\\), and model has 1 axes"),
    ("logits/bias=batch", "does not divide it: batch has 3 devices"),
    ("dense0/kernel=model,model", "cuts along one axis of the mesh twice")])
def test_layout_that_does_not_fit(layout, words):
    with pytest.raises(ValueError, match=words):
        model_parallel.assign_layouts(model(), model_parallel.parse_layout(layout), {"batch": 3, "model": 2})


def test_rules_of_the_user_come_first(tmp_path):
    (tmp_path / "rules").write_text("# mine\ndense0/kernel=model,-\nkernel=-,-\n")
    found = model_parallel.assign_layouts(model(), model_parallel.parse_layout(str(tmp_path / "rules")),
                                          {"batch": 1, "model": 4})
    assert found["dense0/kernel"] == ("model", "-")
    assert found["dense1/kernel"] == ("-", "-")
    assert found["logits/bias"] == ("model",)


def test_a_rule_that_does_not_divide_leaves_a_weight_whole():
    assert model_parallel.assign_layouts(model(), [], {"batch": 1, "model": 3})["dense0/kernel"] == ("-", "-")


@pytest.mark.parametrize("make", [
    lambda x: keras.layers.LSTM(4, name="memory")(x),
    lambda x: keras.layers.RNN(recurrent.PeepholeLSTMCell(4), name="memory")(x),
    lambda x: recurrent.TreeLSTM(4, name="memory")(x, children=[[-1], [0], [1]])])
def test_layers_without_rules(make):
    strategy = object.__new__(ModelParallel)
    strategy._sizes, strategy._parts, strategy._rules = {"batch": 2, "model": 1}, 1, []
    inputs = keras.Input((3, 2))
    with pytest.raises(ValueError, match="has no rules for layer 'memory'. Use --distribution=pipeline"):
        strategy.check(keras.Model(inputs, make(inputs)), on_mesh.stream([3, 2]))
