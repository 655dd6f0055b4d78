# SPDX-License-Identifier: Apache-2.0
"""What goes wrong: no daemon, a slow or broken one, arguments that make no sense. One clear line, and the right exit status."""
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import BINARY
from fake import stream

VERBS = [("status",), ("apply", "-f", "-"), ("diff", "-f", "-"), ("preview", "-f", "-"), ("policy", "lint"), ("policy", "lint", "-f", "-"), ("confirm",), ("get", "host"), ("delete", "host", "a"), ("flows",),
         ("flows", "--watch"), ("monitor",), ("explain", "--from", "::1", "--to", "::2"), ("rules",), ("counters",),
         ("wait", "--timeout", "50ms")]
PATHS = ["GET /v1/status", "POST /v1/apply", "POST /v1/diff", "POST /v1/preview", "GET /v1/lint", "POST /v1/lint", "POST /v1/confirm", "GET /v1/objects/host", "DELETE /v1/objects/host/a",
         "GET /v1/flows", "GET /v1/flows?watch=1", "GET /v1/monitor", "POST /v1/explain", "GET /v1/rules", "GET /v1/counters"]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_daemon(lonely, verb):
    _, err = lonely(*verb, expect=3)
    assert err.startswith("heddle: no daemon at ") and err.count("\n") == 1


def test_stale_socket(lonely):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(lonely.socket)
    _, err = lonely("status", expect=3)
    assert "Connection refused" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_permission_is_not_absence(fake):
    os.chmod(os.path.dirname(fake.path), 0o755)
    os.chmod(fake.path, 0o660)
    done = subprocess.run([BINARY, "--socket", fake.path, "status"], capture_output=True, user=65534, group=65534, extra_groups=[])
    if b"permission denied" not in done.stderr:
        pytest.skip("the binary or a directory above the socket is closed to others: " + done.stderr.decode())
    assert done.returncode == 1


@pytest.mark.parametrize("body", [b"{", b"", b"<html>", b"\xff\xfe", b"nul\0l", b"[" * 100000])
@pytest.mark.parametrize("verb", VERBS[:-1], ids=" ".join)
def test_broken_answers(fake, cli, verb, body):
    for path in PATHS:
        fake.answers[path] = (200, body)
    if body == b"" and verb[0] not in ("monitor", "flows", "rules", "preview"):
        cli(*verb)  # an answer without content: nothing to say, and that is not a failure
        return
    _, err = cli(*verb, expect=1)
    assert "not JSON" in err or "ended the stream" in err


@pytest.mark.parametrize("answer", [{}, [], {"items": 5}, {"items": [5, None, "x", [], {}]}, {"items": [{"rule": [], "spec": 5, "path": {}}]},
                                    {"drops": [1], "totals": {"a": "b"}, "tableFull": {"c": None}, "path": [None, 5, {}], "rule": {},
                                     "uplinks": [5], "programs": {}, "flows": [], "objects": "x", "memory": [1], "unguarded": {}}])
@pytest.mark.parametrize("verb", VERBS[:-1], ids=" ".join)
def test_odd_answers_do_not_crash(fake, cli, verb, answer):
    for path in PATHS:
        fake.answers[path] = answer
    if verb[0] == "monitor" or "--watch" in verb:
        fake.answers["GET /v1/monitor"] = fake.answers["GET /v1/flows?watch=1"] = stream(answer)
        cli(*verb, expect=1)
        return
    cli(*verb)


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_long_list_that_breaks_off(fake, cli, output):
    whole = b'{"items": [{"state": "one", "n": [1, {"x": "]}"}]}, {"state": "two"}, {"st'
    fake.answers["GET /v1/flows"] = (200, whole)
    out, err = cli("-o", output, "flows", expect=1)
    assert "one" in out and "two" in out and "not JSON" in err
    for end in (b'x"}]}', b'ate": 1}}', b'ate": }]}', b'ate": 1}]}}', b'ate": 1}]} 1'):
        fake.answers["GET /v1/flows"] = (200, whole + end)
        assert "not JSON" in cli("-o", output, "flows", expect=1)[1]
    fake.answers["GET /v1/flows"] = (200, b'{"items": [{"state": "' + b"x" * (2 << 20) + b'"}]}')
    assert "too long" in cli("-o", output, "flows", expect=1)[1]


def test_error_without_json(fake, cli):
    for body in (b"oops", b"{}", b'{"error": 5}', b"[]"):
        fake.answers["GET /v1/status"] = (500, body)
        assert cli("status", expect=1)[1] == "heddle: the daemon answered with HTTP status 500\n"
    fake.answers["GET /v1/status"] = (301, b"{}")
    cli("status", expect=1)


def test_error_details_may_be_anything(fake, cli):
    fake.answers["GET /v1/status"] = (400, {"error": "a\x1b[31m", "details": [5, None, "x\x07", {"a": 1}]})
    assert cli("status", expect=1)[1] == "heddle: a\\x1b[31m\n  x\\x07\n"


def test_slow_daemon(fake, cli):
    fake.answers["GET /v1/status"] = lambda handler: time.sleep(10)
    started = time.monotonic()
    _, err = cli("status", expect=1, env={"HEDDLE_TIMEOUT": "300ms"})
    assert err == "heddle: the daemon did not answer within 300ms\n" and time.monotonic() - started < 5
    started = time.monotonic()
    cli("wait", "--timeout", "300ms", expect=1)
    assert time.monotonic() - started < 5


def test_daemon_hangs_up(tmp_path, lonely):
    server = socket.socket(socket.AF_UNIX)
    server.bind(lonely.socket)
    server.listen()

    def serve():
        for reply in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"SSH-2.0-x\r\n"):
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(reply)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    for _ in range(3):
        lonely("status", expect=1)
    server.close()


def test_long_line_in_a_stream(fake, cli):
    fake.answers["GET /v1/monitor"] = stream(b"x" * (2 << 20), end=False)
    assert "too long" in cli("monitor", expect=1)[1]


def test_bad_line_in_a_stream(fake, cli):
    fake.answers["GET /v1/monitor"] = stream({"verdict": "deny"}, b"{broken", end=False)
    out, err = cli("-o", "json", "monitor", expect=1)
    assert out == '{"verdict":"deny"}\n' and "not JSON" in err


def test_refused_stream(fake, cli):
    fake.answers["GET /v1/monitor"] = (503, {"error": "too many streams"})
    assert cli("monitor", expect=1)[1] == "heddle: too many streams\n"


def test_stream_lines_come_at_once(fake, cli):
    fake.answers["GET /v1/monitor"] = stream({"verdict": "deny"}, end=False)
    process = subprocess.Popen([BINARY, "--socket", fake.path, "-o", "json", "monitor"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b'{"verdict":"deny"}\n'
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == -signal.SIGINT
    process.stdout.close()


def test_full_output(fake):
    fake.answers["GET /v1/status"] = {"ready": True}
    for arguments in (["status"], ["-o", "json", "status"], ["-o", "yaml", "status"], ["--help"], ["completion", "bash"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([BINARY, "--socket", fake.path, *arguments], stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 1, arguments


def test_documents_that_cannot_be_read(fake, cli, tmp_path):
    for path in (tmp_path / "none", tmp_path):
        _, err = cli("apply", "-f", str(path), expect=1)
        assert str(path) in err
    big = tmp_path / "big"
    with open(big, "wb") as file:
        file.truncate((64 << 20) + 1)
    assert "more than 64 MiB" in cli("apply", "-f", str(big), expect=1)[1]
    assert fake.requests == []


@pytest.mark.parametrize("arguments", [
    [], ["nosuch"], ["preview"], ["doctor", "x"], ["doctor", "--sysroot"], ["capture"], ["vf", "x"], ["policy"], ["policy", "mend"], ["policy", "lint", "x"], ["status", "x"], ["get"], ["get", "a", "b", "c"],
    ["get", ""], ["delete", "host"], ["delete", "host", ""], ["apply"], ["apply", "-f"], ["apply", "x"], ["diff"], ["-o", "xml", "status"],
    ["status", "-o"], ["--nosuch", "status"], ["status", "--nosuch"], ["status", "-x"], ["status", "--help=x"], ["wait", "--timeout", "5"],
    ["wait", "--timeout", "soon"], ["wait", "--timeout", ""], ["apply", "-f", "-", "--confirm", "0s"], ["apply", "-f", "-", "--confirm", "60"],
    ["apply", "-f", "-", "--confirm", "-5s"], ["explain"], ["explain", "--from", "::1"], ["completion"], ["completion", "fish"],
    ["explain", "--from", "a", "--to", "b", "--dport", "65536"], ["explain", "--from", "a", "--to", "b", "--dport", "-1"],
    ["explain", "--from", "a", "--to", "b", "--sport", "http"], ["explain", "--from", "a", "--to", "b", "--icmp-type", "256"],
    ["explain", "--from", "a", "--to", "b", "--vlan", "-1"], ["explain", "--from", "a", "--to", "b", "--vlan", "4095"],
    ["explain", "--from", "a", "--to", "b", "--vlan", "1,"], ["explain", "--from", "a", "--to", "b", "--vlan", "1,2,3"],
    ["explain", "--from", "a", "--to", "b", "--vlan", ",1"], ["explain", "--from", "a", "--to", "b", "--uplink", "x", "--egress", "y"],
    ["explain", "--pcap", "x", "--from", "a"], ["explain", "--from", "a", "--to", "b", "--port", "p", "--uplink", "y"],
    ["explain", "--from", "a", "--to", "b", "--port", "p", "--egress", "y"], ["explain", "--from", b"\xff", "--to", "b"],
    ["explain", "--from", "a", "--to", "b", "--peer", "p", "--port", "q"], ["explain", "--from", "a", "--to", "b", "--peer", "p", "--egress", "y"], ["--socket", "x" * 200, "status"],
], ids=str)
def test_usage(fake, cli, arguments):
    cli(*arguments, expect=2)
    assert fake.requests == []


def test_usage_by_environment(fake, cli):
    cli("status", env={"HEDDLE_TIMEOUT": "x"}, expect=2)
    cli("status", env={"HEDDLE_TIMEOUT": "0s"}, expect=2)


def test_socket_from_the_environment(fake):
    fake.answers["GET /v1/status"] = {"ready": True}
    done = subprocess.run([BINARY, "status"], env={"HEDDLE_SOCKET": fake.path}, capture_output=True)
    assert done.returncode == 0
    done = subprocess.run([BINARY, "status", "--socket", fake.path], env={"HEDDLE_SOCKET": "/nowhere"}, capture_output=True)
    assert done.returncode == 0


def test_no_proxy(fake, cli):
    fake.answers["GET /v1/status"] = {"ready": True}
    cli("status", env={"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"})


def test_help_and_version(lonely):
    out, _ = lonely("--help")
    for verb in ("status", "wait", "apply", "diff", "preview", "policy", "confirm", "get", "delete", "flows", "monitor", "explain", "rules", "counters", "completion"):
        assert f"\n  {verb} " in out
        text, _ = lonely(verb, "--help")
        assert text.startswith(f"usage: heddle [OPTIONS] {verb}") and "--socket" in text
    assert lonely("--version")[0].startswith("heddle ")
    assert lonely("status", "-h")[0].startswith("usage:")
