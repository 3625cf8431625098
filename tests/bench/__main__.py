"""Measure prefork beside its peers, in the same run: `python tests/bench`.

Requests per second, and what a request costs the server in microseconds of processor time (user
and system, of the whole process tree). The servers of a workload all run at once and are put
under load one after the other, round after round; each figure is the median of the rounds.
Needs prefork installed; uses wrk for HTTP if that is installed.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from load import drive, generator
from peers import QUEUE, WORKERS
from processes import BenchError, Server, check
from report import Row, Sample, table
from workloads import Workload, all_workloads

import prefork

WARM_UP = 50  # requests
UNPINNED_ROUNDS = 1
EXPLANATION = """\
x: ratio to the first line. server, client: how much of a processor each side used; pinned, the
one near 100% sets req/s (if none is, other programs took part). request_queue_size: of A and C."""


class Layout:
    """Which processors do what; empty sets leave it to the kernel."""

    def __init__(self, name: str, server: set[int], client: set[int], rounds: int):
        self.name, self.server, self.client, self.rounds = name, server, client, rounds

    def __str__(self):
        if not self.server:
            return f"unpinned, {len(os.sched_getaffinity(0))} CPUs for server and client"
        return f"server on CPU {min(self.server)}, client on CPU {min(self.client)}"


def layouts(rounds: int) -> list[Layout]:
    """Return the runs: with two processors the main one is pinned."""
    unpinned = Layout("unpinned", set(), set(), rounds)
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        return [unpinned]
    unpinned.rounds = min(rounds, UNPINNED_ROUNDS)
    return [Layout("pinned", {cpus[-1]}, {cpus[0]}, rounds), unpinned]


def measure(workload: Workload, layout: Layout, seconds: int, folder: Path) -> list[Row]:
    """Put all servers of a workload under load in turns."""
    rows = [Row(peer.name) for peer in workload.peers]
    with ExitStack() as stack:
        running: list[tuple[Row, Server, int]] = []
        for row, peer in zip(rows, workload.peers, strict=True):
            server = stack.enter_context(Server(peer, folder, layout.server))
            try:
                port = server.wait_port()
                for _ in range(WARM_UP):
                    check(port, workload)
            except BenchError as failure:
                row.failure = str(failure)
            else:
                running.append((row, server, port))
        for number in range(layout.rounds):
            turn = number % max(1, len(running))  # nobody is always the first
            for row, server, port in running[turn:] + running[:turn]:
                if row.failure is None:
                    try:
                        row.samples.append(sample(workload, server, port, seconds, layout))
                    except BenchError as failure:
                        row.failure = str(failure)
    return rows


def sample(workload: Workload, server: Server, port: int, seconds: int, layout: Layout) -> Sample:
    before_s = server.cpu_s()
    outcome = drive(workload, port, seconds, layout.client)
    cpu_s = server.cpu_s() - before_s
    if not outcome.requests:
        raise BenchError(f"answered nothing ({outcome.errors} errors)")
    return Sample(outcome.requests, outcome.errors, outcome.seconds, cpu_s, outcome.cpu_s)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/bench", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=int, default=1, help="load per server and round (default: 1)")
    add("--rounds", type=int, default=5, help="rounds of the pinned run (default: 5)")
    add("--only", metavar="LETTERS", default="ABC", help="workloads, such as AC (default: all)")
    add("--json", metavar="FILE", type=Path, help="write all samples there, too")
    options = parser.parse_args()
    if options.seconds < 1 or options.rounds < 1:
        parser.error("--seconds and --rounds must be 1 or more")
    return options


def main() -> int:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped, too
    about = {
        "prefork": prefork.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load average": round(os.getloadavg()[0], 1),  # of other programs; above 0, they disturb
        "workers": WORKERS,
        "request_queue_size": QUEUE,
        "seconds": options.seconds,
        "rounds": options.rounds,
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(EXPLANATION)
    began_s = time.monotonic()
    results = []
    with tempfile.TemporaryDirectory(prefix="prefork-bench-") as name:
        folder = Path(name)
        chosen = [w for w in all_workloads(folder) if w.letter in options.only.upper()]
        for layout in layouts(options.rounds):
            for workload in chosen:
                by = generator(workload)
                print(f"\n{workload.letter}. {workload.title}")
                print(f"   ({layout}; load by {by}, {workload.connections} connections)")
                rows = measure(workload, layout, options.seconds, folder)
                print(table(rows), flush=True)
                results.append(
                    {
                        "workload": workload.letter,
                        "title": workload.title,
                        "layout": layout.name,
                        "server_cpus": sorted(layout.server),
                        "client_cpus": sorted(layout.client),
                        "load": by,
                        "connections": workload.connections,
                        "servers": [row.as_json() for row in rows],
                    }
                )
    print(f"\n{time.monotonic() - began_s:.0f} s")
    if options.json:
        options.json.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")
    return int(any(server["failure"] for result in results for server in result["servers"]))


if __name__ == "__main__":
    sys.exit(main())
