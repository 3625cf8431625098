"""Which master is meant: by its config, by its control socket, or because there is only one.

The calling process of a command. It asks each candidate whose it is, and
nothing else of it.
"""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from prefork.control.places import found_control_paths, is_trusted
from prefork.control.protocol import Status
from prefork.control.remote import NobodyThereError, Remote, RemoteError, ask
from prefork.errors import PreforkError


def find_of_config(config: Path, paths: Sequence[Path], uid: int) -> Path:
    """Return the first of the default places of a config where its master answers.

    Another config of the same file name, elsewhere, has the same places: its
    master must not be taken for this one's.
    Raises: RemoteError with what was found instead.
    """
    wrong: list[str] = []
    for path in paths:
        if not is_trusted(path, uid):
            continue
        try:
            other = _config_at(path)
        except NobodyThereError:
            continue
        except PreforkError as error:
            wrong.append(str(error))
            continue
        if _is_same(config, Path(other)):
            return path
        wrong.append(f"the master at {path} is that of {other}")
    tried = ", ".join(map(str, paths))
    raise RemoteError(f"no master of {config} runs: {'; '.join(wrong) or f'nothing at {tried}'}")


def find_only(uid: int) -> Path:
    """Return the control socket of the one master that runs, as far as this user can see.

    Raises: RemoteError when there is none, or more than one.
    """
    alive, wrong = [], []
    for path in found_control_paths(uid):
        try:
            Remote(path).__exit__()
        except RemoteError as error:
            wrong.append(str(error))
        else:
            alive.append(path)
    if len(alive) == 1:
        return alive[0]
    if alive:
        names = ", ".join(map(str, alive))
        raise RemoteError(f"{len(alive)} masters run: name a CONFIG, or --socket one of {names}")
    hint = f" ({'; '.join(wrong)})" if wrong else ""
    raise RemoteError(f"no master runs in the default places{hint}: name its CONFIG, or --socket")


def named_control(config: str, control: Callable[[str], str | None]) -> str | None:
    """Return where a config says that its control socket is; "off": nowhere; None: nothing.

    control: reads the config, and may fail: one that is wrong, or whose
    environment is the service's alone, must not come between a person and the
    master that runs.
    """
    try:
        return control(config)
    except (PreforkError, OSError):
        pass
    try:
        named = tomllib.loads(Path(config).read_text("utf-8"))["master"]["control"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not isinstance(named, str) or "${" in named:
        return None
    return named if named == "off" else str(Path(config).parent / named)


def _config_at(path: Path) -> str:
    # Not by decode_status(): a master of an older version must be found, to be told to reload.
    status = ask(path, Status()).get("status")
    config = status.get("config") if isinstance(status, dict) else None
    if not isinstance(config, str):
        raise RemoteError(f"the master at {path} does not tell whose it is")
    return config


def _is_same(config: Path, other: Path) -> bool:
    try:
        return config.samefile(other)
    except OSError:  # it has gone, or is not ours to see
        return config.absolute() == other.absolute()
