using System.CommandLine;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Cli.Commands.Bpf;

/// <summary>`mesh bpf lb list`: slot 0 is the frontend itself, the others its backends in table order; in brackets what is out of order.</summary>
internal static class BpfLbListCommand
{
    internal const string Headers = "SERVICE ADDRESS\tBACKEND ADDRESS (REVNAT_ID) (SLOT)";

    public static Command Build(TextWriter output) =>
        BpfCommand.List(output, "Frontends and their backends.", Headers, maps => Rows(maps.Frontends()));

    internal static IEnumerable<KeyValuePair<string, string[]>> Rows(IEnumerable<PinnedFrontend> frontends)
    {
        foreach (var frontend in frontends)
        {
            var affinity = frontend.Affinity == ServiceAffinity.None ? "" : $", affinity {frontend.Affinity}".ToLowerInvariant();
            var nowhere = frontend.Address.Address.IsV6 ? "[::]:0" : "0.0.0.0:0";
            var values = new List<string> { $"{nowhere} ({frontend.ServiceId}) (0) [{Kind(frontend)}{affinity}]" };
            foreach (var segment in frontend.Segments)
                foreach (var backend in segment.Backends)
                    values.Add($"{backend.Address} ({frontend.ServiceId}) ({values.Count}){Remark(segment, backend)}");
            yield return new(frontend.Address + (frontend.Scope == LbScope.Internal ? "/i" : ""), [.. values]);
        }
    }

    private static string Kind(PinnedFrontend frontend)
    {
        var words = new List<string> { frontend.Type.ToString() };
        if (frontend.Type == ServiceType.ClusterIP)
            words.Add("non-routable");
        if (frontend.IsLocalOnly)
            words.Add(frontend.Scope == LbScope.Internal ? "InternalLocal" : "Local");
        if (frontend.Scope == LbScope.External)
            words.Add("two-scopes");
        if (frontend.AffinitySeconds > 0)
            words.Add("sessionAffinity");
        if (frontend.SourceRanges.Count > 0)
            words.Add("check source-range");
        return string.Join(", ", words);
    }

    private static string Remark(PinnedSegment segment, PinnedBackend backend)
    {
        var remarks = new List<string>();
        if (backend.State != BackendState.Active)
            remarks.Add(backend.State.ToString().ToLowerInvariant());
        if (!segment.ClusterUp)
            remarks.Add($"cluster {segment.ClusterId} down");
        if (segment.Tier > 0)
            remarks.Add("standby");
        return remarks.Count == 0 ? "" : $" [{string.Join(", ", remarks)}]";
    }
}
