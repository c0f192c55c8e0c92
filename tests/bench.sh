#!/usr/bin/env bash
# Runs the benchmarks in one process, side by side with their peers, and prints one table. Names as arguments choose some, sizes follow:
# tests/bench.sh propagation burst ipcache packets north live tables connect overlay cni kube fanout herd chain peers watchers=500
#
# They run in a network and a mount namespace of their own, which end with them; what a kill could leave besides, the files and two
# empty cgroups, is removed here. Needs root and what `make build` makes. MESH_BENCH_BUILT=1 leaves out building the benchmarks.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${MESH_BENCH_BUILT:-}" ] || dotnet build tests/Mesh.Benchmarks -c Release -v quiet --nologo

TMPDIR=$(mktemp -d)
export TMPDIR
program=
cleanup() {
    trap - EXIT
    if [ -n "$program" ]; then
        kill -TERM "$program" 2>/dev/null || true
        wait "$program" 2>/dev/null || true
        rmdir "$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/mesh-bench-$program-"* 2>/dev/null || true
    fi
    rm -rf "$TMPDIR"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The program refuses to run where it finds itself in the namespace that we are in. unshare becomes the program: one process number.
MESH_BENCH_OUTSIDE=$(readlink /proc/self/ns/net)
export MESH_BENCH_OUTSIDE
unshare --net --mount --propagation private tests/Mesh.Benchmarks/bin/Release/net10.0/Mesh.Benchmarks "$@" &
program=$!
status=0
wait "$program" || status=$?
exit "$status"
