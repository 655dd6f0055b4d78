# SPDX-License-Identifier: Apache-2.0
"""heddle doctor as it is run. What it finds on which machine: tests/unit/cli_doctor_test.c."""
import os
import re
import resource
import shutil
import subprocess
import tempfile

import pytest

from conftest import BINARY, TOP


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def shared_group(tmp_path):
    """A machine whose VF is in one group with its PF."""
    devices = tmp_path / "sys/devices/pci0000:00"
    for address in ("0000:01:00.0", "0000:01:10.0"):
        put(tmp_path, f"sys/devices/pci0000:00/{address}/vendor", "0x8086\n")
        for link, target in ((f"sys/bus/pci/devices/{address}", f"../../../devices/pci0000:00/{address}"),
                             (f"sys/kernel/iommu_groups/7/devices/{address}", f"../../../../devices/pci0000:00/{address}")):
            (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / link).symlink_to(target)
        (devices / address / "iommu_group").symlink_to("../../../kernel/iommu_groups/7")
    (devices / "0000:01:10.0/physfn").symlink_to("../0000:01:00.0")
    put(tmp_path, "sys/class/iommu/dmar0/intel-iommu/ecap", "f0f0ff\n")
    put(tmp_path, "proc/interrupts", " CPU0\n 1: 3 IR-IO-APIC 1-edge i8042\n")
    put(tmp_path, "proc/cpuinfo", "flags : aes\n")
    put(tmp_path, "proc/cmdline", "intel_iommu=on\n")
    put(tmp_path, "proc/sys/kernel/osrelease", "6.1.0\n")
    return tmp_path


def test_table(lonely, shared_group):
    out, _ = lonely("doctor", "--sysroot", str(shared_group))
    assert re.search(r"^warning +iommu +group 7 +not isolated +VF 0000:01:10.0 shares it with 0000:01:00.0 ", out, re.M)
    assert re.search(r"^what can be changed:\n(.*\n)*warning +group 7 +not isolated +a slot behind a port with ACS", out, re.M)
    assert re.search(r"^1 warnings, \d+ notes, \d+ not known$", out, re.M)
    assert "hugepages" not in out and "group 7" in out
    more, _ = lonely("doctor", "--all", "--sysroot", str(shared_group))
    assert len(more.splitlines()) > len(out.splitlines())


def test_json(lonely, shared_group):
    report = lonely.json("doctor", "--sysroot", str(shared_group))
    assert report["kernel"] == "6.1.0" and report["sysroot"] == str(shared_group) and report["unread"] == []
    warnings = [item for item in report["items"] if item["severity"] == "warning"]
    assert [(item["area"], item["subject"], item["name"]) for item in warnings] == [("iommu", "group 7", "not isolated")]
    assert warnings[0]["details"] == {"group": "7", "vfs": ["0000:01:10.0"], "others": ["0000:01:00.0"]}
    assert warnings[0]["path"] and warnings[0]["change"]


def test_strict(lonely, shared_group):
    lonely("doctor", "--strict", "--sysroot", str(shared_group), expect=1)
    shutil.rmtree(shared_group / "sys/kernel/iommu_groups/7/devices")
    lonely("doctor", "--strict", "--sysroot", str(shared_group))


def test_no_such_tree(lonely, tmp_path):
    _, err = lonely("doctor", "--sysroot", str(tmp_path / "nowhere"), expect=1)
    assert "nowhere: No such file" in err


def test_every_finding_is_documented(lonely, shared_group):
    with open(os.path.join(TOP, "docs/doctor.md"), encoding="utf-8") as file:
        page = file.read()
    items = lonely.json("doctor")["items"] + lonely.json("doctor", "--sysroot", str(shared_group))["items"]
    assert {item["name"] for item in items if f"`{item['name']}`" not in page} == set()


def test_nothing_is_found_twice(lonely, shared_group):
    for arguments in ((), ("--sysroot", str(shared_group))):
        items = [(item["area"], item["subject"], item["name"]) for item in lonely.json("doctor", *arguments)["items"]]
        assert len(items) == len(set(items)), items


def test_this_machine_in_time(lonely):
    """Under 200 ms of CPU and of time, when one of several runs has the machine for itself."""
    times = []
    while not times or max(times[-1]) >= 0.2:
        assert len(times) < 30, times
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), os.times().elapsed
        report = lonely.json("doctor")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, os.times().elapsed - started))
    assert {"kernel", "cpu", "memory", "sysctl", "iommu"} <= {item["area"] for item in report["items"]}


def test_it_leaves_nothing(lonely):
    """No program and no map of its own afterwards, no module, no setting."""
    def state():
        with open("/proc/modules", encoding="utf-8") if os.path.exists("/proc/modules") else tempfile.TemporaryFile("w+") as file:
            modules = sorted(line.split()[0] for line in file)
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout if shutil.which("ip") else ""
        return modules, re.findall(r"^\d+: ([^:@]+)", links, re.M)

    before = state()
    lonely("doctor")
    assert state() == before


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, and setpriv, to be somebody else")
def test_without_root_it_says_what_it_could_not_read(tmp_path):
    """Nothing that was merely not allowed counts as missing."""
    folder = tempfile.mkdtemp(dir="/tmp")
    try:
        os.chmod(folder, 0o755)
        shutil.copy(BINARY, os.path.join(folder, "heddle"))
        done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
                               os.path.join(folder, "heddle"), "doctor", "--all"], capture_output=True, text=True, cwd="/")
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0 and done.stderr == ""
    assert "not read (run it as root):" in done.stdout
    assert re.search(r"bpf\(2\); CAP_BPF.*: Operation not permitted", done.stdout)
    assert re.search(r"^unknown +kernel +- +xdp +not asked: needs root", done.stdout, re.M)
    assert not re.search(r"^\w+ +kernel +- +(xdp|tc programs|tcx|af_xdp) +no ", done.stdout, re.M)
