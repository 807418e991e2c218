"""Tests of a script, printed as TAP."""

import sys
import traceback

_tests = _failures = 0


def check(description, action):
    """One test: the function has to return without an error."""
    global _tests, _failures
    _tests += 1
    try:
        action()
        print("ok %d - %s" % (_tests, description))
    except Exception:
        _failures += 1
        print("not ok %d - %s" % (_tests, description))
        for line in traceback.format_exc().strip().split("\n"):
            print("#   " + line)
    sys.stdout.flush()


def same(expected, actual):
    if expected != actual:
        raise AssertionError("expected %r, got %r" % (expected, actual))


def finish():
    """Prints the number of tests, and ends the script."""
    print("1..%d" % _tests)
    sys.exit(_failures != 0)
