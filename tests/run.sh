#!/usr/bin/env bash
# Runs every test program in turn and ends with the line `N passed, N failed`.
# Filter with: tests/run.sh Mesh.KVStore.Tests Mesh.Lab.Tests
set -uo pipefail
cd "$(dirname "$0")/.."

config=${CONFIG:-Release}
. deploy/compiler.sh
trap compiler_stop EXIT
dotnet build Mesh.sln -c "$config" -v quiet --nologo || { echo "0 passed, 1 failed"; exit 1; }
compiler_stop

# Failures are told again at the end, in few lines: where only the end of a long output is kept, they are what is wanted.
# A failure in the runner's output is its name with [FAIL], a message, and the stack, of which the first line in a test says where.
failures=$(mktemp)
trap 'compiler_stop; rm -f "$failures"' EXIT
tell_failures() {
    awk '/^    [^ ].*\[FAIL\]$/ { print; left = 8; next }
        left && /^      (Stack Trace|Output):/ { left = 0; where = 1; next }
        left { print substr($0, 1, 240); left-- }
        where && /^ +tests\/.*\([0-9]+,[0-9]+\): at / { sub(/: at .*/, ""); print; where = 0 }
        where && /^    [^ ]/ { where = 0 }' "$1"
}

suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=($(cd tests && ls -d *.Tests))
passed=0 failed=0 skipped=0
for suite in "${suites[@]}"; do
    echo "== $suite"
    log=$(mktemp)
    run=()
    # The scenarios' agent makes devices and routes where it runs: a namespace of its own, with an underlay address to be found.
    [ "$suite" != Mesh.Scenarios.Tests ] || run=(unshare --net sh -c 'ip link set lo up && ip link add underlay type veth peer name wire &&
        ip addr add 172.30.2.1/16 dev underlay && ip link set underlay up && ip link set wire up && exec "$@"' sh)
    timeout --kill-after=30 900 "${run[@]}" "tests/$suite/bin/$config/net10.0/$suite" -noColor 2>&1 |
        tee "$log" | grep -vE '^ *$|^  (Discover|Start|Finish)|^=== TEST EXEC'
    status=${PIPESTATUS[0]}
    # The runner's own last line: Total: 3, Errors: 0, Failed: 0, Skipped: 0, ...
    counts=$(grep -oE 'Total: [0-9]+, Errors: [0-9]+, Failed: [0-9]+, Skipped: [0-9]+' "$log" | tail -1 | grep -oE '[0-9]+' | tr '\n' ' ')
    tell_failures "$log" >>"$failures"
    read -r total errors fails skips <<<"${counts:-0 1 0 0}"
    failed=$((failed + errors + fails))
    skipped=$((skipped + skips))
    passed=$((passed + total - fails - skips))
    # A suite that crashed, hung or held no test is a failure even when it counted none.
    if [ "$status" != 0 ] && [ $((errors + fails)) = 0 ] || [ "$total" = 0 ]; then
        { echo "$suite: exit code $status with $total tests"; tail -5 "$log" | cut -c1-240; } | tee -a "$failures"
        failed=$((failed + 1))
    fi
    rm -f "$log"
done
if [ -s "$failures" ]; then
    echo "== what failed"
    cat "$failures"
fi
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" = 0 ]
