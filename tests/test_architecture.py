"""The rules of docs/architecture.md that can be read off the source."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted(path for top in ("apps", "layers", "strategies") for path in (ROOT / top).rglob("*.py"))
APPS = sorted(path.parent for path in (ROOT / "apps").glob("*/config.py") if path.parent.name != "common")
FORBIDDEN = {"layers": ("strategies", "apps"), "strategies": ("apps",), "apps": ()}


def imports(path):
    """Dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_downwards(path):
    top, *rest = path.relative_to(ROOT).parts
    for module in imports(path):
        parts = module.split(".")
        assert parts[0] not in FORBIDDEN[top], f"{name_of(path)} imports {module}"
        assert module not in ("keras", "tensorflow.keras"), f"{name_of(path)} imports {module}, not tf_keras"
        if top == "apps" and parts[0] == "apps" and len(rest) > 1 and len(parts) > 1:
            assert parts[1] in ("common", rest[0]), f"{name_of(path)} imports another app: {module}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_source_habits(path):
    tree = ast.parse(path.read_text())
    assert path.name == "__init__.py" and not tree.body or ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"{name_of(path)}:{node.lineno} asserts; raise an error that says why"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("tf", "keras"), f"{name_of(path)}:{node.lineno} uses tf.keras"


def test_layers_do_not_know_of_devices_or_precision():
    words = ("tf.device", "MirroredStrategy", "set_global_policy", "absl")
    for path in SOURCES:
        if path.is_relative_to(ROOT / "layers"):
            found = [word for word in words if word in path.read_text()]
            assert not found, f"{name_of(path)} mentions {found}"


OWN_LOOP = ("alphago", "reinforcement")  # act, store, learn: no data set, and networks beside environments


@pytest.mark.parametrize("folder", APPS, ids=name_of)
def test_every_app_has_the_same_shape(folder):
    learns_from_data = folder.name not in OWN_LOOP
    for name in ("__init__.py", "config.py", "README.md", *(("data.py", "models.py") if learns_from_data else ())):
        assert (folder / name).exists(), f"{folder.name} has no {name}"
    assert list(folder.glob("train*.py"))


def test_public_functions_have_docstrings():
    lacking = []
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            is_public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if is_public and node.name != "main" and not ast.get_docstring(node):
                lacking.append(f"{name_of(path)}:{node.lineno} {node.name}")
    assert not lacking
