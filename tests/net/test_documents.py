# SPDX-License-Identifier: Apache-2.0
"""Files, apply, get, delete, diff and apply --confirm, on a running host."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import time

import pytest
from lib import documents as doc
from lib import traffic
from lib.documents import DENY_ALL, DENY_IN, group, policy, rule
from lib.heddled import HEDDLED, Monitor, wait_for
from lib.traffic import expect_tcp


@pytest.fixture
def up(plain):
    g = plain()
    with traffic.Servers(g.server, tcp=[7800, 7801, 7802]):
        yield g


def tcp(up, port):
    return traffic.tcp_probe(up.client, up.server4, port, 0.15)


def test_files_are_watched(up):
    path = up.daemon.write("10-web.yaml", policy("web", ingress=[rule("allow", "TCP", 7800)], default=DENY_IN))
    wait_for(lambda: tcp(up, 7801) == "timeout", what="new file in force")
    expect_tcp(up.client, up.server4, 7800, "open")
    # written in place, as `cat >` does
    with open(path, "w", encoding="utf-8") as f:
        f.write(doc.text(policy("web", ingress=[rule("allow", "TCP", 7801)], default=DENY_IN)))
    wait_for(lambda: tcp(up, 7801) == "open" and tcp(up, 7800) == "timeout", what="changed file in force")
    os.unlink(path)
    wait_for(lambda: tcp(up, 7800) == "open", what="removed file no longer in force")


def test_a_bad_file_changes_nothing_and_is_named(up):
    up.daemon.write("10-web.yaml", policy("web", ingress=[rule("allow", "TCP", 7800)], default=DENY_IN))
    wait_for(lambda: tcp(up, 7801) == "timeout", what="policy in force")
    generation = up.daemon.generation()
    up.daemon.write(
        "20-bad.yaml",
        "apiVersion: heddle.dev/v1alpha1\n"
        "kind: HostPolicy\n"
        "metadata: {name: bad}\n"
        "spec:\n"
        "  priority: 1\n"
        "  ingress:\n"
        "  - action: allow\n"
        "    ports:\n"
        "    - protocol: TCP\n"
        "      port: 70000\n",
    )
    error = wait_for(lambda: up.daemon.status().get("lastError"), what="lastError in status")
    assert "20-bad.yaml:10: spec.ingress[0].ports[0].port: want" in json.dumps(error), error
    assert "70000" in json.dumps(error)
    assert "20-bad.yaml:10:" in up.daemon.log()
    assert up.daemon.generation() == generation
    assert (tcp(up, 7800), tcp(up, 7801)) == ("open", "timeout")
    up.daemon.unlink("20-bad.yaml")
    up.daemon.write("30-more.yaml", policy("more", 50, ingress=[rule("allow", "TCP", 7801)]))
    wait_for(lambda: tcp(up, 7801) == "open", what="a good change after the bad file is gone")


def test_check_needs_no_privilege_over_the_machine_and_names_mistakes(up, tmp_path):
    good = tmp_path / "good.yaml"
    good.write_text(doc.text(doc.host("nosuch0"), policy(ingress=[rule("allow", "TCP", 1)])))
    result = subprocess.run([HEDDLED, "--check", "--config", str(good)], capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 0, result.stderr
    bad = tmp_path / "bad.yaml"
    bad.write_text(doc.text(doc.host("nosuch0")) + "---\n" + doc.text(policy(ingress=[rule("allow", "TCP", 1, tpyo=1)])))
    result = subprocess.run([HEDDLED, "--check", "--config", str(bad)], capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 1
    assert "bad.yaml:" in result.stderr + result.stdout and "tpyo" in result.stderr + result.stdout


@pytest.mark.parametrize("argv, status, message", [
    (["--check", "--config", "/nonexistent"], 1, "/nonexistent: want a file or directory, got No such file or directory"),
    (["--check", "--config", "/dev/null"], 1, "/dev/null: want a regular file, got a pipe, a socket or a device"),
    (["--check", "web.yaml"], 2, "heddled: want options only, got web.yaml; heddled --help lists them"),
    (["--check", "--detach"], 2, "heddled: --detach: want it without --check"),
    *((["--metrics", wrong], 2, f"heddled: --metrics: want ADDR:PORT, such as 127.0.0.1:9100 or [::1]:9100, got {wrong}")
      for wrong in ("nope", ":9100", "127.0.0.1:0", "127.0.0.1:99999", "[::1]:x", "::1:9100", "127.0.0.1:+9100")),
])
def test_options_that_mean_nothing(argv, status, message):
    """A path that is not there is a configuration for a running agent, but a mistyped one in a commit hook."""
    result = subprocess.run([HEDDLED, *argv], capture_output=True, text=True, timeout=20, check=False)
    assert (result.returncode, result.stderr.strip()) == (status, message)


def test_a_missing_path_is_told_at_the_start(plain, tmp_path):
    missing = tmp_path / "hedle"
    up = plain(start=False)
    up.daemon.options += ["--config", str(missing)]
    up.daemon.start()
    assert f"there is no {missing}: it declares nothing" in up.daemon.log()


def test_kinds_that_there_are_not(up):
    for verb in (["get", "policy"], ["delete", "policy", "x"]):
        refused = up.daemon.cli(*verb, check=False)
        assert refused.returncode == 1
        assert "no such kind: policy\n  want Host, Network, Port, " in refused.stderr
    assert "built-in rules have no documents" in up.daemon.cli("get", "builtin", "arp", check=False).stderr


def test_a_full_disk_is_named(plain):
    up = plain(start=False)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", up.daemon.state_dir], check=True)
    try:
        up.daemon.start()
        generation = up.daemon.generation()
        many = doc.text(*(group(f"g{i}", f"10.{i // 250}.{i % 250}.0/24") for i in range(1000)))
        refused = up.daemon.cli("apply", "-f", "-", input=many, check=False)
        assert refused.returncode == 1
        assert f"{up.daemon.state_dir}/applied.log: cannot be written: nothing is changed" in refused.stderr
        assert up.daemon.generation() == generation
    finally:
        up.daemon.kill()
        subprocess.run(["umount", up.daemon.state_dir], check=True)


def test_apply_get_delete_by_the_cli(up, tmp_path):
    f = tmp_path / "p.yaml"
    f.write_text(doc.text(group("friends", "192.0.2.0/24"), policy("mine", ingress=[rule("deny", "TCP", 7800, name="no")])))
    up.daemon.cli("apply", "-f", f)
    expect_tcp(up.client, up.server4, 7800, "timeout")
    items = up.daemon.json("get", "hostpolicy")["items"]
    assert [i["metadata"]["name"] for i in items] == ["mine"]
    one = up.daemon.json("get", "HostPolicy", "mine")
    assert one["kind"] == "HostPolicy" and one["spec"]["ingress"][0]["name"] == "no"
    assert up.daemon.json("get", "addressgroup", "friends")["spec"]["cidrs"] == ["192.0.2.0/24"]
    # what get printed can be applied again
    again = up.daemon.cli("apply", "-f", "-", input=json.dumps(one))
    assert again.returncode == 0
    up.daemon.cli("delete", "hostpolicy", "mine")
    expect_tcp(up.client, up.server4, 7800, "open")
    assert up.daemon.cli("get", "hostpolicy", "mine", check=False).returncode == 1
    assert up.daemon.cli("delete", "hostpolicy", "mine", check=False).returncode == 1


NETWORK = {"apiVersion": "heddle.dev/v1alpha1", "kind": "Network", "metadata": {"name": "blue"}, "spec": {"subnets": ["10.77.0.0/24"]}}


def port(namespace, number):
    return {"apiVersion": "heddle.dev/v1alpha1", "kind": "Port", "metadata": {"name": "web", "namespace": namespace},
            "spec": {"device": f"nosuch{number}", "network": "blue", "addresses": [f"10.77.0.{number}"]}}


def netpol(namespace):
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": namespace},
            "spec": {"podSelector": {}, "ingress": [{}]}}


def test_objects_in_namespaces(up):
    daemon = up.daemon
    daemon.apply(NETWORK, port("default", 1), port("shop", 2), netpol("shop"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    assert [i["metadata"]["namespace"] for i in daemon.json("get", "ports")["items"]] == ["default", "shop"]
    assert [i["spec"]["device"] for i in daemon.json("get", "port", "-n", "shop")["items"]] == ["nosuch2"]
    assert daemon.json("get", "port", "web")["spec"]["device"] == "nosuch1"
    assert daemon.json("get", "port", "web", "-n", "shop")["spec"]["device"] == "nosuch2"
    assert daemon.json("get", "ns", "shop")["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop"}
    assert daemon.cli("get", "netpol", "web", check=False).returncode == 1
    # what get printed can be applied again, and says the same
    again = daemon.json("get", "netpol", "web", "-n", "shop")
    assert [i["result"] for i in json.loads(daemon.cli("-o", "json", "apply", "-f", "-", input=json.dumps(again)).stdout)["items"]] == ["unchanged"]
    # what is only wrong beside others is refused, and names them
    result = daemon.cli("apply", "-f", "-", input=doc.text(port("third", 2)), check=False)
    assert result.returncode == 1 and "nosuch2, which Port shop/web has" in result.stderr, result.stderr
    assert daemon.cli("delete", "network", "blue", check=False).returncode == 1
    # they are there again after a restart, each in its namespace, and go from theirs only
    daemon.restart()
    assert len(daemon.json("get", "ports")["items"]) == 2
    daemon.cli("delete", "port", "web", "-n", "shop")
    assert [i["metadata"]["namespace"] for i in daemon.json("get", "ports")["items"]] == ["default"]
    assert daemon.status()["objects"]["NetworkPolicy"] == 1
    expect_tcp(up.client, up.server4, 7800, "open")


def test_apply_is_one_transaction(up):
    bad = policy("second", ingress=[rule("allow", "TCP", 1, peers=["no-such-group"])])
    result = up.daemon.cli("apply", "-f", "-", input=doc.text(policy("first", default=DENY_ALL), bad), check=False)
    assert result.returncode == 1
    assert "no-such-group" in result.stderr
    assert up.daemon.json("get", "hostpolicy")["items"] == []
    expect_tcp(up.client, up.server4, 7800, "open")


def test_what_a_file_owns_cannot_be_changed_through_the_api(up):
    up.daemon.write("10-web.yaml", policy("web", default=DENY_IN))
    wait_for(lambda: tcp(up, 7800) == "timeout", what="file in force")
    result = up.daemon.cli("apply", "-f", "-", input=doc.text(policy("web", default={"ingress": "allow"})), check=False)
    assert result.returncode == 1 and "10-web.yaml" in result.stderr
    assert up.daemon.cli("delete", "hostpolicy", "web", check=False).returncode == 1
    expect_tcp(up.client, up.server4, 7800, "timeout")


def test_applied_objects_survive_restart_and_the_loss_of_run_and_bpffs(up):
    up.daemon.apply(policy("mine", ingress=[rule("deny", "TCP", 7800)]))
    up.daemon.restart()
    expect_tcp(up.client, up.server4, 7800, "timeout")
    up.daemon.detach()
    expect_tcp(up.client, up.server4, 7800, "open")
    up.daemon.start()
    expect_tcp(up.client, up.server4, 7800, "timeout")


def test_diff_says_what_would_change_and_changes_nothing(up):
    up.daemon.apply(policy("mine", ingress=[rule("deny", "TCP", 7800)]))
    generation = up.daemon.generation()
    changed = policy("mine", ingress=[rule("deny", "TCP", 7801)])
    items = json.loads(
        up.daemon.cli("-o", "json", "diff", "-f", "-", input=doc.text(changed, group("new", "192.0.2.0/24"))).stdout
    )["items"]
    assert {(i["name"], i["change"]) for i in items if i["change"] != "none"} == {("mine", "update"), ("new", "create")}
    expect_tcp(up.client, up.server4, 7800, "timeout")
    assert up.daemon.generation() == generation


def test_confirm_keeps_and_silence_rolls_back(up):
    up.daemon.cli("apply", "-f", "-", "--confirm", "1s", input=doc.text(policy("mine", ingress=[rule("deny", "TCP", 7800)])))
    expect_tcp(up.client, up.server4, 7800, "timeout")
    wait_for(lambda: tcp(up, 7800) == "open", timeout=4, what="rollback")
    assert up.daemon.json("get", "hostpolicy")["items"] == []
    up.daemon.cli("apply", "-f", "-", "--confirm", "1s", input=doc.text(policy("mine", ingress=[rule("deny", "TCP", 7800)])))
    up.daemon.cli("confirm")
    time.sleep(1.5)
    expect_tcp(up.client, up.server4, 7800, "timeout")
    assert up.daemon.cli("confirm", check=False).returncode == 1  # nothing is pending


@pytest.mark.parametrize("back", ["before the deadline", "after the deadline"])
def test_rollback_also_when_heddled_was_killed(up, back):
    up.daemon.apply(policy("old", ingress=[rule("deny", "TCP", 7801)]))
    # Starting takes its time on a busy machine
    up.daemon.apply(policy("new", ingress=[rule("deny", "TCP", 7800)]), confirm="6s" if back == "before the deadline" else "2s")
    expect_tcp(up.client, up.server4, 7800, "timeout")
    up.daemon.kill()
    if back == "after the deadline":
        time.sleep(2.2)
    up.daemon.start()
    if back == "before the deadline":
        assert tcp(up, 7800) == "timeout"
    wait_for(lambda: tcp(up, 7800) == "open", timeout=5, what="rollback after the restart")
    expect_tcp(up.client, up.server4, 7801, "timeout")
    assert [i["metadata"]["name"] for i in up.daemon.json("get", "hostpolicy")["items"]] == ["old"]


def test_start_with_an_unreadable_config_keeps_the_last_good_state(up):
    up.daemon.write("10-web.yaml", policy("web", ingress=[rule("allow", "TCP", 7800)], default=DENY_IN))
    wait_for(lambda: tcp(up, 7801) == "timeout", what="policy in force")
    up.daemon.write("10-web.yaml", "this: [is not\n")
    up.daemon.detach()
    up.daemon.start()
    assert (tcp(up, 7800), tcp(up, 7801)) == ("open", "timeout")
    assert up.daemon.status()["lastError"]


def test_lockdown_when_there_is_no_last_good_state(plain):
    """A Host can be decoded, the rest cannot, and nothing good was ever seen: only failsafe ports and built-ins get in."""
    up = plain(start=False, host_spec={"failsafe": [{"protocol": "TCP", "port": 22}]})
    up.daemon.write("10-web.yaml", "kind: HostPolicy\nthis is: [not a policy\n")
    with traffic.Servers(up.server, tcp=[22, 7800]):
        up.daemon.start()
        expect_tcp(up.client, up.server4, 22, "open")
        expect_tcp(up.client, up.server4, 7800, "timeout")
        assert not traffic.ping(up.client, up.server4, answered=False)
        assert up.daemon.status()["lastError"]
        up.daemon.write("10-web.yaml", policy("web", ingress=[rule("allow", "TCP", 7800)], default=DENY_IN))
        wait_for(lambda: tcp(up, 7800) == "open", what="the repaired file in force")


def test_nothing_attaches_when_no_host_can_be_decoded(plain):
    up = plain(start=False)
    up.daemon.write("00-host.yaml", "kind: Host\nnonsense: [\n")
    up.daemon.start(wait=False)
    assert up.daemon.cli("wait", "--timeout", "1s", check=False, timeout=10).returncode != 0
    assert up.daemon.process.poll() is None, "a config that cannot be read ended the daemon"
    assert up.daemon.json("status")["ready"] is False
    with traffic.Servers(up.server, tcp=[7800]):
        expect_tcp(up.client, up.server4, 7800, "open")
    up.daemon.write("00-host.yaml", doc.host("up0", "off"))
    up.daemon.wait()


def test_an_empty_directory_is_a_valid_configuration(plain):
    up = plain(start=False)
    up.daemon.unlink("00-host.yaml")
    up.daemon.start(wait=False)
    wait_for(lambda: os.path.exists(up.daemon.socket), what="socket")
    assert up.daemon.cli("status").returncode == 0
    assert "up0" in json.dumps(up.daemon.status()["unguarded"])


def test_hup_reloads(up):
    up.daemon.write("10-web.yaml", policy("web", ingress=[rule("deny", "TCP", 7800)]))
    up.daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: tcp(up, 7800) == "timeout", what="policy in force")
    assert up.daemon.process.poll() is None


def test_exit_statuses_of_the_cli(up):
    assert up.daemon.cli("status").returncode == 0
    assert up.daemon.cli("nonsense", check=False).returncode == 2
    assert up.daemon.cli("get", check=False).returncode == 2
    for wrong in ("--nonsense", "--run-dir"):
        result = up.server.run(HEDDLED, wrong, check=False)
        assert result.returncode == 2 and wrong in result.stderr and result.stderr.endswith("heddled --help lists the options\n")
        assert len(result.stderr.splitlines()) == 2, "what is wrong is not pushed off the screen"
    up.daemon.stop()
    assert up.daemon.cli("status", check=False).returncode == 3


def test_a_refused_file_comes_into_force_when_its_obstacle_goes(up):
    """An applied object holds the name; the message says to delete it there, and that has to be enough."""
    up.daemon.apply(policy("mine", ingress=[rule("deny", "TCP", 7800)]))
    up.daemon.write("10-mine.yaml", policy("mine", ingress=[rule("deny", "TCP", 7801)]))
    wait_for(lambda: "mine" in json.dumps(up.daemon.status()["lastError"]), what="refusal in status")
    assert (tcp(up, 7800), tcp(up, 7801)) == ("timeout", "open")
    up.daemon.cli("delete", "hostpolicy", "mine")
    wait_for(lambda: (tcp(up, 7800), tcp(up, 7801)) == ("open", "timeout"), what="the file in force")
    assert up.daemon.status()["lastError"] is None


@pytest.mark.parametrize("number", [64, 100, 200])
def test_the_api_recovers_from_too_many_connections(up, number):
    """Clients that connect and say nothing hold it up for a while at most, and not once they are gone."""
    clients = []
    for _ in range(number):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(0.5)
        clients.append(s)
        try:
            s.connect(up.daemon.socket)
            s.send(b"POST /v1/apply HTTP/1.1\r\nContent-Le")
        except OSError:
            break  # no more are taken
    time.sleep(0.5)
    for s in clients:
        s.close()
    assert up.daemon.cli("status", timeout=10).returncode == 0


def test_a_thousand_idle_connections_hold_up_nobody(up):
    """Root may have any number, and streams and requests go on meanwhile: the longest idle ones make room for who comes."""
    with Monitor(up.daemon, "--drops") as monitor, contextlib.ExitStack() as clients:
        for _ in range(1000):
            s = clients.enter_context(socket.socket(socket.AF_UNIX))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 20, 0))  # of connect(): the queue holds 64
            s.connect(up.daemon.socket)
        begun = time.monotonic()
        for _ in range(10):
            assert up.daemon.cli("status", timeout=20).returncode == 0
        assert time.monotonic() - begun < 15, "one idle connection is timed out after 30 s"
        up.daemon.apply(policy("web", ingress=[rule("deny", "TCP", 7800)]))
        assert tcp(up, 7800) == "timeout"
        monitor.find(verdict="deny", destinationPort=7800)


def test_a_full_disk_refuses_an_apply_and_changes_nothing(plain):
    up = plain(start=False)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", up.daemon.state_dir], check=True)
    up.daemon.start()
    with traffic.Servers(up.server, tcp=[7800]):
        rules = [rule("deny", "TCP", 7800 + i, name=f"{'x' * 40}{i}") for i in range(500)]
        result = up.daemon.cli("apply", "-f", "-", input=doc.text(policy("big", ingress=rules)), check=False)
        assert result.returncode == 1 and "space" in result.stderr
        expect_tcp(up.client, up.server4, 7800, "open")
        assert up.daemon.json("get", "hostpolicy")["items"] == []
        up.daemon.apply(policy("small", ingress=[rule("deny", "TCP", 7800)]))
        up.daemon.restart()
        expect_tcp(up.client, up.server4, 7800, "timeout")


def test_a_full_disk_is_told_until_the_last_good_state_is_on_it(plain):
    """What files say is in force without the disk, so nothing is refused: the status and a metric say that a start would find what was before."""
    up = plain(start=False)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", up.daemon.state_dir], check=True)
    up.daemon.start()
    filler = os.path.join(up.daemon.state_dir, "filler")

    def metric():
        return 'heddle_unsaved{file="files.last-good"} 1' in up.daemon.api.get("/metrics")

    def last_good():
        with open(os.path.join(up.daemon.state_dir, "files.last-good"), encoding="utf-8") as f:
            return f.read()

    wait_for(lambda: os.path.exists(os.path.join(up.daemon.state_dir, "files.last-good")), what="the first state")
    with traffic.Servers(up.server, tcp=[7800]):
        with open(filler, "wb", buffering=0) as f, contextlib.suppress(OSError):
            while f.write(b"x" * 4096):
                pass
        assert up.daemon.status()["unsaved"] == [] and not metric()
        up.daemon.write("10-web.yaml", policy("web", ingress=[rule("deny", "TCP", 7800)]))
        wait_for(lambda: up.daemon.status()["unsaved"], what="the failed write in the status")
        (unsaved,) = up.daemon.status()["unsaved"]
        assert unsaved["file"] == "files.last-good" and "space" in unsaved["reason"] and unsaved["since"]
        assert metric() and up.daemon.status()["lastError"] is None and "web" not in last_good()
        assert "NOT ON DISK" in up.daemon.cli("status").stdout
        expect_tcp(up.client, up.server4, 7800, "timeout")
        # what is refused meanwhile changes nothing of that
        up.daemon.write("20-bad.yaml", "kind: Nonsense")
        wait_for(lambda: up.daemon.status()["lastError"], what="the refusal")
        assert up.daemon.status()["unsaved"] == [unsaved]
        up.daemon.unlink("20-bad.yaml")
        wait_for(lambda: not up.daemon.status()["lastError"], what="no refusal")
        assert up.daemon.status()["unsaved"] == [unsaved]
        assert up.daemon.log().count("cannot keep the last good documents") == 1
        # it is tried again without any change
        os.unlink(filler)
        wait_for(lambda: not up.daemon.status()["unsaved"], timeout=30, what="the write")
        assert "web" in last_good() and not metric() and "NOT ON DISK" not in up.daemon.cli("status").stdout
