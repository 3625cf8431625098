"""The load: wrk for HTTP where it is installed, else `client.py`."""

import base64
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from processes import BenchError, on_cpus
from workloads import Workload

GRACE_S = 10.0  # wrk waits two seconds for an answer

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """What the clients saw, and the processor time that they took."""

    requests: int
    errors: int
    seconds: float
    cpu_s: float


def generator(workload: Workload) -> str:
    """Return what will make the load."""
    return "wrk" if workload.path is not None and shutil.which("wrk") else "client.py"


def drive(workload: Workload, port: int, seconds: int, cpus: Collection[int]) -> Outcome:
    """Put load on a server for some seconds."""
    stdin = ""
    if generator(workload) == "wrk":
        url = f"http://127.0.0.1:{port}{workload.path}"
        command = [
            "wrk",
            "-t1",
            f"-c{workload.connections}",
            f"-d{seconds}s",
            "-H",
            "Connection: close",
        ]
        command += ["-s", str(HERE / "outcome.lua"), url]
    else:
        stdin = "".join(
            base64.b64encode(part).decode() + "\n" for part in (workload.request, workload.reply)
        )
        words = (port, seconds, workload.connections)
        command = [sys.executable, str(HERE / "client.py"), *map(str, words)]
    before_s = _cpu_s()
    try:
        with on_cpus(cpus):
            done = subprocess.run(
                command,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=seconds + GRACE_S,
                check=True,
            )
        said = json.loads(done.stdout.splitlines()[-1])
        return Outcome(**said, cpu_s=_cpu_s() - before_s)
    except subprocess.TimeoutExpired:
        raise BenchError("the load did not come to an end") from None
    except (subprocess.CalledProcessError, ValueError, IndexError) as error:
        raise BenchError(f"the load failed: {error}") from None


def _cpu_s() -> float:
    # Of the children that have ended and been waited for: no server is among them meanwhile.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
