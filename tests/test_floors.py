"""Who may import whom: the floors of the house, read from the imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import prefork

#: A module imports from floors below its own, or public names of its own floor.
FLOORS = {
    0: "amounts columns cpus errors files http.cgi.output http.cgi.process http.conditions "
    "http.file_wrapper http.forwarded http.grammar http.handler http.outbox http.proxy "
    "http.ranges http.scope log loop policy programs qr reload.image reports scoreboard "
    "service.unittext share.archive.arcnames share.etags share.hosts share.looks "
    "share.names share.openat2 share.query share.render share.types shortage signals "
    "streams titles",
    1: "acceptor children clients config.kinds config.problems control.protocol desk detach "
    "fleet http.cgi.words http.chunks http.codings http.filecache http.folder http.short "
    "http.wire life logs.records pidfile privileges service.files share.archive.identity "
    "share.cachedir share.errors share.trail share.ways sockets system systemd visitors",
    2: "config.addresses config.known config.master config.toml config.units control.callers "
    "control.places control.remote control.table hands http.access http.cgi.scripts "
    "http.chunked http.client http.kept http.lenient http.limits http.pool http.response "
    "http.spool listeners logs.files logs.sinks outfit queues roles share.archive.crcfile "
    "share.archive.plan share.content share.jail",
    3: "bulletin config.expand config.kind config.server control.finding control.server "
    "control.top figures http.body http.door http.heads logs.events logs.relay "
    "reload.handover service.shares share.archive.crcs share.archive.tar "
    "share.archive.walk share.archive.zip share.readme",
    4: "charter commands config.checks config.forms config.hints config.meant config.schema "
    "config.sources http.byteranges http.exchange http.lazy http.plans http.visit "
    "logs.keeper reload.holding reload.rehearsal share.archive.stream share.listing "
    "worker",
    5: "config.reference config.texts config.values http.census http.cgi.environ "
    "http.cgi.feed http.cgi.sender http.connection http.downloads http.environ http.hooks "
    "http.representation offices pool share.request share.rows share.sending",
    6: "config.reader config.show http.cgi.relay http.gateway http.patience master options "
    "share.archive.archives share.compression share.feeds share.view",
    7: "config.loader http.cgi.run mixin reload.succession share.files share.page share.share",
    8: "config http.cgi.handler reload.reload share.folders socketserver",
    9: "http.adopt service.units",
    10: "http.lobby service.install share.kept",
    11: "http.engine share.handler",
    12: "http.server",
    13: "http.main wsgi",
    14: "http.__main__ target",
    15: "foreign greeting handlers",
    16: "front servers",
    17: "concurrency plan",
    18: "arguments loading upkeep",
    19: "overseer planning",
    20: "checking daemon",
    21: "cli",
    22: "__main__",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}

#: These know a server only by its methods.
NO_HTTP = {
    "fleet",
    "master",
    "pool",
    "reports",
    "worker",
    "roles",
    "children",
    "clients",
    "acceptor",
    "mixin",
    "loop",
    "desk",
}

#: These read and write bytes, and know neither sockets nor clocks.
SANS_IO = {
    "http.grammar",
    "http.wire",
    "http.chunked",
    "http.proxy",
    "http.lenient",
    "http.cgi.output",
    "http.byteranges",
    "http.codings",
    "http.conditions",
    "http.ranges",
    "http.representation",
}

FOLDER = Path(prefork.__file__).parent
MODULES = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts): ast.parse(path.read_text())
    for path in FOLDER.rglob("*.py")
}
MODULES["config"] = MODULES.pop("config.__init__")  # imported as one: its modules lie below it
PACKAGES = {name for name in MODULES if name.endswith("__init__")}  # names put together, or none


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it, without what only the type checker reads."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk(child)


def imports(tree: ast.Module) -> set[tuple[str, str]]:
    """Return (module, name) of each import that is made, (module, "") for a plain one."""
    found = set()
    for node in walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
    return found


def own_imports(tree: ast.Module) -> set[tuple[str, str]]:
    """Return (our module, name) of each import from the package."""
    found = set()
    for module, name in imports(tree):
        if module == "prefork" or module.startswith("prefork."):
            package = module.removeprefix("prefork").lstrip(".")
            inner = f"{package}.{name}".lstrip(".")
            if inner in MODULES:
                found.add((inner, ""))
            elif package:
                found.add((package, name))
    return found


def test_every_module_has_a_floor():
    assert set(MODULES) - PACKAGES == set(FLOOR_OF)


def test_no_module_imports_from_a_floor_above():
    wrong = [
        f"{module} (floor {FLOOR_OF[module]}) imports {other} (floor {FLOOR_OF[other]})"
        for module, tree in MODULES.items()
        if module not in PACKAGES
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


def test_what_only_parses_knows_neither_sockets_nor_clocks():
    wrong = [
        f"{module} imports {other}.{name}"
        for module in SANS_IO
        for other, name in imports(MODULES[module])
        if other in ("time", "select", "os", "asyncio")
        or (other == "socket" and module != "http.proxy")  # which reads addresses with it
    ]
    assert wrong == []


def test_only_one_module_forks_and_waits():
    """Workers come from one place; what becomes a daemon forks itself, once, before all else."""
    wrong = [
        f"{module}: os.{node.attr}"
        for module, tree in MODULES.items()
        if module not in ("children", "detach")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and node.attr in ("fork", "forkpty", "wait", "waitpid", "waitid", "wait3", "wait4")
    ]
    assert wrong == []
    users = {m for m, tree in MODULES.items() if ("subprocess", "") in imports(tree)}
    # The last two: scripts are other programs, started by vfork and execve, never by a bare fork.
    assert users == {
        "greeting",
        "reload.rehearsal",
        "service.install",
        "http.cgi.feed",
        "http.cgi.process",
    }
