"""Measure prefork beside its peers, in the same run: `python tests/bench`.

Requests per second, and what a request costs the server in microseconds of processor time (user
and system, of the whole process tree). The servers of a workload all run at once, on one
processor, and are put under load from another one after the other, round after round; each
figure is the median of the rounds. All have their default settings and one worker process; what
is set is in `commands.py`. A server that is not installed is reported (`--install` gets them).
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import resource
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import install
import share
from chart import chart
from load import drive, idle
from processes import Server, free_port
from report import EXPLANATION, Row, Sample, as_json, table
from start import BenchError, Peer, Start, require
from workloads import GROUPS, Workload, all_workloads


class Bench:
    """How to measure: where, how long, how often."""

    def __init__(self, folder: Path, site: Path, seconds: int, rounds: int):
        self._folder, self._site = folder, site
        self._seconds, self._rounds = seconds, rounds
        cpus = sorted(os.sched_getaffinity(0))
        # With one processor the two sides share it, and only the cost of a request tells.
        self._server_cpus, self._client_cpus = {cpus[-1]}, {cpus[0]}

    def measure(self, workload: Workload) -> list[Row]:
        """Put all servers of a workload under load in turns."""
        rows = []
        with ExitStack() as stack:
            running: list[tuple[Server, Workload, list[Row]]] = []
            for peer in workload.peers:
                own = [Row(peer.name, peer.workers, count) for count in workload.idle]
                for row in own:
                    row.beside = "slow" if workload.slow_path else "idle"
                rows += own
                try:
                    port = free_port()
                    server = Server(
                        peer.program(self._start(port, peer, workload)),
                        port,
                        self._folder,
                        self._server_cpus,
                    )
                    known = stack.enter_context(server).wait_ready(workload.asked_of(peer))
                except BenchError as failure:
                    for row in own:
                        row.failure = str(failure)
                else:
                    running.append((server, known, own))
                    for row in own:
                        row.note = known.note
            for number in range(self._rounds):
                turn = number % max(1, len(running))  # nobody is always the first
                for server, known, own in running[turn:] + running[:turn]:
                    for row in own:
                        self._add_sample(row, server, known)
        return rows

    def _start(self, port: int, peer: Peer, workload: Workload) -> Start:
        for name in workload.requires:
            require(name)
        return Start(port, self._site, self._folder, peer.workers, workload.log, workload.app)

    def _add_sample(self, row: Row, server: Server, workload: Workload) -> None:
        if row.failure is not None:
            return
        try:
            with idle(workload, server.port, row.idle, self._client_cpus) as others:
                row.samples.append(self._sample(server, workload))
        except BenchError as failure:
            row.failure = str(failure)
        else:
            row.lost = max(row.lost, others.wanted - others.kept)

    def _sample(self, server: Server, workload: Workload) -> Sample:
        if workload.before:
            workload.before()
        before_s = server.cpu_s()
        outcome = drive(workload, server.port, self._seconds, self._client_cpus)
        return Sample(
            outcome.requests,
            outcome.errors,
            outcome.seconds,
            server.cpu_s() - before_s,
            outcome.cpu_s,
            server.memory_mb(),
            workload.body_length,
            outcome.ttfb_us,
            outcome.p50_us,
            outcome.p99_us,
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/bench", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=int, default=2, help="load per server and round (default: 2)")
    add("--rounds", type=int, default=5, help="rounds (default: 5)")
    add(
        "--only",
        metavar="WORKLOAD",
        nargs="+",
        default=(),
        help=f"these workloads, or groups of them: {', '.join(GROUPS)} (default: all)",
    )
    add(
        "--peers",
        metavar="WORD",
        nargs="+",
        default=(),
        help="servers with such a word in the name",
    )
    add("--log", action="store_true", help="with the access log of all switched on")
    add("--json", metavar="FILE", type=Path, help="write all samples there, too")
    add("--svg", metavar="FILE", type=Path, help="draw the README's chart there")
    add("--install", action="store_true", help="first install what is missing, from pip and Debian")
    options = parser.parse_args()
    if options.seconds < 1 or options.rounds < 1:
        parser.error("--seconds and --rounds must be 1 or more")
    return options


def chosen(workloads: list[Workload], options: argparse.Namespace) -> list[Workload]:
    """Return those that were asked for, with the peers that were.

    Raises: SystemExit if a name is unknown.
    """
    names = [workload.name for workload in workloads]
    if unknown := set(options.only) - {*names, *GROUPS}:
        sys.exit(
            f"no workload {', '.join(unknown)}; there are: {' '.join(names)};"
            f" and groups of them: {' '.join(GROUPS)}"
        )
    result = []
    for workload in workloads:
        peers = tuple(
            peer
            for peer in workload.peers
            if not options.peers or any(word in peer.name for word in options.peers)
        )
        if peers and (not options.only or {workload.name, workload.group} & {*options.only}):
            log = workload.log or options.log
            result.append(dataclasses.replace(workload, peers=peers, log=log))
    return result


def versions() -> dict[str, str]:
    """Return what is measured, and on what."""
    names = ("prefork", *install.packages())
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    found |= install.webserver_versions() | {"python": platform.python_version()}
    return found | {
        "kernel": platform.release().partition("-")[0],
        "processors": str(os.cpu_count()),
    }


def main() -> int:
    options = parse_arguments()
    if options.install:
        install.install()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped, too
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # 10,000 connections have two ends
    about = versions() | {
        "load average": round(os.getloadavg()[0], 1),  # of other programs; above 0, they disturb
        "seconds": options.seconds,
        "rounds": options.rounds,
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(EXPLANATION)
    began_s = time.monotonic()
    results = []
    with tempfile.TemporaryDirectory(prefix="prefork-bench-") as name:
        Path(name).chmod(0o711)  # who runs CGI scripts as nobody has to reach them
        site = Path(name, "site")
        site.mkdir(0o755)
        bench = Bench(Path(name), site, options.seconds, options.rounds)
        for workload in chosen([*all_workloads(site), *share.workloads(site)], options):
            if workload.make:
                workload.make()
            print(f"\n{workload.name}: {workload.title}; {workload.connections} connections")
            rows = bench.measure(workload)
            print(table(rows), flush=True)
            results.append(as_json(workload, rows))
    print(f"\n{time.monotonic() - began_s:.0f} s")
    if options.json:
        options.json.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(chart(results, about))
    return int(any(server["failure"] for result in results for server in result["servers"]))


if __name__ == "__main__":
    sys.exit(main())
