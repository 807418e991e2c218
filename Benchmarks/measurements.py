"""Defines each measurement: its texts, and the function that runs it.

A row of the tables is one metric of one measurement, and has the name MEASUREMENT.METRIC.
"""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import instructions
from processes import (DAEMON, PGTABLE, REFERENCE, TIME_LIMIT_S, TOOLS, TOP, Failure, await_line, bare_node, busy, counted_pairs, daemon, end,
                       null_fuse, on_cpus, output, output_json, pair_metrics, pairs, system_calls)


@dataclass(frozen=True)
class Settings:
    """The amount of work of a run. The figures of docs/performance.md come from FULL."""
    rounds: int
    seconds: float  # of pairs, for each side
    warm_up: float
    mib: int  # of mapped guest memory
    table_rounds: int  # inside one run of model-bench and pgtable-bench
    model_pairs: int
    node_pairs: int  # before memory is measured again
    starts: int
    counted_pairs: int  # by callgrind and strace


FULL = Settings(rounds=5, seconds=1, warm_up=0.3, mib=4096, table_rounds=3, model_pairs=500_000, node_pairs=10_000_000, starts=20, counted_pairs=2000)
QUICK = Settings(rounds=3, seconds=0.3, warm_up=0.1, mib=1024, table_rounds=3, model_pairs=200_000, node_pairs=200_000, starts=5, counted_pairs=2000)
CHECK = Settings(rounds=1, seconds=0.03, warm_up=0.01, mib=16, table_rounds=1, model_pairs=1000, node_pairs=1000, starts=1, counted_pairs=500)


@dataclass(frozen=True)
class Goal:
    """The upper limit of the ratio to the reference, of the value itself, or of the value above the reference's."""
    ratio: float | None = None
    value: float | None = None
    above: float | None = None

    def is_met(self, ours, reference, ratio):
        if self.ratio is not None:
            return ratio <= self.ratio
        if self.above is not None:
            return ours <= reference + self.above
        return ours <= self.value


@dataclass(frozen=True)
class Metric:
    id: str
    title: str
    unit: str  # ns, bytes, /s, or nothing for a number
    goal: Goal | None = None
    text: str = ""


@dataclass(frozen=True)
class Measurement:
    id: str
    section: str
    title: str
    text: str
    ours: str
    reference: str | None
    metrics: tuple[Metric, ...]
    plot: str | None = None  # percentiles, ratios


@dataclass
class Samples:
    """The values of each metric and side, round by round."""
    ours: dict[str, list[float]] = field(default_factory=dict)
    reference: dict[str, list[float]] = field(default_factory=dict)
    distributions: dict[str, list] = field(default_factory=lambda: {"ours": [], "reference": []})

    def add(self, side, values):
        for metric, value in values.items():
            if metric == "distribution":
                self.distributions[side].append(value)
            else:
                getattr(self, side).setdefault(metric, []).append(value)


@dataclass(frozen=True)
class Task:
    """Runs one measurement, or several together."""
    measurements: tuple[Measurement, ...]
    run: Callable[[Path, Settings], dict[str, Samples]]


CPUS = sorted(os.sched_getaffinity(0))


def placement(pinned):
    """Returns the CPUs of the client and those of the server; None if the kernel may choose."""
    if pinned is None:
        return None, None
    if pinned == "together":
        return CPUS[:1], CPUS[:1]
    if len(CPUS) < 2:
        raise Failure("client and server cannot be pinned apart on one CPU: use a machine with two")
    return CPUS[:1], CPUS[1:2]


def in_turn(settings):
    """Yields the sides of each round. The rounds begin with alternating sides."""
    for number in range(settings.rounds):
        yield from ("ours", "reference") if number % 2 == 0 else ("reference", "ours")


# --- A pair on a node of FUSE

NODE = "A write+read pair on a node of FUSE"
NULL_FUSE = "null-fuse"
PAIR = (
    Metric("p50", "p50", "ns"), Metric("p99", "p99", "ns"), Metric("p99.9", "p99.9", "ns"),
    Metric("cpu", "CPU time", "ns"), Metric("rate", "pairs a second", "/s"))


def pair_with_goals(**goals):
    return tuple(Metric(m.id, m.title, m.unit, goals.get(m.id)) for m in PAIR)


def node(id, title, text, *, section=NODE, ours="virt-walkerd", reference=NULL_FUSE, serve=daemon, serve_reference=null_fuse,
         clients=1, pinned=None, is_loaded=False, metrics=PAIR, plot=None):
    measurement = Measurement(id, section, title, text, ours, reference, metrics, plot)

    def run(work, settings):
        samples = Samples()
        client_cpus, server_cpus = placement(pinned)
        with busy(CPUS if is_loaded else []), serve(work, cpus=server_cpus) as our_server, \
                serve_reference(work, cpus=server_cpus) as reference_server:
            for side in in_turn(settings):
                server = our_server if side == "ours" else reference_server
                samples.add(side, pairs(server, settings, clients, client_cpus))
        return {id: samples}

    return Task((measurement,), run)


def floor(id, title, text, pinned):
    """Makes a task that compares a pair with two round trips of a byte through pipes between two processes."""
    measurement = Measurement(
        id, NODE, title, text, "virt-walkerd", "ping-pong, twice", (Metric("p50", "p50", "ns"),))

    def run(work, settings):
        samples = Samples()
        client_cpus, server_cpus = placement(pinned)
        with daemon(work, cpus=server_cpus) as our_server:
            for side in in_turn(settings):
                if side == "ours":
                    samples.add(side, {"p50": pairs(our_server, settings, cpus=client_cpus)["p50"]})
                else:
                    trip = output_json(REFERENCE / "ping-pong", *client_cpus, *server_cpus, settings.seconds)
                    samples.add(side, {"p50": 2 * trip["p50"]})
        return {id: samples}

    return Task((measurement,), run)


def serving(*options, count=None):
    return lambda work, **about: daemon(work, *options, count=count, **about)


def threads(work, **about):
    return null_fuse(work, "--threads", **about)


NO_WORSE = Goal(ratio=1.05)
NO_MORE = Goal(ratio=1)
NODES = [
    node("free", "Free to move", "One client. The kernel chooses the CPUs of client and server.",
         metrics=pair_with_goals(p50=Goal(ratio=0.25)), plot="percentiles"),
    node("together", "Pinned together", "One client. Client and server are on the same CPU, as on a machine with one core.",
         pinned="together", metrics=pair_with_goals(p50=NO_WORSE), plot="percentiles"),
    node("apart", "Pinned apart", "One client. Client and server are each on a CPU of its own.", pinned="apart",
         plot="percentiles"),
    node("loaded", "Loaded", "One client, free to move, while one process that only computes runs for each CPU.",
         is_loaded=True, metrics=pair_with_goals(p50=NO_WORSE)),
    node("never", "Without polling", "One client, free to move. The server sleeps at once after a request.",
         ours="virt-walkerd --poll never", serve=serving("--poll", "never"), metrics=pair_with_goals(cpu=NO_MORE)),
    node("never-together", "Without polling, pinned together", "The same on one CPU.",
         ours="virt-walkerd --poll never", serve=serving("--poll", "never"), pinned="together",
         metrics=pair_with_goals(p50=NO_WORSE, cpu=NO_MORE)),
    node("clients-2", "Two clients", "Each client has its own open descriptor. Free to move.", clients=2),
    node("clients-2-threads", "Two clients, and threads",
         "The same, compared with libfuse's loop that has a thread for each waiting request (`fuse_session_loop_mt`).",
         reference="null-fuse --threads", serve_reference=threads, clients=2),
    node("clients-64", "64 clients", "Each client has its own open descriptor. Free to move. The time of a pair includes the wait for \
the client's turn: a fair server has a higher p50 and a lower p99. The pairs a second show the work done.", clients=64,
         metrics=pair_with_goals(p50=NO_MORE)),
    node("clients-64-threads", "64 clients, and threads", "The same, compared with `fuse_session_loop_mt`.",
         reference="null-fuse --threads", serve_reference=threads, clients=64),
    node("nodes-256", "256 nodes", "One client, free to move. The reference serves one node, and ours serves this node and 255 others.",
         ours="virt-walkerd --count 256", reference="virt-walkerd", serve=serving(count=256), serve_reference=daemon,
         metrics=pair_with_goals(p50=NO_WORSE)),
    node("nodes-256-together", "256 nodes, pinned together", "The same on one CPU.",
         ours="virt-walkerd --count 256", reference="virt-walkerd", serve=serving(count=256), serve_reference=daemon,
         pinned="together", metrics=pair_with_goals(p50=NO_WORSE)),
    node("ring", "The trace without readers",
         "One client, pinned together with the server. The reference, bare-node, serves the same machine without trace, logs, counters \
and tree.", reference="bare-node", serve_reference=bare_node, pinned="together",
         metrics=pair_with_goals(p50=Goal(ratio=1.03))),
    floor("floor-together", "The floor of one core",
          "A pair is two system calls that a server answers. The reference is the time of two round trips of a byte to another \
process through pipes, on one CPU.", "together"),
    floor("floor-apart", "The floor of two cores",
          "The same on two CPUs. A server that polls does not sleep, and can be faster than the reference.", "apart"),
]

# --- The work of the servers

WORK = Measurement(
    "work", NODE, "The work of a pair", "The instructions and the system calls of the server alone, which do not depend on the load of the \
machine. callgrind counts the instructions, in bare-node with trace, logs and counters, because it cannot write its results in the \
daemon's sandbox. strace counts the system calls of the daemon itself. The servers do not poll.",
    "virt-walkerd --poll never", NULL_FUSE, (
        Metric("instructions", "instructions", "", Goal(above=1500), "In user space."),
        Metric("lines", "cache lines of code", "", None,
               "The lines (64 bytes) of the instructions of each pair, in user space. The kernel and the client run before each request, \
so that the first-level cache has lost these lines."),
        Metric("calls", "system calls", "", NO_MORE),
    ))


def run_work(work, settings):
    samples = Samples()
    count = settings.counted_pairs
    program = instructions.readable(work, TOOLS / "bare-node")

    def inspected(work, **about):
        return bare_node(work, "--inspected", program=program, **about)

    for side, counted, traced in (("ours", inspected, serving("--poll", "never")), ("reference", null_fuse, null_fuse)):
        samples.add(side, {
            "instructions": instructions.of_pair_on_node(work, counted, count),
            "lines": instructions.lines_of_pair_on_node(work, counted, count),
            "calls": system_calls(work, traced, count)})
    return {"work": samples}


# --- A pair on a node of CUSE

CUSE = "A write+read pair on a node of CUSE"
CUSE_CONFIGURATIONS = {
    # The options of virt-walkerd, the options of null-cuse, and the number of clients.
    "cuse": ("", "", 1),
    "cuse-never": ("--poll never", "", 1),
    "cuse-clients-2": ("", "", 2),
    "cuse-clients-64": ("", "", 64),
    "cuse-clients-64-threads": ("", "--threads", 64),
}


def cuse_measurement(id, title, text, metrics=PAIR, plot=None):
    ours, reference, _ = CUSE_CONFIGURATIONS[id]
    return Measurement(id, CUSE, title, text, f"virt-walkerd {ours}".strip(), f"null-cuse {reference}".strip(), metrics, plot)


def run_cuse(work, settings):
    """Runs all measurements in one virtual machine, because its start takes long."""
    samples = {id: Samples() for id in CUSE_CONFIGURATIONS}
    lines = ["set -e", "ready() { for i in $(seq 300); do ! grep -qs ready $1 || return 0; sleep 0.1; done; cat $1; exit 1; }"]
    for id, (options, reference_options, clients) in CUSE_CONFIGURATIONS.items():
        lines += [
            "rm -f /tmp/ours /tmp/reference",  # the words of the servers before
            f"virt-walkerd serve --backend cuse --name ours {options} >/tmp/ours 2>&1 & ours=$!; ready /tmp/ours",
            f"null-cuse reference {reference_options} >/tmp/reference 2>&1 & reference=$!; ready /tmp/reference"]
        for side in in_turn(settings):
            lines.append(
                f"result=$(node-bench /dev/{side} --server-pid ${side} --clients {clients} "
                f'--seconds {settings.seconds} --warm-up {settings.warm_up}); echo "{id} {side} $result"')
        # The signal is repeated for the reason that processes.end() gives.
        lines.append("kill $ours $reference; (while sleep 1; do kill $reference || exit 0; done 2>/dev/null) & wait $ours; wait $reference || true")
    text = output(
        TOP / "scripts/vm/cuse-vm", "--daemon", DAEMON, "--program", REFERENCE / "null-cuse", "--program", TOOLS / "node-bench",
        "--command", "\n".join(lines))
    for line in text.splitlines():
        id, _, rest = line.partition(" ")
        side, _, result = rest.partition(" ")
        if id in samples and side in ("ours", "reference"):
            samples[id].add(side, pair_metrics(json.loads(result)))
    return samples


CUSE_TASK = Task((
    cuse_measurement("cuse", "CUSE", "One client, on the machine's one CPU.", pair_with_goals(p50=Goal(ratio=1.1)), "percentiles"),
    cuse_measurement("cuse-never", "CUSE without polling", "The server sleeps at once after a request."),
    cuse_measurement("cuse-clients-2", "CUSE, two clients", "Each client has its own open descriptor.",
                     pair_with_goals(p50=Goal(ratio=1.15))),
    cuse_measurement("cuse-clients-64", "CUSE, 64 clients", "Each client has its own open descriptor."),
    cuse_measurement("cuse-clients-64-threads", "CUSE, 64 clients, and threads",
                     "The same, compared with libfuse's loop that has a thread for each waiting request (`fuse_session_loop_mt`)."),
), run_cuse)

# --- Users' code

CODE = "Users' C code"
EXAMPLES = TOP / "Examples/lab/right"
HOOK = ("--hook", EXAMPLES / "walk-callback.c", "--hook-function", "virt_walker_mmio")
MODULE = ("--module", EXAMPLES / "module-misc.c")


def code_pair(id, title, text, *options, pinned=None, goal=None):
    """Makes a task that compares a pair by a user's code with a pair by the built-in code."""
    return node(
        id, title, text, section=CODE, ours="virt-walkerd " + " ".join(
            option if isinstance(option, str) else option.name for option in options),
        reference="virt-walkerd", serve=serving(*options), serve_reference=daemon, pinned=pinned,
        metrics=pair_with_goals(p50=goal) if goal else PAIR)


AT_MOST_THREE = Goal(ratio=3)
CODE_TASKS = [
    code_pair("code-hook", "A hook in C", "One client, free to move. The hook is an example, and runs in a process of its own.", *HOOK,
              goal=AT_MOST_THREE),
    code_pair("code-hook-together", "A hook in C, pinned together", "The same on one CPU: client, server and hook.", *HOOK,
              pinned="together", goal=AT_MOST_THREE),
    code_pair("code-module", "A module in C", "One client, free to move. The module is an example.", *MODULE),
    code_pair("code-both", "A module and a hook in C", "One client, free to move. Both examples, each in a process of its own.",
              *MODULE, *HOOK),
]
SAVED = Measurement(
    "code-saved", CODE, "From saving a file to the first byte", "The time from the write of a changed source to the first byte that comes \
from the changed code. The daemon has the option `--watch-source`.", "virt-walkerd", None, (
        Metric("module", "a module", "ns", Goal(value=500e6)),
        Metric("hook", "a hook", "ns", Goal(value=500e6)),
        Metric("module-sanitized", "a module, sanitized", "ns", Goal(value=2e9), "With the option `--sanitize`."),
        Metric("hook-sanitized", "a hook, sanitized", "ns", Goal(value=2e9), "The same."),
    ))


def run_saved(work, settings):
    samples = Samples()
    kinds = {
        "module": ("answer-module.c", ["--module"], []),
        "hook": ("answer-hook.c", ["--hook"], ["--hook-function", "answer"]),
    }
    for kind, (name, before, after) in kinds.items():
        text = (TOP / "Benchmarks/reference" / name).read_text()
        for suffix, sanitize in (("", []), ("-sanitized", ["--sanitize"])):
            source = Path(tempfile.mkdtemp(dir=work)) / name
            source.write_text(text)
            with daemon(work, *before, source, *after, "--watch-source", *sanitize) as server:
                await_byte(server.node, b"A")
                for number in range(settings.rounds):
                    byte = bytes([ord("B") + number])
                    source.write_text(text.replace("#define ANSWER 'A'", f"#define ANSWER '{byte.decode()}'"))
                    begin = time.monotonic_ns()
                    await_byte(server.node, byte)
                    samples.add("ours", {f"{kind}{suffix}": time.monotonic_ns() - begin})
    return {"code-saved": samples}


def await_byte(node, expected):
    """Reads until the byte comes. While the code is replaced, a read can fail, or give the old byte."""
    deadline = time.monotonic() + TIME_LIMIT_S
    byte = None
    while time.monotonic() < deadline:
        try:
            with open(node, "rb", buffering=0) as file:
                byte = file.read(1)
        except OSError as error:
            byte = error
        if byte == expected:
            return
        time.sleep(0.001)
    raise Failure(f"{node}: the byte {expected} of the changed source has not come; the last read gave {byte}")


# --- The model

MODEL = "The model, without a node"
KERNELS = ("6.1", "5.10", "6.12", "7.3")


def tables_measurement(kernel):
    """Describes the operations on the tables of one version of Linux. Those of 6.1 have the stricter goal."""
    is_standard = kernel == KERNELS[0]
    goal = NO_MORE if is_standard else Goal(ratio=1.2)

    def metric(id, title, text):
        return Metric(id, title, "ns", goal, text)

    return Measurement(
        "tables" if is_standard else f"tables-{kernel}", MODEL, "Stage-2 tables" if is_standard else f"Stage-2 tables of Linux {kernel}",
        f"4 GiB of guest memory in pages of 4 KiB. The reference is the kernel's own arch/arm64/kvm/hyp/pgtable.c (Linux {kernel}), \
compiled for user space. Both sides do the same operations at the same addresses, in loops of their own language, with tables in memory that \
was used before. Their checksums have to be equal.",
        f"model-bench --kernel {kernel}", "pgtable-bench", (
            metric("leaf", "leaf for an address", "The leaf of a random page."),
            metric("map_page", "map, page by page", "One call for each page, in ascending order."),
            metric("map_range", "map a range", "One call for all pages. The figure is the time of one page."),
            metric("write_protect", "write-protect a range", "The same."),
            metric("unmap", "unmap a range", "The same."),
            metric("map_block", "map, block by block", "One call for each block of 2 MiB."),
            metric("split", "split a block", "One page is mapped inside a block."),
            metric("hide_seek", "the hook's walks", "One walk hides a byte in an entry, and one walk reads it."),
        ), "ratios" if is_standard else None)


MACHINE = Measurement(
    "machine", MODEL, "Hide and seek through the whole machine", "The guest stores a byte and loads one: decoding, stage 1, stage 2, the \
abort, KVM's handlers, the bus, the hook's walk, the entry, and back. There is no reference, because the kernel's \
counterpart needs its hardware.",
    "model-bench", None, (
        Metric("machine", "the machine", "ns", None, "`writeb` and `readb` of `VirtualMachine`, without an observer."),
        Metric("traced", "the machine with its trace", "ns", Goal(value=100), "The same with an `EventStream`: some 15 events a pair."),
        Metric("driver", "the guest's driver", "ns", None, "`write` and `read` of `VirtWalkerDriver`."),
        Metric("device", "the device", "ns", Goal(value=200), "`write` and `read` of `InspectedDevice`: with trace, logs and counters."),
    ))


def tables(kernel):
    measurement = tables_measurement(kernel)

    def run(_work, settings):
        samples = Samples()
        sums = {}
        for side in in_turn(settings):
            command = ([TOOLS / "model-bench", "operations", "--kernel", kernel] if side == "ours"
                       else [PGTABLE / kernel / "pgtable-bench"])
            rows = output_json(*command, settings.mib, settings.table_rounds)
            samples.add(side, {name: row["ns"] for name, row in rows.items()})
            sums[side] = {name: row["sum"] for name, row in rows.items()}
        if sums["ours"] != sums["reference"]:
            raise Failure(f"the model and the kernel's code of {kernel} have different checksums: {sums}")
        return {measurement.id: samples}

    return Task((measurement,), run)


def run_machine(_work, settings):
    samples = Samples()
    for _ in range(settings.rounds):
        rows = output_json(TOOLS / "model-bench", "pairs", settings.model_pairs, settings.table_rounds)
        samples.add("ours", {name: row["ns"] for name, row in rows.items()})
    return {"machine": samples}


# --- Memory

MEMORY = "Memory"
RESIDENT = Measurement(
    "resident", MEMORY, "Resident memory of the daemon", "VmRSS of the process, including its code.", "virt-walkerd", NULL_FUSE, (
        Metric("idle", "idle", "bytes", Goal(value=6 << 20), "After the first pair."),
        Metric("used", "after 10⁷ pairs", "bytes", None, "By one client."),
    ))
MAPPED = Measurement(
    "mapped", MEMORY, "4 GiB mapped by pages", "The growth of resident memory while pages are mapped one by one, in a process that has \
not used memory before. The reference is the size of the tables.", "model-bench", "tables", (
        Metric("entry", "for an entry", "bytes", Goal(ratio=1.1), "An entry has 8 bytes."),))
MACHINES = Measurement(
    "machines", MEMORY, "Many machines in one process", "The additional resident memory of 64 and of 256 machines compared with one machine, \
divided by the number of additional machines, without their tables.", "virt-walkerd, model-bench", None, (
        Metric("nodes-1", "1 node", "bytes", None, "The whole resident memory of `virt-walkerd serve`."),
        Metric("nodes-64", "64 nodes, each", "bytes", None, "`serve --count 64`: with node and tree, after a pair on each."),
        Metric("nodes-256", "256 nodes, each", "bytes", Goal(value=64 << 10), "`serve --count 256`: the same."),
        Metric("devices-256", "256 devices, each", "bytes", Goal(value=64 << 10),
               "256 instances of `InspectedDevice` in model-bench: with trace, logs and counters, without a node."),
        Metric("machines-256", "256 machines, each", "bytes", Goal(value=64 << 10), "256 instances of `VirtualMachine` in model-bench."),
    ))


def one_pair(node):
    file = os.open(node, os.O_RDWR)
    try:
        os.write(file, b"A")
        if os.read(file, 1) != b"A":
            raise Failure(f"{node}: A was written, but a read returned another byte")
    finally:
        os.close(file)


def run_resident(work, settings):
    samples = Samples()
    for side, serve in (("ours", daemon), ("reference", null_fuse)):
        client_cpus, server_cpus = placement("together")
        with serve(work, cpus=server_cpus) as server:
            one_pair(server.node)
            idle = server.resident_bytes()
            counted_pairs(server, settings.node_pairs, cpus=client_cpus)
            samples.add(side, {"idle": idle, "used": server.resident_bytes()})
    return {"resident": samples}


def run_mapped(_work, settings):
    samples = Samples()
    pages = settings.mib << 8
    for _ in range(settings.rounds):
        result = output_json(TOOLS / "model-bench", "tables", settings.mib)
        samples.add("ours", {"entry": result["grown"] / pages})
        samples.add("reference", {"entry": result["tables"] / pages})
    return {"mapped": samples}


def table_bytes(server):
    """Returns the size of the tables of the first node's machine."""
    place = server.node.parent / "tree"
    metrics = next(place.rglob("metrics")).read_text()
    return next(int(float(line.split()[-1])) for line in metrics.splitlines() if "_table_pages{" in line) * 4096


def run_machines(work, settings):
    samples = Samples()
    for _ in range(settings.rounds):
        resident = {}
        for count in (1, 64, 256):
            with daemon(work, count=count) as server:
                for number in range(count):
                    one_pair(server.node.with_name(f"node{number}"))
                tables = table_bytes(server)
                resident[count] = server.resident_bytes()
        values = {f"nodes-{count}": (resident[count] - resident[1]) / (count - 1) - tables for count in (64, 256)}
        for kind, options in (("machines", []), ("devices", ["--inspected"])):
            result = output_json(TOOLS / "model-bench", "machines", 256, *options)
            values[f"{kind}-256"] = (result["grown"] - result["tables"]) / 256
        samples.add("ours", {"nodes-1": resident[1], **values})
    return {"machines": samples}


# --- Start

START = "Start and size"
STARTED = Measurement(
    "start", START, "Start", "The time from the exec of the server to the first byte read from its node.", "virt-walkerd serve", NULL_FUSE,
    (Metric("time", "time", "ns", Goal(value=5e6)),))
SIZE = Measurement(
    "size", START, "Size of the program", "`virt-walkerd` with Swift's libraries linked in (--static-swift-stdlib).", "virt-walkerd", None, (
        Metric("stripped", "stripped", "bytes", Goal(value=8 << 20), "After `strip`."), Metric("built", "as built", "bytes")))
REPLAYED = Measurement(
    "replay", START, "Replay of all recordings", "`virt-walkerd replay --check` of each file in Tests/Recordings: the whole life of the \
process.", "virt-walkerd replay", None, (
        Metric("time", "all versions", "ns"),
        Metric("time-6.1", "Linux 6.1", "ns", Goal(value=0.5e9)),
    ))


def run_start(work, settings):
    samples = Samples()
    work = work / "start"
    work.mkdir()
    for number in range(settings.starts):
        ours, reference = work / f"ours{number}", work / f"reference{number}"
        tree = work / f"tree{number}"
        tree.mkdir()
        reference.touch()
        samples.add("ours", {"time": start_time(
            [DAEMON, "serve", "--backend", "fuse", "--path", ours, "--tree", tree], ours)})
        samples.add("reference", {"time": start_time([REFERENCE / "null-fuse", reference], reference)})
    return {"start": samples}


def start_time(command, node):
    begin = time.monotonic_ns()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        await_line(process, "ready")
        with open(node, "rb", buffering=0) as file:
            if len(file.read(1)) != 1:
                raise Failure(f"a read of {node} returned nothing")
        return time.monotonic_ns() - begin
    finally:
        end(process)


def run_size(work, _settings):
    samples = Samples()
    output("strip", "-o", work / "stripped", DAEMON)
    samples.add("ours", {"stripped": (work / "stripped").stat().st_size, "built": DAEMON.stat().st_size})
    return {"size": samples}


def run_replay(_work, settings):
    recordings = TOP / "Tests/Recordings"
    every = sorted(recordings.rglob("*.txt"))
    standard = [file for file in every if file.parent.name == KERNELS[0]]
    samples = Samples()
    for _ in range(settings.rounds):
        samples.add("ours", {name: replay_time(files) for name, files in (("time", every), ("time-6.1", standard))})
    return {"replay": samples}


def replay_time(files):
    begin = time.monotonic_ns()
    output(DAEMON, "replay", "--check", *files)
    return time.monotonic_ns() - begin


TASKS = [
    *NODES, Task((WORK,), run_work), CUSE_TASK, *CODE_TASKS, Task((SAVED,), run_saved), *map(tables, KERNELS),
    Task((MACHINE,), run_machine), Task((RESIDENT,), run_resident),
    Task((MAPPED,), run_mapped), Task((MACHINES,), run_machines), Task((STARTED,), run_start), Task((SIZE,), run_size),
    Task((REPLAYED,), run_replay)]
MEASUREMENTS = [measurement for task in TASKS for measurement in task.measurements]
