"""The program of scripts/bench: measures, prints the table, and writes the results as JSON and into docs/performance.md."""

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import instructions
import report
from measurements import CHECK, FULL, MEASUREMENTS, QUICK, TASKS
from processes import TOP, Failure, output, work_directory

WRITTEN = TOP / "Benchmarks/results.json"  # of the run whose figures are in docs/performance.md


def main():
    arguments = parse_arguments()
    if arguments.list:
        for measurement in MEASUREMENTS:
            for metric in measurement.metrics:
                print(f"{measurement.id}.{metric.id}: {measurement.title}, {metric.title}")
    elif arguments.render:
        report.write(read_written())
    elif arguments.check:
        check()
    elif arguments.profile:
        build()
        with work_directory() as work:
            print(instructions.table(instructions.pair(work)))
    else:
        tasks = [task for task in TASKS if any(is_asked_for(m, arguments.rows) for m in task.measurements)]
        if not tasks:
            raise Failure(f"no row has the name {' or '.join(arguments.rows)}: scripts/bench --list")
        build()
        results = measure(tasks, QUICK if arguments.quick else FULL)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(encoded(results))
        print(report.table(results))
        if arguments.write:
            WRITTEN.write_text(encoded(results))
            report.write(results)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure device and model.")
    parser.add_argument("rows", metavar="ROW", nargs="*", help="measure only the rows whose names begin with ROW")
    parser.add_argument("--json", type=Path, default=TOP / ".build/bench/results.json", help="the file for the results")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    modes.add_argument("--list", action="store_true", help="print the names of the rows")
    modes.add_argument("--write", action="store_true", help="measure all rows, and write docs/performance.md")
    modes.add_argument("--render", action="store_true", help="write docs/performance.md from the results of the last --write")
    modes.add_argument("--profile", action="store_true", help="print the instructions of a hide and a seek by function")
    modes.add_argument("--check", action="store_true", help="run a little of each measurement, and check docs/performance.md")
    arguments = parser.parse_args()
    if arguments.rows and (arguments.profile or arguments.write or arguments.render or arguments.check or arguments.list):
        parser.error("this is about all rows")
    return arguments


def is_asked_for(measurement, rows):
    return not rows or any(f"{measurement.id}.".startswith(row) or row.startswith(f"{measurement.id}.") for row in rows)


def build():
    print("building what is missing", file=sys.stderr)
    subprocess.run([TOP / "Benchmarks/build"], check=True, stdout=sys.stderr)


# --- The results


def measure(tasks, settings):
    about = machine()
    if about["load average"] > 0.5:
        print(f"something else runs here (load average {about['load average']}): the figures will be of a busy machine", file=sys.stderr)
    samples = {}
    begin = time.monotonic()
    for task in tasks:
        print(f"measuring {', '.join(m.id for m in task.measurements)}", file=sys.stderr)
        with work_directory() as work:
            samples |= task.run(work, settings)
    measurements = [m for task in tasks for m in task.measurements]
    return {
        "machine": about,
        "settings": {**vars(settings), "minutes": round((time.monotonic() - begin) / 60, 1)},
        "rows": {
            f"{measurement.id}.{metric.id}": row(measurement, metric, samples[measurement.id])
            for measurement in measurements for metric in measurement.metrics},
        "profile": profile_of_pair(),
        "distributions": {
            m.id: {side: median_distribution(samples[m.id], side) for side in ("ours", "reference")}
            for m in measurements if m.plot == "percentiles"}}


def profile_of_pair():
    with work_directory() as work:
        return instructions.table(instructions.pair(work)).splitlines()


def row(measurement, metric, samples):
    result = {"ours": median(measurement, metric, samples.ours)}
    if measurement.reference:
        result["reference"] = median(measurement, metric, samples.reference)
        # The two sides of a round are measured one after the other, so that both are slower while something else runs.
        result["ratio"] = statistics.median(
            ours / reference for ours, reference in zip(samples.ours[metric.id], samples.reference[metric.id]))
    if metric.goal:
        result["met"] = metric.goal.is_met(result["ours"], result.get("reference"), result.get("ratio"))
    result["rounds"] = {"ours": samples.ours[metric.id], "reference": samples.reference.get(metric.id, [])}
    return result


def median(measurement, metric, values):
    number = statistics.median(values.get(metric.id) or [math.nan])
    if not math.isfinite(number):
        raise Failure(f"{measurement.id}.{metric.id} has no number")
    return number


def median_distribution(samples, side):
    """Returns the distribution of the round with the median p50."""
    p50s = getattr(samples, side)["p50"]
    return samples.distributions[side][p50s.index(statistics.median_low(p50s))]


def encoded(results):
    # One line for each row makes changes readable.
    parts = [f'"{name}": {json.dumps(results[name], indent=2)}' for name in ("machine", "settings", "profile")]
    for name in ("rows", "distributions"):
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in results[name].items()]
        parts.append(f'"{name}": {{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def machine():
    def value(file, key):
        for line in Path(file).read_text().splitlines():
            name, _, rest = line.replace("=", ":", 1).partition(":")
            if name.strip() == key:
                return rest.strip().strip('"')
        return "?"

    is_virtual = "hypervisor" in value("/proc/cpuinfo", "flags").split()
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "CPU": value("/proc/cpuinfo", "model name") + (", in a virtual machine" if is_virtual else ""),
        "CPUs": len(os.sched_getaffinity(0)),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB",
        "system": f"{value('/etc/os-release', 'PRETTY_NAME')}, Linux {platform.release()}",
        "load average": round(os.getloadavg()[0], 2),  # before the measurements
        "Swift": output("swift", "--version").splitlines()[0],
        "C": output("gcc", "--version").splitlines()[0],
        "libfuse": output("pkg-config", "--modversion", "fuse3").strip()}


def commit():
    try:
        return output("git", "-C", TOP, "describe", "--always", "--dirty").strip()
    except Failure:
        return "unknown"  # the source has no history


# --- Checks


def check():
    build()
    results = measure(TASKS, CHECK)
    print(report.table(results))
    with work_directory() as work:
        for picture in report.pictures(results, work):
            if not picture.stat().st_size:
                raise Failure(f"{picture.name} is empty")
    report.check(read_written())
    print(f"{len(results['rows'])} rows, each with its numbers; the documents have them all")


def read_written():
    if not WRITTEN.exists():
        raise Failure(f"{WRITTEN} is missing: scripts/bench --write makes this file")
    results = json.loads(WRITTEN.read_text())
    names = {f"{measurement.id}.{metric.id}" for measurement in MEASUREMENTS for metric in measurement.metrics}
    if names != results["rows"].keys():
        raise Failure(
            f"docs/performance.md has other rows than scripts/bench: {', '.join(sorted(names ^ results['rows'].keys()))}; "
            "scripts/bench --write measures them all")
    return results


def end(signal_number, _frame):
    sys.exit(128 + signal_number)


if __name__ == "__main__":
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        main()
    except (Failure, subprocess.SubprocessError, OSError) as failure:
        print(f"bench: {failure}", file=sys.stderr)
        sys.exit(1)
