"""Writes the table and docs/performance.md with its pictures from the results."""

import math
import re
import subprocess
from pathlib import Path

from measurements import MEASUREMENTS, PAIR
from processes import TOP, Failure

PAGE = TOP / "docs/performance.md"
REASONS = TOP / "Benchmarks/missed.md"


# --- Numbers


def text(value, unit):
    """Returns the value with three digits or more, in the unit that fits."""
    if unit == "/s":
        return f"{value:,.0f} /s"
    if not unit:
        return f"{value:,.0f}"
    steps = {"ns": (1000, ["ns", "µs", "ms", "s"]), "bytes": (1024, ["B", "KiB", "MiB", "GiB"])}
    step, units = steps[unit]
    while abs(value) >= step and len(units) > 1:
        value, units = value / step, units[1:]
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f} {units[0]}"


def cells(results, measurement, metric):
    """Returns our value, the reference's value, the ratio, the goal, and whether the goal is met."""
    row = results["rows"][f"{measurement.id}.{metric.id}"]
    goal = metric.goal
    return [
        text(row["ours"], metric.unit),
        text(row["reference"], metric.unit) if "reference" in row else "",
        f"{row['ratio']:.2f}" if "ratio" in row else "",
        "" if not goal else f"≤ {limit(goal, metric.unit)}",
        "" if not goal else "met" if row["met"] else "MISSED"]


def rows(results):
    """Yields the measured rows in order."""
    for measurement in MEASUREMENTS:
        for metric in measurement.metrics:
            if f"{measurement.id}.{metric.id}" in results["rows"]:
                yield measurement, metric


def limit(goal, unit):
    if goal.ratio is not None:
        return f"{goal.ratio:.2f}"
    return f"reference + {text(goal.above, unit)}" if goal.above is not None else text(goal.value, unit)


def table(results):
    lines = [["row", "ours", "reference", "ratio", "goal", ""]]
    lines += [[f"{m.id}.{metric.id}", *cells(results, m, metric)] for m, metric in rows(results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column in (0, 4, 5) else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in lines)


# --- The page


def markdown_table(head, lines):
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [head, ["---"] + ["---:"] * 3 + ["---"] * (len(head) - 4), *lines]) + "\n"


def page(results):
    machine, settings = results["machine"], results["settings"]
    parts = [f"""# Performance

`scripts/bench --write` has written this page, and measured commit {machine['commit']} on {machine['date']}, in {settings['minutes']:.0f} minutes.

| | |
|---|---|
""" + "".join(f"| {name} | {machine[name]} |\n" for name in ("CPU", "CPUs", "memory", "system", "load average", "Swift", "C", "libfuse")) + f"""
"Ours" and the reference are measured in turn, in {settings['rounds']} rounds. Each figure is the median of the figures of its rounds. The \
ratio is the median of the ratios of the rounds: our figure divided by the reference's figure, so a ratio below 1 means that ours is less. \
[Benchmarks/results.json](../Benchmarks/results.json) contains all figures of all rounds. `scripts/bench --list` prints the names of the \
rows, and `scripts/bench free tables` measures only rows whose names begin with these words.

## The goals

"""]
    goals = [(m, metric) for m, metric in rows(results) if metric.goal]
    parts.append(markdown_table(
        ["row", "ours", "reference", "ratio", "goal", ""],
        [[f"[{m.title}](#{anchor(m.title)}): {metric.title}", *cells(results, m, metric)] for m, metric in goals]))
    parts += missed(results, goals)
    section = None
    for measurement in MEASUREMENTS:
        if measurement.section != section:
            section = measurement.section
            parts.append(f"\n## {section}\n\n" + INTRODUCTIONS.get(section, "").format(**settings))
        parts.append(measured(results, measurement))
    return "".join(parts).replace("\n\n\n", "\n\n")


def anchor(title):
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def missed(results, goals):
    """Yields each reason in missed.md for the rows in its heading that miss their goal, and then the rows without a reason."""
    left = {
        f"{m.id}.{metric.id}": f"{m.title}: {metric.title}" for m, metric in goals
        if not results["rows"][f"{m.id}.{metric.id}"]["met"]}
    for part in re.split(r"^## ", REASONS.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, reason = part.partition("\n")
        titles = [left.pop(name) for name in heading.split(", ") if name in left]
        if titles:
            reason = reason.strip().replace("PROFILE", "```\n" + "\n".join(results["profile"]) + "\n```")
            yield f"\n**Missed: {'; '.join(titles)}.** {reason}\n"
    if left:
        yield f"\n**Missed, for an unknown reason: {'; '.join(left.values())}.**\n"


INTRODUCTIONS = {
    "A write+read pair on a node of FUSE": f"""\
A client writes a byte, reads a byte, and immediately starts again. With one client, each byte is checked. One round takes {{seconds}} s for \
each side, after {{warm_up}} s that are not counted.

- {PAIR[0].title}, {PAIR[1].title}, {PAIR[2].title}: the time of a pair, measured with HdrHistogram (three digits).
- {PAIR[3].title}: user and system time of client and server, for one pair.
- {PAIR[4].title}: the pairs of all clients together.

Unless a row names another one, the reference is [null-fuse](../Benchmarks/reference/null-fuse.c), the smallest server that runs in \
libfuse's own loop (`fuse_session_loop`). This server keeps one byte, and has no machine.

The server takes only a small part of a pair's time. Client and server are on two CPUs. Each CPU halts when it has nothing to do, and the \
other CPU has to wake it with an interrupt. `--poll auto` divides the requests into bursts of 64, and tries a different way of waiting in each \
burst:

- The daemon sleeps.
- The daemon sleeps while the kernel keeps idle CPUs awake. The daemon makes a latency request of 0 at /dev/cpu_dma_latency, and withdraws \
it 10 to 20 ms after the last request. Only root may make such a request, so a daemon without root skips this way.
- The daemon polls.

The daemon keeps the fastest way, measures again when this way gets slower, and tries all ways again from time to time. Another way was tried \
and left out: following the client to its CPU (sched_setaffinity). This way was as fast as "Pinned together" until the kernel woke the client on \
the idle CPU, which happened every few bursts. Then it was as slow as without.
""",
    "Users' C code": """\
`virt-walkerd serve --module` and `--hook` run a user's C code behind the node ([your-code.md](your-code.md)). The reference is the daemon \
with its built-in module and hook. The examples are in [Examples/lab/right](../Examples/lab/right).
""",
    "A write+read pair on a node of CUSE": """\
These are the same measurements on a character device, with [null-cuse](../Benchmarks/reference/null-cuse.c) as the reference, in the \
virtual machine of [scripts/vm/cuse-vm](../scripts/vm/cuse-vm). QEMU emulates its one CPU, so these times can only be compared with each other.
""",
}


def measured(results, measurement):
    reference = f" Reference: {measurement.reference}." if measurement.reference else ""
    parts = [f"\n### {measurement.title}\n\n{measurement.text} Ours: {measurement.ours}.{reference}\n\n"]
    has_text = any(metric.text for metric in measurement.metrics)
    lines = [
        [metric.title, *cells(results, measurement, metric)] + ([metric.text] if has_text else [])
        for metric in measurement.metrics]
    parts.append(markdown_table(["", "ours", "reference", "ratio", "goal", ""] + (["what it is"] if has_text else []), lines))
    if measurement.plot:
        name = picture(measurement)
        parts.append(f"\n![{measurement.title}]({name})\n")
    return "".join(parts)


# --- The pictures


def picture(measurement):
    return f"performance-{measurement.id}.svg"


# Grey without a background is readable on white and on dark pages.
PLOT = """\
set terminal svg size 720,400 dynamic font 'sans-serif,13'
set output '{file}'
set border 3 linecolor rgb '#808080'
set tics nomirror textcolor rgb '#808080'
set grid ytics linecolor rgb '#808080' linewidth 0.25
set key top left reverse Left textcolor rgb '#808080'
set ylabel textcolor rgb '#808080'
set xlabel textcolor rgb '#808080'
"""
OURS, REFERENCE = "#2f81f7", "#d08700"

PERCENTILES = PLOT + """\
$ours << EOD
{ours}
EOD
$reference << EOD
{reference}
EOD
set logscale y
set format y '%g'
set ylabel 'a pair, µs'
set xlabel 'percentile'
set xrange [0:4]
set xtics ('0 %%' 0, '50 %%' 0.30103, '90 %%' 1, '99 %%' 2, '99.9 %%' 3, '99.99 %%' 4)
plot $ours with lines linewidth 2 linecolor rgb '{OURS}' title '{our_name}', \\
  $reference with lines linewidth 2 linecolor rgb '{REFERENCE}' title '{reference_name}'
"""

RATIOS = PLOT + """\
$rows << EOD
{rows}
EOD
set style fill solid noborder
set boxwidth 0.6
set key off
set yrange [0:*]
set ylabel '{our_name} / {reference_name}'
set xtics rotate by -20
# The line is the reference.
plot $rows using 2:xtic(1) with boxes linecolor rgb '{OURS}', 1 with lines linewidth 2 linecolor rgb '{REFERENCE}'
"""


def pictures(results, directory):
    """Draws the pictures of the measurements that have one."""
    for measurement in MEASUREMENTS:
        if not measurement.plot:
            continue
        file = Path(directory) / picture(measurement)
        names = {
            "file": file, "OURS": OURS, "REFERENCE": REFERENCE, "our_name": measurement.ours,
            "reference_name": measurement.reference}
        if measurement.plot == "percentiles":
            sides = results["distributions"][measurement.id]
            script = PERCENTILES.format(ours=points(sides["ours"]), reference=points(sides["reference"]), **names)
        else:
            lines = []
            for metric in measurement.metrics:
                row = results["rows"][f"{measurement.id}.{metric.id}"]
                lines.append(f'"{metric.title}" {row["ratio"]}')
            script = RATIOS.format(rows="\n".join(lines), **names)
        result = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True)
        if result.returncode != 0 or result.stderr:
            raise Failure(f"gnuplot: {result.stderr}")
        yield file


def points(distribution):
    """Returns the points of a distribution: microseconds over an axis on which each further nine of a percentile has the same width."""
    return "\n".join(
        f"{-math.log10(1 - percentile / 100):.4f} {nanoseconds / 1000}"
        for percentile, nanoseconds in distribution if percentile < 100)


# --- The files


def write(results):
    PAGE.write_text(page(results))
    list(pictures(results, PAGE.parent))


def check(results):
    """Checks that the documents contain what --render would write."""
    if not PAGE.exists() or PAGE.read_text() != page(results):
        raise Failure("docs/performance.md differs from the results or from the texts of the rows: scripts/bench --render")
    for measurement in MEASUREMENTS:
        if measurement.plot and not (PAGE.parent / picture(measurement)).exists():
            raise Failure(f"docs/{picture(measurement)} is missing: scripts/bench --render")
