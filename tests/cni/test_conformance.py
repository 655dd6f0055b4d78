# SPDX-License-Identifier: Apache-2.0
"""The specification's text, and what runtimes do beyond it, one verb and one mistake at a time."""

import json
import os
import re

import pytest
from lib import documents as doc
from lib.heddled import ApiError
from runtime import VERSIONS, CniError

ATTACHMENT = ["ADD", "DEL", "CHECK"]


def failure(runtime, command, container=None, **options):
    """The error that a call ends with, which is JSON of the right shape on standard output and words on standard error."""
    with pytest.raises(CniError) as caught:
        runtime.call(command, container, **options)
    error = caught.value
    assert error.status == 1
    assert isinstance(error.error["code"], int) and error.error["msg"] and "details" in error.error
    assert error.error["cniVersion"] in VERSIONS
    assert error.error["msg"].split("\n")[0] in error.stderr
    return error


def raw(runtime, text, command="ADD", **variables):
    env = runtime.environment(command, **variables)
    return runtime.execute("heddle-cni", env, text)


# --- VERSION ---


@pytest.mark.parametrize("version", VERSIONS)
def test_version_in_the_callers_version(host, version):
    assert host.runtime(version=version).call("VERSION") == {"cniVersion": version, "supportedVersions": VERSIONS}


def test_version_without_input_or_of_the_future(host):
    for text in ("", "{}", '{"cniVersion": "9.0.0"}'):
        status, answer, _ = raw(host.runtime(), text, "VERSION")
        assert (status, answer) == (0, {"cniVersion": "1.1.0", "supportedVersions": VERSIONS})


# --- environment ---


@pytest.mark.parametrize("verb, needed", [("ADD", "CNI_CONTAINERID CNI_NETNS CNI_IFNAME"), ("DEL", "CNI_CONTAINERID CNI_IFNAME"),
                                          ("CHECK", "CNI_CONTAINERID CNI_NETNS CNI_IFNAME"), ("GC", "CNI_PATH")])
@pytest.mark.parametrize("value", [None, ""])
def test_missing_variables_are_all_named(host, verb, needed, value):
    runtime = host.runtime(version="1.1.0")
    names = needed.split()
    error = failure(runtime, verb, host.container(), variables={n: value for n in names})
    assert error.code == 4
    assert all(n in error.msg for n in names)
    if len(names) > 1:
        error = failure(runtime, verb, host.container(), variables={names[0]: value})
        assert names[0] in error.msg and names[1] not in error.msg


def test_commands_that_are_none(host):
    for command in ("add", "UPDATE", "ADD "):
        assert failure(host.runtime(), command, host.container()).code == 4
    status, answer, err = raw(host.runtime(), "{}", CNI_COMMAND=None)
    assert status == 1 and answer["code"] == 4 and "CNI plugin" in err


@pytest.mark.parametrize("verb", ATTACHMENT)
@pytest.mark.parametrize("variable, values", [
    ("CNI_CONTAINERID", ["-a", "a/b", "a b", "ä", "x" * 201, "a;b"]),
    ("CNI_IFNAME", [".", "..", "a/b", "a:b", "a b", "x" * 16, "a\tb"]),
])
def test_invalid_variables(host, verb, variable, values):
    c = host.container()
    for value in values:
        error = failure(host.runtime(), verb, c, previous={"ips": []}, variables={variable: value})
        assert error.code == 4 and variable in error.msg


def test_arguments(host):
    c = host.container()
    error = failure(host.runtime(), "ADD", c, args="K8S_POD_NAME")
    assert error.code == 4 and "CNI_ARGS" in error.msg
    host.runtime().add(c, args=";IgnoreUnknown=1;WHAT=EVER;K8S_POD_NAMESPACE=;")
    assert host.attachments()[0]["port"]["namespace"] == "default"


def test_namespaces_that_are_none(host, tmp_path):
    runtime, c = host.runtime(), host.container()
    plain = tmp_path / "file"
    plain.write_text("")
    assert failure(runtime, "ADD", c, variables={"CNI_NETNS": "/nowhere/at/all"}).code == 3
    assert failure(runtime, "ADD", c, variables={"CNI_NETNS": str(plain)}).code == 4
    assert failure(runtime, "ADD", c, variables={"CNI_NETNS": "/proc/self/ns/uts"}).code == 4
    assert failure(runtime, "ADD", c, variables={"CNI_NETNS": host.ns.path}).code == 8
    assert host.devices() == [] and host.attachments() == []


# --- configuration ---


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "null", "{} {}", '{"cniVersion": 1}', '{"cniVersion":"1.0.0","name":7}',
                                  '{"cniVersion":"1.0.0","name":"n","network":"blue","ipam":[]}', "\0", '{"name":"\\ud800"}'])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_input_that_cannot_be_decoded(host, text, verb):
    c = host.container()
    status, answer, _ = raw(host.runtime(), text, verb, container=c)
    assert status == 1 and answer["code"] == 6, answer


@pytest.mark.parametrize("verb", [*ATTACHMENT, "GC", "STATUS"])
def test_versions_that_are_not_spoken(host, verb):
    for version in ("0.5.0", "1.2.0", "2.0.0", "latest"):
        error = failure(host.runtime(version=version), verb, host.container())
        assert error.code == 1 and version in error.msg
        assert error.error["cniVersion"] == "1.1.0"


@pytest.mark.parametrize("verb, since", [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")])
def test_verbs_of_later_versions(host, verb, since):
    for version in VERSIONS[: VERSIONS.index(since)]:
        assert failure(host.runtime(version=version), verb, host.container(), previous={}).code == 1


@pytest.mark.parametrize("change, word", [
    ({"name": ...}, "name"), ({"name": ""}, "name"), ({"name": "-x"}, "name"), ({"name": "a/b"}, "name"),
    ({"network": ...}, "network"), ({"network": "red"}, "red"), ({"ipam": {"type": "../sh"}}, "ipam.type"),
    ({"ipam": {"type": "no-such-ipam"}}, "ipam.type"), ({"ipam": {"ranges": ["10.99.0.0/24"]}}, "ipam.ranges"),
    ({"ipam": {"ranges": ["10.77.0.9-10.77.0.3"]}}, "ipam.ranges"), ({"ipam": {"ranges": {}}}, "ipam.ranges"),
    ({"ipam": {"ranges": [7]}}, "ipam.ranges"), ({"labels": {"a": 1}}, "labels"), ({"labels": {"a b": "c"}}, "labels"),
    ({"runtimeConfig": []}, "runtimeConfig"), ({"runtime_config": {"ips": ["x"]}}, "ips"), ({"runtime_config": {"ips": ["10.99.0.1"]}}, "ips"),
    ({"runtime_config": {"ips": ["10.77.0.254"]}}, "ips"), ({"runtime_config": {"ips": ["10.77.0.0"]}}, "ips"),
    ({"runtime_config": {"ips": ["10.77.0.255"]}}, "ips"), ({"runtime_config": {"ips": [1]}}, "ips"), ({"runtime_config": {"mac": "x"}}, "mac"),
    ({"runtime_config": {"portMappings": {}}}, "portMappings"), ({"runtime_config": {"portMappings": [{"hostPort": 70000}]}}, "hostPort"),
    ({"runtime_config": {"portMappings": [{"hostPort": 1, "protocol": "icmp"}]}}, "protocol"),
    ({"runtime_config": {"PortMappings": [{"HostPort": 1, "ContainerPort": 1, "Protocol": "tcp", "HostIP": ""}]}}, "routes to the host"), ({"runtime_config": {"bandwidth": 7}}, "bandwidth"),
    ({"runtime_config": {"bandwidth": {"ingressRate": -1}}}, "ingressRate"), ({"dns": {"nameservers": [1]}}, "nameservers"),
])
def test_invalid_configurations(host, change, word):
    error = failure(host.runtime(), "ADD", host.container(), **change)
    assert error.code == 7 and word in error.msg, error.msg
    assert host.devices() == [] and host.attachments() == []


# --- ADD: its result ---


def assert_addresses(texts):
    v4, v6 = texts
    assert re.fullmatch(r"10\.77\.0\.\d+/32", v4) and re.fullmatch(r"fd77::[0-9a-f]+/128", v6)


@pytest.mark.parametrize("version", [None, "0.1.0", "0.2.0"])
def test_results_until_0_2_0(host, version):
    c = host.container()
    runtime = host.runtime(version=version or ...)
    result = runtime.add(c, dns={"nameservers": ["10.0.0.1"], "domain": "example.org"})
    assert set(result) == {"cniVersion", "ip4", "ip6", "dns"} and result["cniVersion"] == (version or "0.1.0")
    assert_addresses([result["ip4"]["ip"], result["ip6"]["ip"]])
    assert (result["ip4"]["gateway"], result["ip6"]["gateway"]) == ("10.77.0.254", "fd77::fe")
    assert result["ip4"]["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.77.0.254"}]
    assert result["dns"] == {"nameservers": ["10.0.0.1"], "domain": "example.org"}
    runtime.delete(c)


@pytest.mark.parametrize("version", VERSIONS[2:])
def test_results_from_0_3_0(host, version):
    c = host.container()
    runtime = host.runtime(version=version)
    result = runtime.add(c)
    assert set(result) == {"cniVersion", "interfaces", "ips", "routes", "dns"} and result["cniVersion"] == version
    ours, theirs = result["interfaces"]
    assert ours["name"] in host.devices() and "sandbox" not in ours
    assert (theirs["name"], theirs["sandbox"]) == ("eth0", c.ns.path)
    inside = c.interface()
    assert theirs["mac"] == inside["address"] and inside["operstate"] == "UP"
    assert ("mtu" in theirs) == (version == "1.1.0") and theirs.get("mtu", 1500) == inside["mtu"]
    assert_addresses([ip["address"] for ip in result["ips"]])
    assert all(ip["interface"] == 1 for ip in result["ips"])
    assert [ip.get("version") for ip in result["ips"]] == ([None, None] if version >= "1" else ["4", "6"])
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.77.0.254"}, {"dst": "::/0", "gw": "fd77::fe"}]
    if version >= "0.4.0":
        runtime.check(c)
    runtime.delete(c)
    assert c.interface() is None and host.devices() == []


def test_on_a_switched_network_the_subnet_is_on_the_link(host):
    c = host.added(host.runtime(network="green"))
    assert [ip["address"].split("/")[1] for ip in c.result["ips"]] == ["24", "64"]
    assert {r["dst"] for r in c.routes()} >= {"default", "10.78.0.0/24", "fd78::/64"}


def test_a_second_add_leaves_the_first_alone(host):
    runtime = host.runtime()
    c = host.added(runtime)
    before = c.interface()
    error = failure(runtime, "ADD", c)
    assert error.code == 100 and "eth0" in error.msg
    # neither does one with another namespace, as if the runtime had forgotten
    other = host.container()
    error = failure(runtime, "ADD", c, variables={"CNI_NETNS": other.ns.path})
    assert error.code == 101 and "DEL" in error.msg
    assert other.interface() is None
    runtime.check(c)
    assert c.interface()["address"] == before["address"]


def test_two_interfaces_of_a_container(host):
    runtime = host.runtime()
    c = host.added(runtime)
    second = host.runtime(network="green", name="second").call("ADD", c, ifname="net1")
    assert second["interfaces"][1]["name"] == "net1"
    assert c.interface("net1") and c.interface("eth0")
    # the default route of the first stays
    assert [r["dev"] for r in c.routes() if r["dst"] == "default"] == ["eth0", "eth0"] or len(host.attachments()) == 2
    runtime.delete(c)
    assert c.interface("net1") and c.interface("eth0") is None


# --- what runtimes pass ---


def test_capabilities_by_any_name(host):
    runtime, c = host.runtime(), host.container()
    result = runtime.add(c, capabilities={"ips": True, "mac": True}, runtime_config={
        "Ips": ["10.77.0.99/24", "fd77::99"], "MAC": "02:aa:00:00:00:99", "portMappings": None, "Bandwidth": None,
        "dns": {"Servers": ["10.0.0.53"], "Searches": ["svc.example"], "Options": None}})
    assert [ip["address"] for ip in result["ips"]] == ["10.77.0.99/32", "fd77::99/128"]
    assert c.interface()["address"] == result["interfaces"][1]["mac"] == "02:aa:00:00:00:99"
    assert result["dns"] == {"nameservers": ["10.0.0.53"], "search": ["svc.example"]}
    error = failure(runtime, "ADD", host.container(), runtime_config={"ips": ["10.77.0.99"]})
    assert error.code == 101 and "10.77.0.99" in error.msg


def test_one_wanted_address_leaves_the_other_family_free(host):
    assert_addresses([ip["address"] for ip in host.added(host.runtime(), args="IP=10.77.0.70;MAC=02:aa:00:00:00:70").result["ips"]])
    c = host.added(host.runtime(), runtime_config={"ips": ["fd77::70"]})
    assert c.address(6) == "fd77::70" and c.address(4)


@pytest.mark.parametrize("runtime_config", [
    {"portMappings": []}, {"portMappings": [{"HostPort": 0, "ContainerPort": 80, "Protocol": "tcp"}]}, {"PortMappings": None},
    {"bandwidth": {}}, {"bandwidth": {"IngressRate": 0, "IngressBurst": 4294967295, "EgressRate": 0, "EgressBurst": 4294967295}},
])
def test_capabilities_that_ask_for_nothing(host, runtime_config):
    host.added(host.runtime(), runtime_config=runtime_config)


@pytest.mark.parametrize("asked, ingress, egress", [
    ({"IngressRate": 1000000, "IngressBurst": 4294967295}, (1000000, 400000), None),
    ({"egressRate": 2000000, "egressBurst": 1000000}, None, (2000000, 1000000)),
    ({"ingressRate": 1000000, "ingressBurst": 0, "egressRate": 30000000000, "egressBurst": 2147483647}, (1000000, 400000), (30000000000, 2130000000)),
])
def test_bandwidth(host, asked, ingress, egress):
    """Bits, both of them. A burst that is none is ours to choose."""
    c = host.added(host.runtime(), runtime_config={"bandwidth": asked})
    device = host.devices()[0]
    (port,) = [p for p in host.daemon.status()["ports"] if p["device"] == device]
    for way, wanted in (("ingress", ingress), ("egress", egress)):
        seen = port["bandwidth"][way]
        assert (seen and seen["rate"]) == (wanted and wanted[0])
        assert not wanted or abs(seen["burst"] / wanted[1] - 1) < 0.01
    host.runtime().delete(c, runtime_config={"bandwidth": asked})


def test_bandwidth_that_is_none(host):
    error = failure(host.runtime(), "ADD", host.container(), runtime_config={"bandwidth": {"ingressRate": 999}})
    assert error.code == 7 and "spec.bandwidth.ingress.rate" in error.msg


def test_pods_become_ports_with_labels(host):
    runtime = host.runtime(labels={"tier": "front"})
    c = host.added(runtime, args="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=x")
    port = host.attachments()[0]["port"]
    assert port["namespace"] == "shop" and re.fullmatch(r"web-1-[0-9a-f]{8}", port["name"])
    listed = host.daemon.api.get("/v1/objects/ports?namespace=shop")
    labels = listed["items"][0]["metadata"]["labels"]
    assert labels == {"io.kubernetes.pod.name": "web-1", "io.kubernetes.pod.namespace": "shop", "tier": "front"}
    assert listed["origins"][0]["source"] == "cni" and listed["origins"][0]["file"] is None
    assert c.id in listed["items"][0]["metadata"]["annotations"].values()
    assert re.search(r"web-1-\w+ +cni +hd", host.daemon.cli("get", "ports").stdout)


@pytest.mark.parametrize("args, namespace, name", [
    ("K8S_POD_NAME=my_app;K8S_POD_NAMESPACE=My_Space", "my-space", "my-app"), ("K8S_POD_NAME=__;K8S_POD_NAMESPACE=--", "default", "container"),
    ("K8S_POD_NAME=" + "a" * 253, "default", "a" * 63), ("K8S_POD_NAME=a.b", "default", "a-b"),
])
def test_names_that_are_no_kubernetes_names(host, args, namespace, name):
    host.added(host.runtime(), args=args)
    port = host.attachments()[0]["port"]
    assert port["namespace"] == namespace and port["name"].rsplit("-", 1)[0] == name


def test_labels_by_convention(host):
    c = host.container()
    config = host.runtime().config(args={"cni": {"labels": [{"key": "app", "value": "db"}], "ips": ["10.77.0.44"], "mac": None}})
    status, answer, _ = host.runtime().execute("heddle-cni", host.runtime().environment("ADD", c), config)
    assert status == 0 and answer["ips"][0]["address"] == "10.77.0.44/32"
    assert any("app" in p["metadata"]["labels"] for p in host.daemon.api.get("/v1/objects/ports")["items"])


def test_the_api_cannot_change_what_is_the_plugins(host):
    host.added(host.runtime())
    item = host.daemon.api.get("/v1/objects/ports")["items"][0]
    name = item["metadata"]["name"]
    item["metadata"]["labels"] = {"app": "stolen"}
    with pytest.raises(ApiError) as caught:
        host.daemon.api.post("/v1/apply", json.dumps(item))
    assert caught.value.status == 409 and "CNI" in caught.value.body
    result = host.daemon.cli("delete", "port", name, check=False)
    assert result.returncode == 1 and "CNI" in result.stderr
    # nor can its Network go from under it
    with pytest.raises(ApiError):
        host.daemon.apply(doc.network("blue", subnets=["10.1.0.0/24"]))


# --- chains ---


def test_results_of_earlier_plugins_stay(host):
    runtime, c = host.runtime(), host.container()
    before = {"cniVersion": "1.0.0", "interfaces": [{"name": "lo", "sandbox": c.ns.path}], "ips": [{"address": "127.0.0.1/8", "interface": 0}],
              "routes": [{"dst": "192.0.2.0/24"}], "dns": {"domain": "example"}}
    result = runtime.call("ADD", c, previous=before)
    assert [i["name"] for i in result["interfaces"]][0::2] == ["lo", "eth0"]
    assert result["ips"][0] == before["ips"][0] and {ip["interface"] for ip in result["ips"][1:]} == {2}
    assert result["routes"][0] == before["routes"][0] and result["dns"] == {"domain": "example"}
    runtime.call("CHECK", c, previous=result)


def test_an_interface_of_an_earlier_plugin_is_not_taken(host):
    c = host.container()
    error = failure(host.runtime(), "ADD", c, previous={"interfaces": [{"name": "eth0", "sandbox": c.ns.path}]})
    assert error.code == 7 and "eth0" in error.msg


# --- DEL ---


def test_del_as_runtimes_call_it(host):
    runtime = host.runtime()
    c = host.added(runtime)
    runtime.delete(c)
    # again, as containerd does: no namespace, no result
    for netns in ("", None, "/nowhere", c.ns.path):
        assert runtime.call("DEL", c, variables={"CNI_NETNS": netns}) is None
    assert runtime.call("DEL", host.container("never-added")) is None
    assert host.attachments() == [] and host.devices() == []


def test_del_without_a_namespace_does_all(host):
    c = host.added(host.runtime())
    assert host.runtime().call("DEL", c, variables={"CNI_NETNS": ""}) is None
    assert c.interface() is None and host.attachments() == [] and host.devices() == []


def test_del_after_the_namespace_went(host):
    c = host.added(host.runtime())
    c.ns.delete()
    host.wait_devices(0)
    assert host.runtime().call("DEL", c) is None
    assert host.attachments() == []


def test_del_does_not_touch_who_has_the_path_now(host):
    runtime = host.runtime()
    old, new = host.added(runtime, 2)
    runtime.call("DEL", old, variables={"CNI_NETNS": new.ns.path})
    assert new.interface() and old.interface() is None
    runtime.check(new)
    runtime.call("DEL", old, variables={"CNI_NETNS": new.ns.path})
    runtime.check(new)


def test_del_of_another_configuration_or_interface(host):
    c = host.added(host.runtime())
    host.runtime(name="other").call("DEL", c)
    host.runtime().call("DEL", c, ifname="eth1")
    host.runtime().check(c)


def test_del_does_not_touch_a_foreign_device_of_the_same_name(host):
    runtime = host.runtime()
    c = host.added(runtime)
    device = host.devices()[0]
    host.ns.run("ip", "link", "set", device, "alias", "heddle:somebody-else:eth0")
    runtime.call("DEL", c)
    assert host.devices() == [device]
    host.ns.run("ip", "link", "delete", device)


def test_del_needs_no_network_in_its_configuration(host):
    runtime = host.runtime()
    c = host.added(runtime)
    runtime.call("DEL", c, network=...)
    assert host.devices() == [] and host.attachments() == []


# --- CHECK ---


@pytest.mark.parametrize("damage, word", [
    ("addr del {v4}/32 dev eth0", "address"), ("-6 addr del {v6}/128 dev eth0", "address"), ("link set eth0 down", "down"),
    ("route del default", "route"), ("link set eth0 down; link set eth0 name eth9", "eth0"), ("link delete eth0", "gone"),
])
def test_check_finds_what_is_broken(host, damage, word):
    runtime = host.runtime()
    c = host.added(runtime)
    runtime.check(c)
    for words in damage.format(v4=c.address(), v6=c.address(6)).split("; "):
        c.ns.run("ip", *words.split())
    error = failure(runtime, "CHECK", c, previous=c.result)
    assert error.code == 102 and word in error.msg


def test_check_finds_what_the_agent_lost(host):
    runtime = host.runtime()
    c = host.added(runtime)
    key = {"name": "podnet", "containerID": c.id, "ifname": "eth0"}
    assert host.daemon.api.post("/v1/cni/release", key) == {"released": True}
    assert failure(runtime, "CHECK", c, previous=c.result).code == 102
    assert failure(runtime, "CHECK", c).code == 7
    assert failure(runtime, "CHECK", c, previous=c.result, variables={"CNI_NETNS": "/nowhere"}).code == 3
    runtime.delete(c)


RATES = {"ingressRate": 1234567, "egressRate": 2000000, "egressBurst": 1000000}


@pytest.mark.parametrize("says, word", [
    ({"bandwidth": RATES}, None), ({"bandwidth": {**RATES, "ingressRate": 1000000}}, "ingress"), ({"bandwidth": {"egressRate": 1}}, "egress"),
    ({"bandwidth": None}, None), ({}, None),
])
def test_check_of_rates(host, says, word):
    runtime = host.runtime()
    c = host.added(runtime, runtime_config={"bandwidth": RATES})
    if word:
        error = failure(runtime, "CHECK", c, previous=c.result, runtime_config=says)
        assert error.code == 102 and word in error.msg
    else:
        runtime.call("CHECK", c, previous=c.result, runtime_config=says)


def test_check_of_rates_that_none_asked_for(host):
    runtime = host.runtime()
    c = host.added(runtime)
    assert failure(runtime, "CHECK", c, previous=c.result, runtime_config={"bandwidth": RATES}).code == 102


def test_check_allows_what_later_plugins_change(host):
    runtime = host.runtime()
    c = host.added(runtime)
    c.ns.run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
    c.ns.run("ip", "route", "add", "198.51.100.0/24", "via", "10.77.0.254")
    c.result["interfaces"].append({"name": "ifb0", "mac": "02:00:00:00:00:01"})
    runtime.check(c)


# --- GC ---


def test_gc_removes_what_is_not_listed(host):
    runtime = host.runtime(version="1.1.0")
    keep, lost, gone = host.added(runtime, 3)
    other = host.added(host.runtime(name="other"))
    gone.ns.delete()
    host.wait_devices(3)
    assert runtime.collect(keep) is None
    assert sorted(a["containerID"] for a in host.attachments()) == sorted([keep.id, other.id])
    assert len(host.devices()) == 2 and lost.interface() is None
    runtime.call("CHECK", keep, previous=keep.result)
    # empty, and as a program in Go writes an empty list
    runtime.call("GC", **{"cni.dev/attachments": None, "cni.dev/valid-attachments": []})
    assert [a["containerID"] for a in host.attachments()] == [other.id]
    host.runtime(name="other", version="1.1.0").call("GC", **{"cni.dev/valid-attachments": None})
    assert host.attachments() == [] and host.devices() == []


def test_gc_without_a_list_removes_nothing(host):
    runtime = host.runtime(version="1.1.0")
    c = host.added(runtime)
    assert failure(runtime, "GC").code == 7
    assert failure(runtime, "GC", **{"cni.dev/valid-attachments": {}}).code == 7
    assert failure(runtime, "GC", **{"cni.dev/valid-attachments": [{"containerID": c.id}]}).code == 7
    runtime.check(c)


def test_gc_finds_a_device_that_the_agent_does_not_know(host):
    runtime = host.runtime(version="1.1.0")
    c = host.added(runtime)
    host.daemon.api.post("/v1/cni/release", {"name": "podnet", "containerID": c.id, "ifname": "eth0"})
    host.ns.run("ip", "link", "add", "hdforeign", "type", "veth", "peer", "name", "hdother")
    host.ns.run("ip", "link", "set", "hdforeign", "alias", "heddle:x:eth0")
    runtime.collect()
    assert host.devices() == ["hdforeign", "hdother"]
    host.ns.run("ip", "link", "delete", "hdforeign")


# --- STATUS ---


def test_status_as_containerd_asks(host):
    empty = {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": "", "CNI_PATH": None}
    assert host.runtime(version="1.1.0").call("STATUS", variables=empty, capabilities={"portMappings": True}) is None
    error = failure(host.runtime(version="1.1.0", network="red"), "STATUS", variables=empty)
    assert error.code == 50 and "red" in error.msg


def test_without_the_agent(fresh):
    host, runtime = fresh, fresh.runtime(version="1.1.0")
    host.daemon.kill()
    assert failure(runtime, "STATUS").code == 50
    c = host.container()
    assert failure(runtime, "ADD", c).code == 11
    assert failure(runtime, "CHECK", c, previous={"ips": []}).code == 102
    assert failure(runtime, "GC", **{"cni.dev/valid-attachments": []}).code == 11
    os.unlink(host.daemon.socket)
    assert failure(runtime, "STATUS").code == 50
