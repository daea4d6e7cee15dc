"""The full matrix: every entry of the catalogue × every property. `make conformance` runs what is missing, then what
is stale: run on source that has changed since.

The result is `tests/conformance/matrix.json`: for each entry and property `pass` with the figures measured,
`unsupported` with its reason, or `same` as another entry of the same blocks, and the hash of the source that the cell
depends on. It is written after each cell, so an interrupted run goes on where it was. `make test` runs one
representative of each family.
"""

import apps  # noqa: F401  isort: skip

import argparse
import ast
import functools
import hashlib
import importlib.util
import io
import json
import pathlib
import sys
import time
import tokenize

from strategies.distribution import devices
from tests.conformance import distribution_properties, properties
from tests.conformance.catalogue import CATALOGUE

PROPERTIES = {**properties.PROPERTIES, **distribution_properties.PROPERTIES}
# {property: {entry: another of the same blocks, whose result stands for it}}. XLA takes tens of minutes for a program
# of hundreds of concatenations.
SAME = {**dict.fromkeys(distribution_properties.PROPERTIES, distribution_properties.SAME_BLOCKS),
        "xla": {name: distribution_properties.SAME_BLOCKS[name]
                for name in ("densenet_bc_250_24", "densenet169", "densenet201")}}
_ALL = ("strategies.distribution.segments", "strategies.distribution.single", "strategies.replacing",
        "strategies.distribution.micro_batches", "tests.strategies.distribution.replicas")
_REPLICAS = ("strategies.distribution.synchronous", "strategies.distribution.sharing", *_ALL)
# What a property depends on besides the entry and the module that it stands in.
USED_BY = {
    "replicas": _REPLICAS,
    "stages": ("strategies.distribution.pipeline", *_ALL),
    "mesh": ("strategies.distribution.model_parallel", "strategies.distribution.held", *_ALL),
    "processes": ("strategies.distribution.multi_worker", "tests.conformance.on_processes", *_REPLICAS),
    "servers": ("strategies.distribution.asynchronous", "strategies.distribution.staleness",
                "tests.conformance.on_processes", *_ALL)}
RESULTS = pathlib.Path(__file__).with_name("matrix.json")


def cell_hash(entry, name):
    """Hash of what a cell's result depends on: the code, not the words, of the modules that the entry is made of, of
    the property, and of what the properties share. A new property leaves the results of the others fresh.
    """
    digest = hashlib.sha256()
    module = PROPERTIES[name].__module__
    for source in (*entry.source, *USED_BY.get(name, ())):
        digest.update(code_of(source).encode())
    shared, functions = split_properties(module)
    digest.update((shared + functions[PROPERTIES[name].__name__]).encode())
    return digest.hexdigest()[:16]


@functools.cache
def split_properties(module):
    """Code of a module of properties: (functions that they share, {name of a property's function: its code})."""
    path = pathlib.Path(importlib.util.find_spec(module).origin)
    lines = _code_lines(path)
    code = {node.name: _words(lines[node.lineno - 1:node.end_lineno]) for node in ast.parse(path.read_text()).body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    functions = {function.__name__: code.pop(function.__name__) for function in PROPERTIES.values()
                 if function.__module__ == module}
    return "".join(code.values()), functions


@functools.cache
def code_of(module):
    """The text of a module without docstrings, comments and layout, the same under every version of Python."""
    return _words(_code_lines(pathlib.Path(importlib.util.find_spec(module).origin)))


def _code_lines(path):
    """The lines of a file, with nothing in the place of docstrings and comments."""
    text = path.read_text()
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines[docstring.lineno - 1:docstring.end_lineno] = [""] * (docstring.end_lineno - docstring.lineno + 1)
    return lines


def _words(lines):
    return " ".join(" ".join(lines).split())


def read_results():
    """Results so far, {} when there are none."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def missing_cells(results):
    """(entry, property) pairs that have never been run."""
    return [(entry, name) for entry in CATALOGUE for name in PROPERTIES if name not in results.get(entry.name, {})]


def stale_cells(results):
    """(entry, property) pairs that have been run, but not on the present source."""
    return [(entry, name) for entry in CATALOGUE for name in PROPERTIES
            if results.get(entry.name, {}).get(name, {}).get("source", "") not in ("", cell_hash(entry, name))]


def run_cell(entry, name):
    """Runs one property: the figures it measured, or the reason why it does not apply.

    Raises:
        AssertionError: it does not hold.
    """
    source = {"source": cell_hash(entry, name)}
    if entry.name in SAME.get(name, {}):
        return {"status": "same", "as": SAME[name][entry.name], **source}
    if name in entry.unsupported:
        return {"status": "unsupported", "reason": entry.unsupported[name], **source}
    return {"status": "pass", **{k: float(f"{v:.3g}") for k, v in PROPERTIES[name](entry).items()}, **source}


def main():
    devices.local_devices(distribution_properties.NUM_DEVICES)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run entries whose name contains this")
    only, results, failures = parser.parse_args().only, read_results(), []
    results = {entry.name: {name: cell for name, cell in results.get(entry.name, {}).items() if name in PROPERTIES}
               for entry in CATALOGUE}  # what is no longer in the catalogue goes
    missing, stale = missing_cells(results), stale_cells(results)
    print(f"{len(missing)} cells are missing, {len(stale)} stale")
    cells = [(entry, name) for entry, name in missing + stale if only in entry.name]
    for number, (entry, name) in enumerate(cells, 1):
        results[entry.name].pop(name, None)
        began = time.perf_counter()
        try:
            results[entry.name][name] = run_cell(entry, name)
            outcome = results[entry.name][name]["status"]
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
