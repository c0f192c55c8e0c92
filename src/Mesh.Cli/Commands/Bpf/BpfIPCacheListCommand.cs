using System.CommandLine;
using Mesh.Datapath;

namespace Mesh.Cli.Commands.Bpf;

/// <summary>`mesh bpf ipcache list`.</summary>
internal static class BpfIPCacheListCommand
{
    internal const string Headers = "IP PREFIX/ADDRESS\tIDENTITY";

    public static Command Build(TextWriter output) =>
        BpfCommand.List(output, "Addresses, their identities and nodes.", Headers, maps => Rows(maps.IPCache()));

    internal static IEnumerable<KeyValuePair<string, string[]>> Rows(IEnumerable<PinnedIPCacheEntry> entries) => entries.Select(
        entry => new KeyValuePair<string, string[]>(entry.Prefix.ToString(),
            [$"identity={entry.Identity} encryptkey=0 tunnelendpoint={entry.TunnelEndpoint?.ToString() ?? "0.0.0.0"}, flags=<none>"]));
}
