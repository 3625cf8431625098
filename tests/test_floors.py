"""Who may import whom: the floors of the house, read from the imports."""

import ast
from pathlib import Path

import prefork

#: A module imports from floors below its own, or public names of its own floor.
FLOORS = {
    0: "errors log systemd cpus scoreboard signals streams titles loop",
    1: "system fleet sockets clients acceptor desk",
    2: "worker children",
    3: "master",
    4: "mixin",
    5: "socketserver target files",
    6: "servers handlers greeting",
    7: "listeners arguments",
    8: "cli __main__",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}

#: These know a server only by its methods.
NO_HTTP = {"fleet", "master", "worker", "children", "clients", "acceptor", "mixin"}

FOLDER = Path(prefork.__file__).parent
MODULES = {path.stem: ast.parse(path.read_text()) for path in FOLDER.glob("*.py")}


def imports(tree: ast.Module) -> set[tuple[str, str]]:
    """Return (module, name) of each import, (module, "") for a plain one."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
    return found


def own_imports(tree: ast.Module) -> set[tuple[str, str]]:
    """Return (our module, name) of each import from the package."""
    found = set()
    for module, name in imports(tree):
        if module == "prefork":
            found.add((name, "")) if name in MODULES else None
        elif module.startswith("prefork."):
            found.add((module.removeprefix("prefork."), name))
    return found


def test_every_module_has_a_floor():
    assert set(MODULES) - {"__init__"} == set(FLOOR_OF)


def test_no_module_imports_from_a_floor_above():
    wrong = [
        f"{module} (floor {FLOOR_OF[module]}) imports {other} (floor {FLOOR_OF[other]})"
        for module, tree in MODULES.items()
        if module != "__init__"
        for other, _ in own_imports(tree)
        if FLOOR_OF[other] > FLOOR_OF[module]
    ]
    assert wrong == []


def test_no_module_takes_private_names_of_another():
    wrong = [
        f"{module} imports {other}.{name}"
        for module, tree in MODULES.items()
        for other, name in own_imports(tree)
        if name.startswith("_")
    ]
    assert wrong == []


def test_the_machinery_does_not_know_http():
    wrong = [
        f"{module} imports {other}"
        for module in NO_HTTP
        for other, _ in imports(MODULES[module])
        if other.split(".")[0] in ("http", "wsgiref", "email", "html")
    ]
    assert wrong == []


def test_only_one_module_forks_and_waits():
    """No other module names os.fork or os.wait*; only the greeting's look-up uses subprocess."""
    wrong = [
        f"{module}: os.{node.attr}"
        for module, tree in MODULES.items()
        if module != "children"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and node.attr in ("fork", "forkpty", "wait", "waitpid", "waitid", "wait3", "wait4")
    ]
    assert wrong == []
    users = {m for m, tree in MODULES.items() if ("subprocess", "") in imports(tree)}
    assert users == {"greeting"}
