"""The architecture as a test: imports go down the floors, siblings do not know each other, nothing runs in a circle."""

import ast
from pathlib import Path

import pytest

import saddlescope

ROOT = Path(saddlescope.__file__).parent
FLOORS = [
    {"_checks", "_interrupts", "provenance"},
    {"landscapes", "store"},
    {"dynamics", "curvature"},
    {"stability", "diffusion", "optim"},
    {"training", "integrations"},
    {"plots", "sweeps", "findings"},
    {"report", "paper"},
    {"explorer"},
    {"cli"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def room_of(path):
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


def imported(path):
    """Return the package's own modules that a file imports, anywhere in it, as dotted names."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] == "saddlescope"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    room = room_of(path)
    assert room in FLOOR, f"{room} has no floor; give it one here and in the architecture"
    for name in imported(path):
        parts = name.split(".")
        assert len(parts) > 2 or parts[1] in FLOOR, f"{path} imports {name}; import the module that defines it"
        target = parts[1]
        assert target == room or FLOOR[target] < FLOOR[room], (
            f"{room} (floor {FLOOR[room]}) imports {target} ({FLOOR[target]})"
        )


def test_no_import_cycles():
    modules = {".".join(("saddlescope", *p.relative_to(ROOT).with_suffix("").parts)): p for p in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}

    def target(name):
        while name not in modules and "." in name:
            name = name.rpartition(".")[0]
        return name

    edges = {name: {target(x) for x in imported(path)} & modules.keys() - {name} for name, path in modules.items()}
    done, active = set(), []

    def visit(name):
        if name in active:
            raise AssertionError("import cycle: " + " -> ".join([*active[active.index(name) :], name]))
        if name not in done:
            active.append(name)
            for other in sorted(edges[name]):
                visit(other)
            done.add(active.pop())

    for name in sorted(edges):
        visit(name)


def test_the_torch_optimizer_and_its_twin_do_not_know_each_other():
    """Each is the test of the other, so they share no code."""
    for room, other in (("optim", "saddlescope.dynamics"), ("dynamics", "saddlescope.optim")):
        for path in (ROOT / room).rglob("*.py"):
            assert not [name for name in imported(path) if name.startswith(other)], path
