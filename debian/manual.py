"""Prints the manual page of virt-walkerd: the text of virt-walkerd.8.in. All commands and options, from the program's definition of its
command line, replace the line @COMMANDS@.

usage: python3 debian/manual.py PROGRAM DATE     (DATE as in 2026-11-25)
"""
import datetime
import json
import pathlib
import re
import subprocess
import sys
import textwrap


def text(words):
    """Returns lines of mdoc(7). Each sentence begins a line, and no line is longer than 78 characters."""
    lines = []
    for sentence in re.split(r"(?<=[.:;!?)]) (?=[A-Z0-9('\"-])", words.replace("\\", "\\e")):
        # A line that begins with one of these is a request to the formatter.
        lines += [re.sub(r"^(?=[.'])", r"\\&", line) for line in
                  textwrap.wrap(sentence, 78, break_long_words=False, break_on_hyphens=False)]
    return lines


def argument(item):
    names = [("-" if name["kind"] == "long" else "") + name["name"] for name in item.get("names", [])]
    value = [] if item["kind"] == "flag" else ["Ar", item["valueName"] + (" ..." if item["isRepeating"] else "")]
    yield " ".join([".It"] + " , ".join("Fl " + name for name in names).split() + value)
    words = item.get("abstract", "")
    known = [f"values: {', '.join(item['allValues'])}"] if "allValues" in item else []
    known += [f"default: {item['defaultValue']}"] if "defaultValue" in item else []
    yield from text(words + (f" ({'; '.join(known)})" if known else ""))


def options(command):
    shown = [item for item in command.get("arguments", []) if item["shouldDisplay"]]
    yield ".Bl -tag -width 6n"
    for item in shown:
        yield from argument(item)
    yield ".El"


def subcommand(command):
    yield f".Ss virt-walkerd {command['commandName']}"
    yield from text(command["abstract"])
    for paragraph in command.get("discussion", "").split("\n\n"):
        if paragraph:
            yield ".Pp"
            yield from text(paragraph)
    yield from options({"arguments": [item for item in command.get("arguments", [])
                                      if item["kind"] != "flag" or item.get("valueName") not in ("help", "version")]})


def main(program, date):
    dump = subprocess.run([program, "--experimental-dump-help"], check=True, capture_output=True, text=True).stdout
    command = json.loads(dump)["command"]
    commands = list(options(command))
    for each in command["subcommands"]:
        if each["commandName"] != "help":
            commands += subcommand(each)
    day = datetime.date.fromisoformat(date)
    # The page is in English, whatever the locale is.
    month = "January February March April May June July August September October November December".split()[day.month - 1]
    page = pathlib.Path(__file__).with_name("virt-walkerd.8.in").read_text()
    page = page.replace("@DATE@", f"{month} {day.day}, {day.year}").replace("@COMMANDS@", "\n".join(commands))
    # An empty list is an error of the page.
    print(page.replace(".Bl -tag -width 6n\n.El\n", ""), end="")


main(*sys.argv[1:])
