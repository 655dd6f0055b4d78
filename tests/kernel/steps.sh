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
# Between the namespaces vfFROM and vfTO, of which the addresses are in ${address[N]}.
pings() { # FROM TO [SIZE]
	ip netns exec "vf$1" ping -q -c 2 -i 0.2 -W 1 -s "${3:-56}" "${address[$2]}" | grep ' 0% packet loss'
}
tcp() { # FROM TO: one connection to port 80, and what it carries
	local listener
	timeout 20 ip netns exec "vf$2" python3 -c '
import socket, sys
s = socket.create_server((sys.argv[1], 80))
c = s.accept()[0]
while data := c.recv(65536):
    sys.stdout.buffer.write(data)' "${address[$2]}" >"$work/got" &
	listener=$!
	head -c 300000 /dev/urandom >"$work/sent"
	timeout 20 ip netns exec "vf$1" python3 -c '
import socket, sys, time
for _ in range(50):
    try:
        socket.create_connection((sys.argv[1], 80), 2).sendall(sys.stdin.buffer.read())
        break
    except ConnectionRefusedError:
        time.sleep(0.2)' "${address[$2]}" <"$work/sent"
	wait $listener
	cmp "$work/sent" "$work/got"
}
