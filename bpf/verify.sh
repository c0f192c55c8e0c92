#!/usr/bin/env bash
# verify.sh OBJECTS: loads every program into a bpffs of its own and prints what the verifier said of it. The constants of the
# node are set to a node with a tunnel, a host interface and an MTU: with zeros the verifier would skip those branches.
set -euo pipefail
objects=$1
scratch=$(mktemp -d)
cleanup() { umount "$scratch/pins" 2>/dev/null || true; rm -rf "$scratch"; }
trap cleanup EXIT
objcopy=$(command -v llvm-objcopy || command -v llvm-objcopy-14)
mkdir "$scratch/pins"
mount -t bpf bpf "$scratch/pins"

# struct node_config: cluster 1, tunnel 2, host 3, shift 16, an IPv4 underlay, MTU 1450, gateway 02:00:00:00:00:01, UDP port 8472, built
# headers, uplink 4; then addresses and port ranges, of NodePorts 30000 to 32767 last.
printf '\1\0\0\0\2\0\0\0\3\0\0\0\20\0\0\0\4\0\0\0\252\5\0\0\2\0\0\0\0\1\30\41\1\0\0\0\4\0\0\0' > "$scratch/config"
printf '\254\36\0\1\0\0\0\0\0\0\0\0\0\0\0\0\375\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1' >> "$scratch/config"
printf '\375\0\0\0\0\0\0\0\0\0\0\0\0\0\0\2\12\1\0\1\254\36\0\1\0\4\377\177\0\200\110\356\60\165\377\177\2\0\0\0\0\11\0\0' >> "$scratch/config"

printf '%-14s %12s %12s\n' program instructions jited_bytes
for object in "$objects"/*.bpf.o "$objects"/tests/*.bpf.o; do
	[ -e "$object" ] || continue
	name=$(basename "$object" .bpf.o)
	"$objcopy" --update-section ".rodata=$scratch/config" "$object" "$scratch/$name.o"
	if ! bpftool prog loadall "$scratch/$name.o" "$scratch/pins/$name" 2> "$scratch/log"; then
		tail -40 "$scratch/log" >&2
		echo "$name: refused by the verifier" >&2
		exit 1
	fi
	for pin in "$scratch/pins/$name"/*; do
		bpftool -j prog show pinned "$pin" | jq -r '[.name, .bytes_xlated / 8, .bytes_jited] | @tsv' |
			awk -F'\t' '{ printf "%-14s %12s %12s\n", $1, $2, $3 }'
	done
done
