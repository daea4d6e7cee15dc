"""The full matrix: every entry of the catalogue × every property. `make conformance` runs what is missing or stale.

The result is `tests/conformance/matrix.json`: for each entry the hash of the source it depends on, and for each
property `pass` with the figures measured, or `unsupported` with its reason. It is written after each cell, so an
interrupted run goes on where it was. `make test` runs one representative of each family and checks that no row is
missing or stale.
"""

import argparse
import ast
import functools
import hashlib
import importlib.util
import json
import pathlib
import sys
import time

from tests.conformance.catalogue import CATALOGUE
from tests.conformance.properties import PROPERTIES

RESULTS = pathlib.Path(__file__).with_name("matrix.json")


def source_hash(entry):
    """Hash of the code, not the words, of the modules that an entry is made of and of the properties it is held to."""
    digest = hashlib.sha256()
    for name in (*entry.source, "tests.conformance.properties"):
        digest.update(code_of(name).encode())
    return digest.hexdigest()[:16]


@functools.cache
def code_of(module):
    """The syntax tree of a module without docstrings, as text: comments and layout do not count."""
    tree = ast.parse(pathlib.Path(importlib.util.find_spec(module).origin).read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def read_results():
    """Results so far, {} when there are none."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def missing_cells(results):
    """(entry, property) pairs that have not been run on the present source."""
    cells = []
    for entry in CATALOGUE:
        row = results.get(entry.name, {})
        fresh = row.get("source") == source_hash(entry)
        cells += [(entry, name) for name in PROPERTIES if not fresh or name not in row.get("properties", {})]
    return cells


def run_cell(entry, name):
    """Runs one property: the figures it measured, or the reason why it does not apply.

    Raises:
        AssertionError: it does not hold.
    """
    if name in entry.unsupported:
        return {"status": "unsupported", "reason": entry.unsupported[name]}
    return {"status": "pass", **{k: float(f"{v:.3g}") for k, v in PROPERTIES[name](entry).items()}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run entries whose name contains this")
    only, results, failures = parser.parse_args().only, read_results(), []
    results = {entry.name: results[entry.name] for entry in CATALOGUE if entry.name in results}
    cells = [(entry, name) for entry, name in missing_cells(results) if only in entry.name]
    for number, (entry, name) in enumerate(cells, 1):
        row = results.setdefault(entry.name, {"source": "", "properties": {}})
        if row["source"] != source_hash(entry):
            row.update(source=source_hash(entry), properties={})
        began = time.perf_counter()
        try:
            row["properties"][name] = run_cell(entry, name)
            outcome = row["properties"][name]["status"]
        except Exception as error:
            failures.append(f"{entry.name} {name}: {' '.join(str(error).split())[:300]}")
            outcome = f"FAIL {failures[-1]}"
        seconds = time.perf_counter() - began
        print(f"[{number}/{len(cells)}] {entry.name} {name}: {outcome} ({seconds:.1f} s)", flush=True)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(f"{len(cells) - len(failures)} passed, {len(failures)} failed; {RESULTS}")
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
