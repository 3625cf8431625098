"""The load: wrk, or clients of our own where it is the wrong one; `idle.py` beside it."""

import base64
import contextlib
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import peers
from processes import on_cpus
from start import HERE, BenchError
from workloads import Transport, Workload

BULK_BYTES = 1_000_000  # of an answer: longer ones are bulk.py's
SLACK = 1000  # such a part of a list may come and go: how much room there is, and the like
SLOW_BYTES_PER_S = 100_000
GRACE_S = 15.0
#: wrk waits so long for an answer, then counts an error: longer than the slowest peer takes.
ANSWER_S = 10


@dataclass(frozen=True)
class Outcome:
    """What the clients saw, and the processor time that they took. None: was not told."""

    requests: int
    errors: int
    seconds: float
    cpu_s: float
    size_bytes: int | None = None
    ttfb_us: int | None = None
    p50_us: int | None = None
    p99_us: int | None = None


def drive(workload: Workload, port: int, seconds: int, cpus: Collection[int]) -> Outcome:
    """Put load on a server for some seconds.

    Raises: BenchError, also when fewer bytes have come than so many answers have.
    """
    command = _command(workload, port, seconds)
    before_s = _cpu_s()
    try:
        with on_cpus(cpus):
            done = subprocess.run(
                command,
                input=_lines(workload),
                capture_output=True,
                text=True,
                timeout=seconds + GRACE_S,
                check=True,
            )
        said = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise BenchError("the load did not come to an end") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().rpartition("\n")[2]
        raise BenchError(f"the load failed: {said}") from None
    except (ValueError, IndexError):
        raise BenchError(f"the load was not understood: {done.stdout[-200:]}") from None
    outcome = Outcome(**said, cpu_s=_cpu_s() - before_s)
    if not outcome.requests:
        raise BenchError(f"answered nothing ({outcome.errors} errors)")
    if outcome.size_bytes is not None:
        short = outcome.requests * workload.body_length - outcome.size_bytes
        if short > 0:
            raise BenchError(f"{short} bytes are missing in {outcome.requests} answers")
    return outcome


def _command(workload: Workload, port: int, seconds: int) -> list[str]:
    words = [str(number) for number in (port, seconds, workload.connections)]
    if workload.transport is not Transport.HTTP:
        return [sys.executable, str(HERE / "client.py"), *words, workload.transport.value]
    if workload.answer is None or workload.body_length > BULK_BYTES:
        words[1] = "0" if workload.before else words[1]
        sizes = (workload.body_length, workload.body_length // SLACK if workload.entries else 0)
        return [sys.executable, str(HERE / "bulk.py"), *words, *map(str, sizes)]
    if not shutil.which("wrk"):
        raise BenchError("wrk is not installed (apt-get install wrk)")
    command = ["wrk", "-t1", f"-c{workload.connections}", f"-d{seconds}s", f"--timeout={ANSWER_S}s"]
    for field in workload.headers.items():
        command += ["-H", ": ".join(field)]
    command += ["-s", str(HERE / "outcome.lua"), f"http://127.0.0.1:{port}{workload.path}"]
    return [*command, "--", str(workload.body_bytes), *["varied"] * workload.varied]


def _lines(workload: Workload) -> str:
    # What is sent, and to `client.py` how the answer must end; wrk reads nothing.
    if workload.answer is None or workload.body_length > BULK_BYTES:
        return _coded(*workload.requests)
    return _coded(workload.request, workload.answer[-len(peers.LINE) :])


def _coded(*parts: bytes) -> str:
    return "".join(base64.b64encode(part).decode() + "\n" for part in parts)


@dataclass
class Idle:
    """Connections beside the load; kept: of these were open, or had their rate, at the end."""

    wanted: int
    kept: int = 0


@contextlib.contextmanager
def idle(workload: Workload, port: int, count: int, cpus: Collection[int]) -> Iterator[Idle]:
    """Hold so many connections, idle or slow, while the block runs."""
    connections = Idle(count)
    if not count:
        yield connections
        return
    command = [sys.executable, str(HERE / "idle.py"), str(port), str(count)]
    lines = _lines(workload)
    if workload.slow_path:
        command = [sys.executable, str(HERE / "slow.py"), *command[2:], str(SLOW_BYTES_PER_S)]
        lines = _coded(replace(workload, path=workload.slow_path).request)
    with (
        on_cpus(cpus),
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            process.stdin.write(lines)
            process.stdin.flush()
            process.stdout.readline()  # they are open
            yield connections
            connections.kept = int(process.communicate()[0] or 0)
        finally:
            process.kill()


def _cpu_s() -> float:
    # Of the children that have ended and been waited for: no server is among them meanwhile.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
