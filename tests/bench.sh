#!/usr/bin/env bash
# Runs the benchmarks in one process, side by side with their peers, and prints one table. Names as arguments choose some:
# tests/bench.sh propagation burst ipcache packets connect
set -euo pipefail
cd "$(dirname "$0")/.."
dotnet build tests/Mesh.Benchmarks -c Release -v quiet --nologo
exec tests/Mesh.Benchmarks/bin/Release/net10.0/Mesh.Benchmarks "$@"
