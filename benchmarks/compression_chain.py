"""How small and how fast a network gets: distilled, pruned, quantised; and with whole channels removed.

    python -m benchmarks.compression_chain --data_dir=data [--folder=runs/chain] [--teacher_epochs=10]

Fashion-MNIST. The teacher is a WRN-16-4, fixed beforehand. Under it a ResNet-20 is trained, pruned and quantised, each
phase with the teacher's soft targets, kept once: students see the images as they are. Targets: the int8 file after gzip
is at least 30 times smaller than the teacher's float32 file after gzip, at 1 point lost or less (Deep Compression, Han
et al. 2016: 35 to 49 times); and a network with channels removed runs at least twice as fast in LiteRT as before, at 1
point lost or less. These are the smaller float networks too.
"""

import argparse
import pathlib

from apps.common import variants
from benchmarks import common, plots, runs
from strategies import export

TEACHER = {"model": "wrn_16_4", "augmentation": "flip,shift", "shift_pixels": 2}
STUDENT = {"model": "resnet20", "epochs": 15, "compression": "distill", "distill_cache": True}
SPARSITIES = (0.8, 0.6)
SHARES = (0.5, 0.45)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--folder", default="runs/chain")
    parser.add_argument("--teacher_epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = pathlib.Path(options.folder).absolute()
    flags = {"data": "fashion_mnist", "data_dir": pathlib.Path(options.data_dir).absolute(), "seed": options.seed,
             "batch_size": 128, "keep": "last", "validation_fraction": 0.05, "export": "float32,int8",
             "precision": "mixed_bfloat16", "compression_epochs": 6, "compression_learning_rate": 0.02}
    runs.run_all(folder, {"teacher": {**TEACHER, "epochs": options.teacher_epochs}}, flags)
    under = {"distill_teacher": folder / "teacher"}
    whole = {**STUDENT, **under, "initial_model": folder / "distill_1.0"}
    plan = {"distill_1.0": {**STUDENT, **under}}
    for sparsity in SPARSITIES:
        plan[f"distill_prune_{sparsity}"] = {**whole, "compression": "prune", "prune_sparsity": sparsity}
        plan[f"distill_prune_{sparsity}_quantize"] = {
            **whole, "compression": "quantize", "compression_epochs": 3,
            "precision": "float32",  # bfloat16 has no more bits than what is simulated
            "initial_model": folder / f"distill_prune_{sparsity}"}
    for share in SHARES:
        plan[f"distill_filters_{share}"] = {**whole, "compression": "filters", "filters_share": share,
                                            "compression_epochs": 10, "compression_learning_rate": 0.05}
    runs.run_all(folder, plan, flags)

    files = {(name, row["format"]): row for name in ("teacher", *plan)
             for row in variants.read_rows(folder / name / "report.csv")}
    teacher, student = files["teacher", "float32"], files["distill_1.0", "float32"]
    rows = [{"variant": name, "format": form, "accuracy": 100 * row["value"],
             "lost": 100 * (teacher["value"] - row["value"]), "parameters": row["parameters"],
             "nonzero": row["nonzero"], "multiply_adds": row["macs"], "gzip_bytes": row["gzip_bytes"],
             "times_smaller": teacher["gzip_bytes"] / row["gzip_bytes"], "latency_ms": row["latency_ms"],
             "times_faster_than_student": student["latency_ms"] / row["latency_ms"]}
            for (name, form), row in files.items() if form in ("float32", "int8")]
    variants.plot_sizes(
        [{**row, "variant": row["variant"].replace("distill_1.0", "ResNet-20").replace("distill_", ""),
          "value": row["accuracy"]} for row in rows], f"{plots.PICTURES}/compression_chain.png", "test accuracy, %",
        line=(rows[0]["accuracy"] - 1, "teacher less 1 point"))
    common.write("compression_chain", rows, speed=paired_latency(folder, [f"distill_filters_{s}" for s in SHARES]))


def paired_latency(folder, names, rounds=15):
    """[{variant, times_faster, low, high}] of float32 files against the student's, timed in alternation in LiteRT."""
    runners = {name: export.Runner(export.path_of(folder / name, "float32")) for name in ("distill_1.0", *names)}
    milliseconds = {name: [] for name in runners}
    for _ in range(rounds):
        for name, runner in runners.items():
            milliseconds[name].append(runner.latency(num_runs=200))
    results = []
    for name in names:
        low, ratio, high = common.ratio_interval(milliseconds["distill_1.0"], milliseconds[name])
        results.append({"variant": name, "times_faster": ratio, "low": low, "high": high})
    return results


if __name__ == "__main__":
    main()
