import os
import pathlib

import pytest
import tf_keras as keras

from apps.common import workdir
from apps.image_classification.config import Config


def config(path, **changes):
    return Config(workdir=str(path), **changes)


def test_a_second_run_with_the_same_flags_resumes_and_keeps_what_was_resolved(tmp_path):
    run = workdir.Run(config(tmp_path / "run"))
    run.resolved["total_steps"] = 12
    run.begin()
    run.end()
    again = workdir.Run(config(tmp_path / "run", verbose=2))
    assert again.resolved == {"total_steps": 12}


def test_checking_writes_nothing(tmp_path):
    workdir.Run(config(tmp_path / "new" / "run"))
    assert list(tmp_path.iterdir()) == []


def test_another_configuration_is_refused(tmp_path):
    run = workdir.Run(config(tmp_path))
    run.begin()
    run.end()
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match="another configuration: --epochs was 30, now 5, --seed was 0, now 1"):
        workdir.Run(config(tmp_path, epochs=5, seed=1))
    assert (tmp_path / "config.json").read_text() == before


def test_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"holds files of something else \(thesis.tex\)"):
        workdir.Run(config(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_file_in_place_of_the_folder(tmp_path):
    path = tmp_path / "run"
    path.write_text("a file")
    with pytest.raises(ValueError, match="is not a folder"):
        workdir.Run(config(path))


def test_unwritable_folder(tmp_path, monkeypatch):
    # The tests may run as root, whom no permission stops; so the answer of the system is replaced, not the folder.
    monkeypatch.setattr(os, "access", lambda path, mode: pathlib.Path(path) != tmp_path)
    with pytest.raises(ValueError, match=r"cannot be written \(no permission on"):
        workdir.Run(config(tmp_path / "run"))


def test_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        workdir.Run(config(tmp_path / "file" / "run"))


def test_two_processes_cannot_share_a_workdir(tmp_path):
    first = workdir.Run(config(tmp_path))
    first.begin()
    second = workdir.Run(config(tmp_path))
    with pytest.raises(ValueError, match="is in use by another running process"):
        second.begin()
    first.end()
    second.begin()
    second.end()


@pytest.mark.parametrize("precision, variable, compute", [
    ("mixed_bfloat16", "float32", "bfloat16"), ("float64", "float64", "float64"), ("float32", "float32", "float32")])
def test_precision(precision, variable, compute):
    workdir.set_precision(precision)
    try:
        layer = keras.layers.Dense(2)
        assert layer(keras.Input((3,))).dtype == compute
        assert layer.kernel.dtype == variable
    finally:
        workdir.set_precision("float32")


@pytest.mark.parametrize("flags, expected", [("fpu avx avx2", False), ("fpu avx avx2 avx512f", True), ("asimd", True),
                                             (None, True)])
def test_processors_that_emulate_bfloat16_are_named(tmp_path, monkeypatch, capsys, flags, expected):
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(workdir.tf.config, "list_physical_devices", lambda kind: [])
    assert workdir.computes_bfloat16(file) == expected
    monkeypatch.setattr(workdir, "computes_bfloat16", lambda: expected)
    for precision in ("mixed_bfloat16", "float32"):
        workdir.prepare_runtime(config(tmp_path, precision=precision))
        said = capsys.readouterr().out
        assert ("lacks AVX-512" in said) == (precision == "mixed_bfloat16" and not expected)
