#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2034,SC2154 # $failed is for those who source it, who set $uplink and $address
# What vfs, igb, igb-cni and igb-xsk share: sourced by them, in a guest. An agent of their own, and claims about it: "ok WHAT", "not ok WHAT"; $failed is 1 after the latter.
build=${BUILD:-build} failed=0
work=$(mktemp -d)
heddle=("$build/heddle" --socket "$work/run/heddled.sock")
mkdir -p "$work"/{config,run,state}

patience=30
ok() { # WHAT COMMAND...: it is true, or becomes so within $patience seconds
	local what=$1 since=$SECONDS
	shift
	until "$@" >"$work/said" 2>&1; do
		if [ $((SECONDS - since)) -gt $patience ]; then
			echo "not ok $what"
			cat "$work/said"
			"${heddle[@]}" vf
			"${heddle[@]}" status
			failed=1
			return
		fi
		sleep 0.2
	done
	echo "ok $what"
}
never() { ! "$@"; }
json() { # VERB EXPRESSION: the expression of Python is true of what the verb answers, `d`
	"${heddle[@]}" -o json "$1" | python3 -c "
import json, sys
d = json.load(sys.stdin)
if not ($2):
    sys.exit(json.dumps(d)[:2000])"
}
pf() { json vf "[p for p in d['pfs'] if p['device'] == '$uplink' and ($1)]"; }
pf_has() { ip link show "$uplink" | grep -E "^ *vf $1"; } # what the kernel itself says of a VF
drops() { json counters "[x for x in d['drops'] if x['reason'] == '$1' and x['packets']]"; }
start() {
	"$build/heddled" --config "$work/config" --run-dir "$work/run" --state-dir "$work/state" --bpffs /sys/fs/bpf 2>"$work/log" &
	agent=$!
	patience=120 # programs are verified, slowly under emulation
	ok "the agent starts" "${heddle[@]}" wait --timeout 60s
	patience=30
}
detach() {
	kill "$agent"
	wait "$agent"
	"$build/heddled" --detach --run-dir "$work/run" --state-dir "$work/state" --bpffs /sys/fs/bpf
}
crash() { # the agent
	kill -9 "$agent"
	wait "$agent"
}
finish() {
	[ $failed = 0 ] || cat "$work/log"
	exit $failed
}

# NICs.
needs() { # DEVICE WHAT: or there is nothing to be seen here
	[ ! -e "/sys/class/net/$1" ] || return
	echo "not ok there $2"
	exit 1
}
pf_and_far() { # ADDRESS: pf0 is the one with VFs, up; far0 the other on its wire, in the namespace far and with that address
	local device
	for device in /sys/class/net/*; do
		[ ! -e "$device/device/sriov_totalvfs" ] || ip link set "$(basename "$device")" name pf0
	done
	for device in /sys/class/net/*; do
		[ "$(basename "$(readlink "$device/device/driver")")" != virtio_net ] || ip link set "$(basename "$device")" name far0
	done
	needs pf0 "is an igb"
	ip netns add far
	ip link set far0 netns far
	ip -n far addr add "$1/24" dev far0
	ip -n far link set far0 up
	ip link set pf0 up
}
to_vfio() { # PCI-ADDRESS
	modprobe vfio-pci
	echo vfio-pci >"/sys/bus/pci/devices/$1/driver_override"
	echo "$1" >"/sys/bus/pci/devices/$1/driver/unbind"
	echo "$1" >/sys/bus/pci/drivers_probe
}

# Fast paths.
path() { # NAME EXPRESSION: true of a fast path, `p`
	"${heddle[@]}" -o json status | python3 -c "
import json, sys
found = [p for p in json.load(sys.stdin)['fastPaths'] if p['name'] == '$1']
if not [p for p in found if $2]:
    sys.exit(json.dumps(found, indent=1))"
}
consumer() { # NAME: a process without privileges; $consumer
	chmod 0711 "$work" "$work/run"
	setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all "$build/fastpath-echo" -d "$work/run" "$1" >"$work/echo" 2>&1 &
	consumer=$!
}

# Packets, from and to namespaces.
ping_from() { # NAMESPACE ADDRESS [SIZE]
	nsenter --net="/run/netns/$1" ping -q -c 2 -i 0.2 -W 1 -s "${3:-56}" "$2" | grep ' 0% packet loss'
}
udp_from() { # NAMESPACE ADDRESS PORT SIZE [FROM...]: datagrams come back as they were sent, one from each address
	nsenter --net="/run/netns/$1" python3 -c '
import os, socket, sys
to, port, size, *sources = sys.argv[1:]
for source in sources or [""]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        s.bind((source, 0))
        text = os.urandom(int(size))
        s.sendto(text, (to, int(port)))
        assert s.recv(4096) == text, source' "${@:2}"
}
tcp_from() { # NAMESPACE NAMESPACE-OF-ADDRESS ADDRESS [BYTES]: one connection to port 80, and what it carries
	local listener
	timeout 30 nsenter --net="/run/netns/$2" python3 -c '
import socket, sys
s = socket.create_server((sys.argv[1], 80))
c = s.accept()[0]
while data := c.recv(65536):
    sys.stdout.buffer.write(data)' "$3" >"$work/got" &
	listener=$!
	head -c "${4:-300000}" /dev/urandom >"$work/sent"
	timeout 30 nsenter --net="/run/netns/$1" python3 -c '
import socket, sys, time
for _ in range(50):
    try:
        socket.create_connection((sys.argv[1], 80), 2).sendall(sys.stdin.buffer.read())
        break
    except ConnectionRefusedError:
        time.sleep(0.2)' "$3" <"$work/sent"
	wait $listener
	cmp "$work/sent" "$work/got"
}
# Between the namespaces vfFROM and vfTO, of which the addresses are in ${address[N]}.
pings() { ping_from "vf$1" "${address[$2]}" "${@:3}"; } # FROM TO [SIZE]
tcp() { tcp_from "vf$1" "vf$2" "${address[$2]}"; }      # FROM TO
