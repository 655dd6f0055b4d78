# SPDX-License-Identifier: Apache-2.0
# bash completion for heddle, printed by `heddle completion bash`

_heddle_words()
{
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}

_heddle_files()
{
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

_heddle_names()
{
	heddle get "$@" 2>/dev/null | awk 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "NAME") n = i }
		NR > 1 { print $n }'
}

_heddle()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb="" first="" namespace=default place=0 i

	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-o | --output | --socket) ((i++)) ;;
		-n | --namespace) namespace=${COMP_WORDS[++i]} ;;
		-*) ;;
		*)
			if [[ -z $verb ]]; then
				verb=${COMP_WORDS[i]}
			else
				[[ -n $first ]] || first=${COMP_WORDS[i]}
				((place++))
			fi
			;;
		esac
	done
	case "$verb $prev" in
	*" --socket")
		_heddle_files "$cur"
		return
		;;
	*" -o" | *" --output")
		_heddle_words "table json yaml" "$cur"
		return
		;;
	wait" --timeout")
		return
		;;
	apply" -f" | apply" --filename")
		_heddle_files "$cur"
		return
		;;
	apply" --confirm")
		_heddle_words "30s 60s 5m" "$cur"
		return
		;;
	diff" -f" | diff" --filename")
		_heddle_files "$cur"
		return
		;;
	preview" -f" | preview" --filename")
		_heddle_files "$cur"
		return
		;;
	policy" -f" | policy" --filename")
		_heddle_files "$cur"
		return
		;;
	get" -n" | get" --namespace")
		_heddle_words "default $(_heddle_names namespace)" "$cur"
		return
		;;
	delete" -n" | delete" --namespace")
		_heddle_words "default $(_heddle_names namespace)" "$cur"
		return
		;;
	explain" --from")
		return
		;;
	explain" --to")
		return
		;;
	explain" --protocol")
		_heddle_words "tcp udp sctp icmp icmpv6" "$cur"
		return
		;;
	explain" --dport")
		return
		;;
	explain" --sport")
		return
		;;
	explain" --icmp-type")
		return
		;;
	explain" --icmp-code")
		return
		;;
	explain" --tcp-flags")
		_heddle_words "S SA A FA R RA" "$cur"
		return
		;;
	explain" --vlan")
		return
		;;
	explain" --network")
		return
		;;
	explain" --port")
		return
		;;
	explain" --peer")
		return
		;;
	explain" -n" | explain" --namespace")
		_heddle_words "default $(_heddle_names namespace)" "$cur"
		return
		;;
	explain" --uplink")
		_heddle_words "$(ls /sys/class/net)" "$cur"
		return
		;;
	explain" --egress")
		_heddle_words "$(ls /sys/class/net)" "$cur"
		return
		;;
	explain" --pcap")
		_heddle_files "$cur"
		return
		;;
	doctor" --sysroot")
		_heddle_files "$cur"
		return
		;;
	esac
	case $verb in
	"")
		_heddle_words "status wait apply diff preview policy confirm get delete flows monitor explain rules counters vf doctor completion --socket -o --output -h --help -V --version" "$cur"
		;;
	status)
		_heddle_words " --socket -o --output -h --help -V --version" "$cur"
		;;
	wait)
		_heddle_words " --timeout --socket -o --output -h --help -V --version" "$cur"
		;;
	apply)
		_heddle_words " -f --filename --confirm --socket -o --output -h --help -V --version" "$cur"
		;;
	diff)
		_heddle_words " -f --filename --socket -o --output -h --help -V --version" "$cur"
		;;
	preview)
		_heddle_words " -f --filename --socket -o --output -h --help -V --version" "$cur"
		;;
	policy)
		if [[ $cur != -* && $place -eq 0 ]]; then
			_heddle_words "lint" "$cur"
			return
		fi
		_heddle_words " -f --filename --strict --socket -o --output -h --help -V --version" "$cur"
		;;
	confirm)
		_heddle_words " --socket -o --output -h --help -V --version" "$cur"
		;;
	get)
		if [[ $cur != -* && $place -eq 0 ]]; then
			_heddle_words "host network port peer namespace addressgroup hostpolicy networkpolicy adminnetworkpolicy baselineadminnetworkpolicy clusternetworkpolicy fastpath builtin" "$cur"
			return
		fi
		if [[ $cur != -* && $place -eq 1 ]]; then
			_heddle_words "$(_heddle_names -n "$namespace" "$first")" "$cur"
			return
		fi
		_heddle_words " -n --namespace --socket -o --output -h --help -V --version" "$cur"
		;;
	delete)
		if [[ $cur != -* && $place -eq 0 ]]; then
			_heddle_words "host network port peer namespace addressgroup hostpolicy networkpolicy adminnetworkpolicy baselineadminnetworkpolicy clusternetworkpolicy fastpath" "$cur"
			return
		fi
		if [[ $cur != -* && $place -eq 1 ]]; then
			_heddle_words "$(_heddle_names -n "$namespace" "$first")" "$cur"
			return
		fi
		_heddle_words " -n --namespace --socket -o --output -h --help -V --version" "$cur"
		;;
	flows)
		_heddle_words " -w --watch --socket -o --output -h --help -V --version" "$cur"
		;;
	monitor)
		_heddle_words " --drops --socket -o --output -h --help -V --version" "$cur"
		;;
	explain)
		_heddle_words " --from --to --protocol --dport --sport --icmp-type --icmp-code --tcp-flags --vlan --reply --network --port --peer -n --namespace --uplink --egress --pcap --socket -o --output -h --help -V --version" "$cur"
		;;
	rules)
		_heddle_words " --socket -o --output -h --help -V --version" "$cur"
		;;
	counters)
		_heddle_words " --socket -o --output -h --help -V --version" "$cur"
		;;
	vf)
		_heddle_words " --socket -o --output -h --help -V --version" "$cur"
		;;
	doctor)
		_heddle_words " --sysroot -a --all --strict --socket -o --output -h --help -V --version" "$cur"
		;;
	completion)
		if [[ $cur != -* && $place -eq 0 ]]; then
			_heddle_words "bash zsh" "$cur"
			return
		fi
		_heddle_words " --socket -o --output -h --help -V --version" "$cur"
		;;
	esac
}
complete -F _heddle heddle
