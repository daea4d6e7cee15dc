"""`make benchmark`: the benchmarks that need no data set, one after another, each in a process. It takes hours.

    python -m benchmarks.run [--only=throughput]

By themselves are run: those that need a data set (`--data_dir`), `cifar_table`, `deviation_pruning`, `dense_pruning`,
`low_bit_table`, `distillation_study`, `compression_chain`, `async_accuracy`, `translation_table` and, after it,
`translation_files`, `character_models`, `vanishing_gradients`; and those beside other programs, `search_benchmark`,
`reinforcement_speed` (`--peers_python`) and `zero_go --size=9`, `gtp_controller` (GNU Go).
"""

import argparse
import subprocess
import sys

BENCHMARKS = ("onednn", "throughput", "input_pipeline", "compression_overhead", "precision", "normalization_study",
              "ensemble_study", "zoo_digits", "zoo_sequences", "step_rounding", "distribution_speed --study=overhead",
              "distribution_speed --study=straggler", "scaling_model --measure", "chaos", "stale_gradients",
              "federated_study", "date_translation", "transformer_speed", "environment_speed", "exploration_study",
              "reinforcement_learning", "go_rules", "zero_tic_tac_toe", "zero_go --size=5")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run those whose name contains this")
    only = parser.parse_args().only
    failed = []
    for name in (n for n in BENCHMARKS if only in n):
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", *f"benchmarks.{name}".split()]).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
