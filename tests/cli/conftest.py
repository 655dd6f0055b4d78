# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

from fake import Fake  # noqa: E402

BINARY = os.environ.get("HEDDLE_BIN") or os.path.join(TOP, os.environ.get("BUILD", "build"), "heddle")


class Cli:
    def __init__(self, socket):
        self.socket = socket

    def __call__(self, *arguments, expect=0, stdin=b"", env=None, timeout=20):
        """Runs it, checks the exit status, and returns (stdout, stderr)."""
        done = subprocess.run([BINARY, "--socket", self.socket, *arguments], input=stdin, capture_output=True, timeout=timeout,
                              env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **(env or {})})
        out, err = done.stdout.decode(), done.stderr.decode()
        assert done.returncode == expect, f"exit {done.returncode}, expected {expect}\n{out}\n{err}"
        assert "ERROR: AddressSanitizer" not in err and "runtime error" not in err, err
        if expect == 0:
            assert err == "", err
        else:
            assert err.startswith("heddle: "), err
        return out, err

    def json(self, *arguments, **more):
        return json.loads(self("-o", "json", *arguments, **more)[0])


@pytest.fixture
def fake(tmp_path):
    daemon = Fake(str(tmp_path / "heddled.sock"))
    yield daemon
    daemon.close()


@pytest.fixture
def cli(fake):
    return Cli(fake.path)


@pytest.fixture
def lonely(tmp_path):
    """A CLI without a daemon."""
    return Cli(str(tmp_path / "nobody.sock"))
