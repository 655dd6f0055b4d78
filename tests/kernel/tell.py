# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest: writes what becomes of each test into the file $HEDDLE_TELL as it happens, so that nothing is lost with a run that is ended."""

import os

OUT = open(os.environ["HEDDLE_TELL"], "a", encoding="utf-8", buffering=1)  # pylint: disable=consider-using-with
seen = {}


def pytest_collection_finish(session):
    print("collected", len(session.items), file=OUT)


def pytest_runtest_logreport(report):
    """Once set-up, call and teardown are over: the worst of them counts."""
    if report.failed:
        seen[report.nodeid] = ("failed", "")
    elif report.skipped:
        seen.setdefault(report.nodeid, ("skipped", str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""))
    if report.when == "teardown":
        outcome, reason = seen.pop(report.nodeid, ("passed", ""))
        print(outcome, report.nodeid, reason.replace("\n", " "), sep="\t", file=OUT)
