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
    """With three digits or more, and the unit that fits."""
    if unit == "/s":
        return f"{value:,.0f} /s"
    steps = {"ns": (1000, ["ns", "µs", "ms", "s"]), "bytes": (1024, ["B", "KiB", "MiB", "GiB"])}
    step, units = steps[unit]
    while abs(value) >= step and len(units) > 1:
        value, units = value / step, units[1:]
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f} {units[0]}"


def cells(results, measurement, metric):
    """Ours, the reference's, the ratio, the goal, and whether it is met."""
    row = results["rows"][f"{measurement.id}.{metric.id}"]
    goal = metric.goal
    return [
        text(row["ours"], metric.unit),
        text(row["reference"], metric.unit) if "reference" in row else "",
        f"{row['ratio']:.2f}" if "ratio" in row else "",
        "" if not goal else f"≤ {goal.ratio:.2f}" if goal.ratio else f"≤ {text(goal.value, metric.unit)}",
        "" if not goal else "met" if row["met"] else "MISSED"]


def rows(results):
    """The rows that were measured, in order."""
    for measurement in MEASUREMENTS:
        for metric in measurement.metrics:
            if f"{measurement.id}.{metric.id}" in results["rows"]:
                yield measurement, metric


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

Written by `scripts/bench --write`, and not by hand: on {machine['date']}, of commit {machine['commit']}, in {settings['minutes']:.0f} minutes.

| | |
|---|---|
""" + "".join(f"| {name} | {machine[name]} |\n" for name in ("CPU", "CPUs", "memory", "system", "load average", "Swift", "C", "libfuse")) + f"""
Ours and the reference are measured in turn, in {settings['rounds']} rounds, and each figure is the median of its rounds' figures. The ratio is \
ours divided by the reference's: below 1 ours is less. All figures of all rounds are in \
[Benchmarks/results.json](../Benchmarks/results.json). `scripts/bench --list` names the rows, `scripts/bench free tables` measures \
some.

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
    """The reasons in missed.md, each for the rows in its heading that miss their goal, and which rows have none."""
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
        yield f"\n**Missed, and why is not known yet: {'; '.join(left.values())}.**\n"


INTRODUCTIONS = {
    "A write+read pair on a node of FUSE": f"""\
A client writes a byte, reads one, and starts again at once; with one client, each byte is checked. One round takes {{seconds}} s for each \
side, after {{warm_up}} s that are not counted.

- {PAIR[0].title}, {PAIR[1].title}, {PAIR[2].title}: how long a pair takes, by HdrHistogram (three digits).
- {PAIR[3].title}: of client and server, user and system, for one pair.
- {PAIR[4].title}: what all clients get done together.

The reference is [null-fuse](../Benchmarks/reference/null-fuse.c) if nothing else is said: the least server that libfuse's own loop \
(`fuse_session_loop`) can be. It keeps one byte, and has no machine behind it.

What most of a pair's time goes to is not the server: client and server are on two CPUs, and each CPU that has nothing to do halts, and has \
to be woken by an interrupt from the other. `--poll auto` takes requests in bursts of 64 and tries, a burst each: to sleep; to sleep while the \
kernel keeps idle CPUs awake (a latency request of 0 at /dev/cpu_dma_latency, which only root may make, and which is taken back 10 to 20 ms \
after the last request); to poll. It keeps what took least time, looks at it again when that gets slower, and tries all again now and then. \
A daemon that is not root has the first and the last. To follow the client to its CPU (sched_setaffinity) was tried, and left out: it was as fast \
as both pinned together, until the kernel woke the client on the idle CPU, every few bursts, and then as slow as without.
""",
    "A write+read pair on a node of CUSE": """\
The same on a character device, against [null-cuse](../Benchmarks/reference/null-cuse.c), in the virtual machine of \
[scripts/cuse-vm](../scripts/cuse-vm): QEMU emulates its one CPU, so times are only good to be compared with each other.
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


# Grey, and no background: to be read on white and on dark pages.
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
    """Draws those of the measurements that have one."""
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
    """Where each percentile stands on an axis on which each further nine takes as much room, and microseconds."""
    return "\n".join(
        f"{-math.log10(1 - percentile / 100):.4f} {nanoseconds / 1000}"
        for percentile, nanoseconds in distribution if percentile < 100)


# --- The files


def write(results):
    PAGE.write_text(page(results))
    list(pictures(results, PAGE.parent))


def check(results):
    """What stands in the documents is what would be written there."""
    if not PAGE.exists() or PAGE.read_text() != page(results):
        raise Failure("docs/performance.md is not what was measured and what the rows say of themselves: scripts/bench --render")
    for measurement in MEASUREMENTS:
        if measurement.plot and not (PAGE.parent / picture(measurement)).exists():
            raise Failure(f"docs/{picture(measurement)} is missing: scripts/bench --render")
