"""Starts and ends the measured programs."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
DAEMON = TOP / ".build-static/release/virt-walkerd"
REFERENCE = TOP / ".build/bench"
TOOLS = TOP / "Benchmarks/.build-static/release"
PGTABLE = TOP / ".build/oracle/pgtable"
TIME_LIMIT_S = 30


class Failure(Exception):
    """An error whose message scripts/bench prints."""


def output(*command, limit=600):
    """Returns the output of a program. A program that fails ends the run."""
    process = subprocess.Popen(
        dying_with_this_process(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        printed, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise Failure(f"{process.args} takes longer than {limit} s") from None
    finally:
        # Not SIGKILL, because scripts/vm/cuse-vm has to end its virtual machine first.
        process.terminate()
        process.wait()
    if process.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit status {process.returncode}\n{errors}{printed}")
    return printed


def output_json(*command, **options):
    return json.loads(output(*command, **options))


def dying_with_this_process(command):
    # The program also ends after kill -9 of scripts/bench. A server then removes its node, as after any SIGTERM.
    return ["setpriv", "--pdeathsig", "TERM", *map(str, command)]


def on_cpus(cpus, command):
    """Returns a command line that runs on the given CPUs; None lets the kernel choose."""
    return command if cpus is None else ["taskset", "--cpu-list", ",".join(map(str, cpus)), *command]


@contextlib.contextmanager
def work_directory():
    """A temporary directory that is removed after its mounts."""
    work = Path(tempfile.mkdtemp(prefix="virt-walker-bench-"))
    try:
        yield work
    finally:
        # Only a killed server leaves its mount behind.
        for line in Path("/proc/self/mounts").read_text().splitlines():
            mount = line.split(" ")[1]
            if mount.startswith(f"{work}/"):
                subprocess.run(["umount", "-l", mount] if os.geteuid() == 0 else ["fusermount3", "-uz", mount], check=False)
        shutil.rmtree(work)


class Server:
    """A process that serves a node. The node answers after the initializer returns.

    `under` is the beginning of the command line of a program that looks at the server.
    """

    def __init__(self, command, node, cpus=None, under=()):
        self.node = Path(node)
        self.process = subprocess.Popen(
            dying_with_this_process(on_cpus(cpus, [*under, *command])), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE)
        self.pid = self.process.pid
        try:
            await_line(self.process, "ready")
        except BaseException:
            self.close()
            raise

    def close(self):
        end(self.process)

    def resident_bytes(self):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise Failure(f"process {self.pid} is gone")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def end(process):
    """Ends a server.

    libfuse does not notice a signal that comes between its test of the flag and its read of the next request, so the signal is repeated.
    """
    for _ in range(TIME_LIMIT_S):
        process.terminate()
        try:
            process.wait(1)
            return
        except subprocess.TimeoutExpired:
            pass
    process.kill()
    process.wait()
    raise Failure(f"{process.args} does not end after SIGTERM")


def await_line(process, word):
    """Waits until the process has printed a line with the given word."""
    deadline = time.monotonic() + TIME_LIMIT_S
    text = b""
    while not any(word in line for line in text.decode().split("\n")[:-1]):
        if not select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
            raise Failure(f"{process.args} is not ready after {TIME_LIMIT_S} s")
        chunk = os.read(process.stdout.fileno(), 1 << 16)
        if not chunk:
            raise Failure(f"{process.args} has ended:\n{process.stderr.read().decode()}")
        text += chunk


def daemon(work, *options, count=None, **about):
    """Starts virt-walkerd with one node, or with several; the server is then that of the first node."""
    place = Path(tempfile.mkdtemp(dir=work, prefix="ours-"))
    (place / "tree").mkdir()
    many = [] if count is None else ["--count", str(count)]
    return Server(
        [DAEMON, "serve", "--backend", "fuse", "--path", place / "node", "--tree", place / "tree", *many, *options],
        place / ("node" if count is None else "node0"), **about)


def null_fuse(work, *options, **about):
    node = Path(tempfile.mkdtemp(dir=work, prefix="reference-")) / "node"
    node.touch()
    return Server([REFERENCE / "null-fuse", node, *options], node, **about)


def bare_node(work, *options, program=TOOLS / "bare-node", **about):
    node = Path(tempfile.mkdtemp(dir=work, prefix="reference-")) / "node"
    return Server([program, node, *options], node, **about)


@contextlib.contextmanager
def busy(cpus):
    """Runs a process that only computes on every CPU."""
    hogs = []
    try:
        for _ in cpus:
            hogs.append(subprocess.Popen(dying_with_this_process(["sh", "-c", "while :; do :; done"])))
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def pairs(server, settings, clients=1, cpus=None):
    """Returns the results of node-bench for write+read pairs on a node."""
    result = output_json(*on_cpus(cpus, [
        TOOLS / "node-bench", server.node, "--server-pid", server.pid, "--clients", clients,
        "--seconds", settings.seconds, "--warm-up", settings.warm_up]))
    return pair_metrics(result)


def pair_metrics(result):
    return {
        "p50": result["p50"], "p99": result["p99"], "p99.9": result["p99.9"],
        "cpu": result["client_cpu"] + result["server_cpu"], "rate": result["pairs_per_second"],
        "distribution": result["distribution"]}


def counted_pairs(server, count, cpus=None):
    """Writes and reads so many times."""
    output(*on_cpus(cpus, [TOOLS / "node-bench", server.node, "--pairs", count, "--seconds", 3600, "--warm-up", 0]), limit=3600)


def for_each_pair(total, count):
    """Returns what a server needs for a pair, without what it needs for its start and its end."""
    return (total(2 * count) - total(count)) / count


def system_calls(work, serve, count):
    """Returns the number of system calls of a server for a pair."""
    def calls(pairs):
        file = Path(tempfile.mkdtemp(dir=work)) / "calls"
        # With -D, the server has the pid that Server knows, and strace is a process beside it.
        with serve(work, under=["strace", "-D", "-f", "-c", "-o", file]) as server:
            counted_pairs(server, pairs)
        deadline = time.monotonic() + TIME_LIMIT_S
        while time.monotonic() < deadline:
            last = (file.read_text().split("\n") if file.exists() else [])[-2:]
            if last and last[0].endswith(" total"):
                return int(last[0].split()[3])
            time.sleep(0.01)
        raise Failure(f"strace has not written {file}")

    # A signal can interrupt a call, so that it is made once more.
    return round(for_each_pair(calls, count), 2)
