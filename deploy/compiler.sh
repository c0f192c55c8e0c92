# For sourcing: one warm C# compiler for all projects of this run, whatever the machine's settings. Each project compiled by a compiler
# that first has to compile itself costs minutes. It is this run's own: stop it at the end with compiler_stop.
export UseSharedCompilation=true SharedCompilationId=mesh-$$

compiler_stop() {
    local compiler
    for compiler in $(pgrep -f "VBCSCompiler.*-pipename:$SharedCompilationId( |\$)"); do
        kill "$compiler" 2>/dev/null
    done
    return 0
}
