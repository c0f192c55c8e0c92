using System.CommandLine;
using Mesh.Datapath;

namespace Mesh.Cli.Commands.Bpf;

/// <summary>`mesh bpf tunnel list`: the pod ranges among the ipcache's prefixes, each with its node.</summary>
internal static class BpfTunnelListCommand
{
    internal const string Headers = "TUNNEL\tVALUE";

    public static Command Build(TextWriter output) =>
        BpfCommand.List(output, "Pod ranges and their nodes.", Headers, maps => Rows(maps.IPCache()));

    internal static IEnumerable<KeyValuePair<string, string[]>> Rows(IEnumerable<PinnedIPCacheEntry> entries) => entries
        .Where(entry => !entry.Prefix.IsHost && entry.TunnelEndpoint is not null)
        .Select(entry => new KeyValuePair<string, string[]>(entry.Prefix.Address.ToString(), [$"{entry.TunnelEndpoint}:0"]));
}
