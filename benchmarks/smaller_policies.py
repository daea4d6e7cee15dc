"""How small a policy can get: PPO's for CartPole, imitated by itself with fewer bits and by a network of 58 weights.

    python -m benchmarks.smaller_policies [--folder=runs/policies] [--seeds=1]

Returns are of each file in 100 fresh episodes (Rusu et al. 2016, arXiv 1511.06295, imitate likewise).
"""

import argparse
import pathlib

import numpy as np

from apps.common.variants import read_rows
from benchmarks import common, runs

STUDENTS = {"the teacher itself, pruned, 8 bits": {"compression": "prune,quantize"}, "8 units": {"units": 8},
            "8 units, 4 bits": {"units": 8, "compression": "low_bit"}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/policies")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    folder, seeds = pathlib.Path(options.folder).absolute(), range(options.seeds)
    flags = {"export": "float32,int8", "verbose": 0}
    runs.run_all(folder, {f"teacher_{seed}": {"seed": seed, "env": "cart_pole", "algorithm": "ppo"} for seed in seeds},
                 flags, app="reinforcement", metric="test_return")
    names = {"teacher": "teacher", **{student: student.replace(", ", "_").replace(" ", "_") for student in STUDENTS}}
    runs.run_all(folder, {f"{names[student]}_{seed}": {"seed": seed, "teacher": folder / f"teacher_{seed}", **changes}
                          for student, changes in STUDENTS.items() for seed in seeds},
                 flags, app="reinforcement", program="distill", metric="test_return")
    rows = []
    for student, name in names.items():
        found = [{row["format"]: row for row in read_rows(folder / f"{name}_{seed}" / "report.csv")} for seed in seeds]
        for form in found[0]:
            returns = np.array([files[form]["value"] for files in found])
            rows.append({"student": student, "format": form, "return": float(returns.mean()),
                         "worst": float(returns.min()), "parameters": found[0][form]["parameters"],
                         "nonzero": found[0][form]["nonzero"], "bytes": found[0][form]["bytes"],
                         "gzip_bytes": found[0][form]["gzip_bytes"]})
    common.write("smaller_policies", rows)


if __name__ == "__main__":
    main()
