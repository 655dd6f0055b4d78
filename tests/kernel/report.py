#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""report FOLDER SOURCES: docs/kernels.md out of what check has left in the folder for these sources of heddle."""

import collections
import os
import re
import sys
import time

import plan

HEAD = """<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Written by make check-kernels. -->
# Kernels

What heddle was tried on: Debian's kernels under QEMU, and the kernel of the machine that it was developed on. `make check-kernels` tries it again,
and writes this page from what comes out ([tests/kernel](../tests/kernel/README.md)); heddle needs 6.1 or later.

{how}
"""
NOTES = """
A cell: tests passed and the time they took, in brackets what was skipped, failed, passed when it was run once more, or did not come to an end. "not run":
none of it did. "-": not for this kernel. Of the network tests (`tests/net`) a spread over hooks, families and tunnels runs here, the same on every kernel;
`tests/kernel/plan.py` says which. On 6.1 there is no TCX: the tests named after it go by clsact there.
"""


class Result:
    """One file: what one run had to say of one part on one kernel."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            head, *self.lines = f.read().splitlines()
        _, self.run, self.commit, self.sources, self.seconds = head.split()
        self.facts = {line.split(" ", 2)[1]: line.split(" ", 2)[2] for line in self.lines if line.startswith("fact ")}

    def cell(self):
        counts = next((line.split()[1:5] for line in self.lines if line.startswith("count ")), None)
        passed, failed, skipped, not_run = (int(n) for n in counts) if counts else (0, 0, 0, 1)
        again = sum(line.startswith("again ") for line in self.lines)
        named = ((failed, "failed"), (skipped, "skipped"), (again, "at the second try"), (not_run, "not run"))
        more = ", ".join(f"{n} {what}" for n, what in named if n)
        if not passed and not failed:
            return "skipped" if skipped else "not run"
        return f"{passed}{f' ({more})' if more else ''}, {self.seconds} s"

    def programs(self):
        """The cell of the load part: how many load, and what the largest of them costs the verifier."""
        loaded = [int(n) for line in self.lines for n in re.findall(r": (\d+) instructions verified", line)]
        missing = [line for line in self.lines if line.startswith("not ok") and "instructions verified" not in line]
        if not loaded:
            return "none" if missing else "not run"
        return ("all " if not missing else "not all: ") + f"{len(loaded)}, at most {max(loaded):,} instructions verified, {self.seconds} s"


def versions_in(folder):
    """Those that are always there, and what was asked for beside them, by age."""
    more = {match[1] for name in os.listdir(folder) if (match := re.match(r"(\d+\.\d+)\.[a-z-]+$", name))}
    guests = (more | set(plan.VERSIONS)) - {"running"}
    return [*sorted(guests, key=lambda version: [int(n) for n in version.split(".")]), "running"]


def results_of(folder, sources):
    """{(version, part): Result}, of these sources alone."""
    found = {}
    for version in versions_in(folder):
        for part in (*plan.ROWS, "net/facts"):
            path = os.path.join(folder, f"{version}.{part.replace('/', '-')}")
            if os.path.exists(path):
                result = Result(path)
                if result.sources == sources:
                    found[version, part] = result
    return found


def length(seconds):
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def how(folder, results):
    """From what run or runs the rows come."""
    took = {}
    if os.path.exists(os.path.join(folder, "took")):
        with open(os.path.join(folder, "took"), encoding="utf-8") as f:
            took = {run: (int(seconds), int(bound)) for run, seconds, bound in map(str.split, f)}
    runs = {result.run: result.commit for result in results.values()}
    if not runs:
        return "Nothing was run.\n"
    when = {run: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(int(run))) for run in runs}
    if len(runs) == 1:
        (run, commit), = runs.items()
        whole = f", and took {length(took[run][0])} of the {length(took[run][1])} that it may take" if run in took else ""
        return f"All of it comes from one run, which began at {when[run]}, at commit {commit}{whole}, on {os.cpu_count()} CPUs.\n"
    text = f"The rows come from {len(runs)} runs of single parts, not from one of the whole, with the same sources of heddle:\n\n"
    for commit in sorted(set(runs.values()), key=lambda c: min(run for run in runs if runs[run] == c)):
        of_it = sorted(run for run in runs if runs[run] == commit)
        parts = collections.defaultdict(list)
        for (version, part), result in results.items():
            if result.commit == commit:
                parts[version].append(part)
        which = "; ".join(f"{version}: {', '.join(parts[version])}" for version in parts)
        between = f"{when[of_it[0]]} to {when[of_it[-1]]}" if len(of_it) > 1 else when[of_it[0]]
        text += f"- commit {commit}, {between}: {which}\n"
    return text


def bad(results):
    """What did not simply pass, with its reason, and where."""
    where = collections.defaultdict(list)
    for (version, part), result in results.items():
        for line in result.lines:
            if match := re.match(r"(not ok|skipped|again) (.*)", line):
                said = match[2].removeprefix(f"{part.removeprefix('net/')}: ")
                what = {"not ok": "failed", "again": "passed at the second try"}.get(match[1], match[1])
                test, _, reason = said.partition(": ") if match[1] == "skipped" else (said, "", "")
                # one line for all that are skipped for one reason
                key = (part, what, "", reason) if reason else (part, what, test, "")
                where[key].append((version, test))
    for (part, what, test, reason), places in where.items():
        versions = ", ".join(dict.fromkeys(v for v, _ in places))
        several = f"{len({t for _, t in places})} " if reason and len({t for _, t in places}) > 1 else ""
        yield f"- {part} on {versions}: {several}{what}: {(reason or f'`{test}`').replace('<', '&lt;')}"


def page(folder, sources):
    results, versions = results_of(folder, sources), versions_in(folder)
    rows = []
    for fact, title in plan.FACTS.items():
        found = [results[v, "net/facts"].facts.get(fact, "not known") if (v, "net/facts") in results else "not known" for v in versions]
        rows.append([title, *found])
    for part, title in plan.ROWS.items():
        cells = []
        for version in versions:
            result = results.get((version, part))
            missing = "not run" if plan.concerns(part, version) else "-"
            cells.append(missing if result is None else result.programs() if part == "load" else result.cell())
        rows.append([title, *cells])
    text = HEAD.format(how=how(folder, results)) + f"| | {' | '.join('the running one' if v == 'running' else v for v in versions)} |\n|{'---|' * (len(versions) + 1)}\n"
    text += "".join(f"| {' | '.join(row)} |\n" for row in rows) + NOTES
    if rest := list(bad(results)):
        text += "\n## What did not simply pass\n\n" + "\n".join(rest) + "\n"
    return text


if __name__ == "__main__":
    print(page(*sys.argv[1:3]), end="")
