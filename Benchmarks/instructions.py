"""Counts instructions with callgrind. The numbers are the same in each run."""

import re
import tempfile
from collections import Counter
from pathlib import Path

from processes import TOOLS, Failure, counted_pairs, for_each_pair, output

# The functions of Swift's runtime and of the C library that allocate memory or take a reference.
TRAFFIC = re.compile(r"swift_(retain|release|alloc|dealloc)|(^|_)(malloc|calloc|realloc|free)$")


def pair(work, count=2000):
    """Returns the instructions of a pair in each function of the machine with its trace, in descending order."""
    program = readable(work, TOOLS / "model-bench")
    few, many = (functions(work, program, pairs) for pairs in (count, 2 * count))
    found = {name: (many[name] - few[name]) / count for name in many}
    names = output("swift", "demangle", "--simplified", "--compact", *(name for name in found if found[name] >= 0.5)).splitlines()
    found = dict(zip(names, (cost for cost in found.values() if cost >= 0.5)))
    traffic = [name for name in found if TRAFFIC.search(name)]
    if traffic:
        raise Failure(f"a hide and a seek allocate memory or take references: {', '.join(traffic)}")
    return sorted(found.items(), key=lambda item: -item[1])


def functions(work, program, pairs):
    file = work / f"callgrind.{pairs}"
    output(*callgrind(file), program, "profile", pairs)
    names, costs, function, is_call = {}, Counter(), None, False
    for line in file.read_text(errors="replace").splitlines():
        if named := re.match(r"(c?)fn=\((\d+)\)(?: (.*))?", line):
            is_callee, number, name = named.groups()
            if name:
                names[number] = name.split("'")[0]
            if not is_callee:
                function = number
        elif line.startswith("calls="):
            is_call = True
        elif re.match(r"[+\-*\d]", line) and function:
            # The line after calls= is the cost of the callee, which is already counted in the callee.
            if not is_call:
                costs[function] += int(line.split()[-1])
            is_call = False
    result = Counter()
    for number, cost in costs.items():
        result[names[number]] += cost
    return result


def readable(work, program):
    """Returns a copy of a program for callgrind, which cannot read the debug information of Swift, and does not need it."""
    copy = work / f"readable-{program.name}"
    output("strip", "-g", "-o", copy, program)
    return copy


def callgrind(file, *options):
    return ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={file}", *options]


def of_pair_on_node(work, serve, count):
    """Returns the instructions that a server executes for a pair on its node."""
    def total(pairs):
        file = Path(tempfile.mkdtemp(dir=work)) / "callgrind"
        with serve(work, under=callgrind(file)) as server:
            counted_pairs(server, pairs)
        return int(re.search(r"^(?:totals|summary): (\d+)", file.read_text(errors="replace"), re.MULTILINE)[1])

    return for_each_pair(total, count)


def lines_of_pair_on_node(work, serve, count):
    """Returns the number of cache lines (64 bytes) with instructions that a server executes in each pair on its node."""
    def executed(pairs):
        file = Path(tempfile.mkdtemp(dir=work)) / "callgrind"
        with serve(work, under=callgrind(file, "--dump-instr=yes")) as server:
            counted_pairs(server, pairs)
        return addresses(file)

    few, many = executed(count), executed(2 * count)
    return len({(program, address // 64) for program, address in many
                if many[program, address] - few[program, address] >= count})


def addresses(file):
    """Returns how often the instruction at each address of each program or library was executed."""
    costs, programs, program, address, is_call = Counter(), {}, None, 0, False
    for line in file.read_text(errors="replace").splitlines():
        if named := re.match(r"(c?)ob=\((\d+)\)(?: (.*))?", line):
            is_callee, number, name = named.groups()
            if name:
                programs[number] = name
            if not is_callee:
                program = programs[number]
        elif line.startswith("calls="):
            is_call = True
        elif cost := re.match(r"(0x[0-9a-f]+|[+-]\d+|\*) \S+ (\d+)$", line):
            # An address, or its distance from the last one.
            place = cost[1]
            if place.startswith("0x"):
                address = int(place, 16)
            elif place != "*":
                address += int(place)
            if not is_call:
                costs[program, address] += int(cost[2])
            is_call = False
    return costs


def table(found):
    lines = [f"{cost:6.0f}  {name}" for name, cost in found]
    return "\n".join([f"{sum(cost for _, cost in found):6.0f}  instructions a pair, of which", *lines])
