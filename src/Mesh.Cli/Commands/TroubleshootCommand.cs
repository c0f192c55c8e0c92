using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;
using Mesh.Cli.Text;
using Mesh.Cli.Troubleshooting;
using Mesh.ClusterMesh.Remote;
using Mesh.Lab;

namespace Mesh.Cli.Commands;

/// <summary>
/// `mesh clustermesh troubleshoot [PEER…]`: why a peer is not connected, found out without the agent, from where the agent stands: in
/// a lab the command is run again inside the node's network namespace.
/// </summary>
internal static class TroubleshootCommand
{
    public const string DefaultDirectory = "/var/lib/cilium/clustermesh/";
    private const int CauseFound = 2;

    /// <summary>The word where Cilium's tools have it, and their hints name it: `troubleshoot clustermesh PEER`.</summary>
    public static Command BuildAsCilium(TextWriter output)
    {
        var inner = Build(output, "clustermesh");
        return new Command("troubleshoot", "As `clustermesh troubleshoot`, in the order of Cilium's words.") { inner };
    }

    public static Command Build(TextWriter output, string name = "troubleshoot")
    {
        var peers = new Argument<string[]>("peer") { Description = "Names of peers; default all", Arity = ArgumentArity.ZeroOrMore };
        var context = new Option<string?>("--context") { Description = "CLUSTER or CLUSTER/NODE of a lab: looked at from inside that node" };
        var directory = new Option<string?>("--clustermesh-config") { Description = $"Directory of the peer files; default {DefaultDirectory}" };
        var timeout = new Option<string>("--timeout") { Description = "For each step", DefaultValueFactory = _ => "5s" };
        var own = new Option<string>("--cluster-name") { Description = "Own name, whose file is not a peer's", DefaultValueFactory = _ => "" };
        var ownId = new Option<uint?>("--cluster-id") { Description = "Own cluster ID, which no peer may have" };
        var socket = new Option<string?>("--socket", "-H") { Description = "Unix socket of the agent, which knows of the tunnel and the kernel" };
        var format = new Option<string>("--output", "-o") { Description = "text or json", DefaultValueFactory = _ => "text" };
        format.AcceptOnlyFromAmong("text", "json");
        var command = new Command(name, "Why a peer is not connected: DNS, TCP, TLS, authentication, heartbeat, config, canaries, data. "
            + $"Exit code {CauseFound} when a cause was found.")
        {
            peers, context, directory, timeout, own, ownId, socket, format,
        };
        command.SetAction(async (parsed, cancel) =>
        {
            var patience = GoText.ParseDuration(parsed.GetValue(timeout)!)
                ?? throw new CliException($"--timeout {parsed.GetValue(timeout)}: must be a duration such as 5s");
            if (parsed.GetValue(directory) is null && (parsed.GetValue(context) is not null || !Directory.Exists(DefaultDirectory)))
                RunInside(Context.Find(parsed.GetValue(context)), parsed.GetValue(context), parsed.GetValue(peers) ?? [],
                    parsed.GetValue(timeout)!, parsed.GetValue(format)!);
            var found = await ExamineAsync(parsed.GetValue(directory) ?? DefaultDirectory, parsed.GetValue(peers) ?? [],
                parsed.GetValue(own)!, parsed.GetValue(ownId), patience, cancel);
            var faults = await AgentFaultsAsync(parsed.GetValue(socket), cancel);
            if (parsed.GetValue(format) == "json")
                output.WriteLine(JsonSerializer.Serialize(found.Select(one => TroubleshootResult.Of(one, faults)).ToList(),
                    TroubleshootJson.Default.ListTroubleshootResult));
            else
                Print(output, found, faults);
            return found.Any(one => one.Fault != PeerFault.None) || faults.Count > 0 ? CauseFound : 0;
        });
        return command;
    }

    internal static async Task<IReadOnlyList<Examination>> ExamineAsync(
        string directory, IReadOnlyList<string> names, string own, uint? ownId, TimeSpan patience, CancellationToken cancel)
    {
        if (!Directory.Exists(directory))
            throw new CliException($"{directory}: there is no such directory: name that of the peer files with --clustermesh-config");
        var found = new List<Examination>();
        foreach (var name in names.Count > 0 ? names : Present(directory, own))
            found.Add(await new PeerExamination(name, ownId, patience, TimeProvider.System).RunAsync(Path.Combine(directory, name), cancel));
        return found;
    }

    private static List<string> Present(string directory, string own)
    {
        try
        {
            return [.. Directory.EnumerateFiles(directory)
                .Where(f => Path.GetFileName(f) is { } name && name != own && name[0] != '.'
                    && File.ReadAllText(f).Contains("endpoints:", StringComparison.Ordinal))
                .Select(f => Path.GetFileName(f)!).Order(StringComparer.Ordinal)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CliException($"{directory} cannot be read: {e.Message}: is it the directory of the peer files (--clustermesh-config)?");
        }
    }

    private static void Print(TextWriter output, IReadOnlyList<Examination> found, IReadOnlyList<MeshFault> faults)
    {
        output.Write(string.Create(CultureInfo.InvariantCulture, $"Found {found.Count} cluster configurations\n"));
        foreach (var one in found)
        {
            output.Write("\n");
            foreach (var line in one.Lines)
                output.Write($"{line}\n");
        }
        foreach (var clash in found.Where(one => one.ClusterId != 0).GroupBy(one => one.ClusterId).Where(group => group.Count() > 1))
            output.Write(string.Create(CultureInfo.InvariantCulture,
                $"\n❌ {string.Join(" and ", clash.Select(one => one.Cluster))} have the same cluster ID {clash.Key}: give one of them another\n"));
        if (faults.Count == 0)
            return;
        output.Write("\n🧭 What the agent knows besides:\n");
        foreach (var fault in faults)
            output.Write($"   ❌ {(fault.Peer is null ? "" : $"{fault.Peer}: ")}{fault.Class}: {fault.Cause}\n      💡 {fault.Mend}\n");
    }

    /// <summary>What no look at the peer's store can find: tunnel and kernel. Empty when there is no agent to ask.</summary>
    private static async Task<IReadOnlyList<MeshFault>> AgentFaultsAsync(string? socket, CancellationToken cancel)
    {
        if (socket is null)
            return [];
        using var agent = new AgentClient(socket, "", TimeSpan.FromSeconds(3));
        try
        {
            return (await agent.GetStatusAsync(cancel)).Mesh?.Faults ?? [];
        }
        catch (AgentException e)
        {
            return [new MeshFault { Class = "agent-silent", Cause = e.Message, Mend = "Start the agent, or look at its log" }];
        }
    }

    /// <summary>Replaces this process by the same command inside the node; returns only when there is no lab.</summary>
    private static void RunInside(Context context, string? text, IReadOnlyList<string> peers, string timeout, string format)
    {
        if (context is not { Lab: { } lab, Cluster: { } cluster })
            throw new CliException($"{text ?? DefaultDirectory}: no lab and no peer files there: name their directory with --clustermesh-config");
        var node = context.Nodes[0];
        LabPlace.Find(lab, $"{cluster.Name}/{node.Name}").Become(
        [
            Environment.ProcessPath!, "clustermesh", "troubleshoot", .. peers, "--clustermesh-config", cluster.ClusterMeshConfig,
            "--cluster-name", cluster.Name, "--cluster-id", cluster.Id.ToString(CultureInfo.InvariantCulture), "--socket", node.Socket,
            "--timeout", timeout, "--output", format,
        ]);
    }
}

internal sealed record TroubleshootResult
{
    [JsonPropertyName("cluster")] public required string Cluster { get; init; }

    /// <summary>none when nothing was found.</summary>
    [JsonPropertyName("fault")] public required string Fault { get; init; }

    [JsonPropertyName("cause")] public string? Cause { get; init; }

    [JsonPropertyName("mend")] public string? Mend { get; init; }

    [JsonPropertyName("agent-faults")] public IReadOnlyList<MeshFault> AgentFaults { get; init; } = [];

    public static TroubleshootResult Of(Examination one, IEnumerable<MeshFault> faults) => new()
    {
        Cluster = one.Cluster,
        Fault = one.Fault.Name(),
        Cause = one.Cause,
        Mend = one.Fault == PeerFault.None ? null : one.Fault.Mend(one.Cluster),
        AgentFaults = [.. faults.Where(fault => fault.Peer is null || fault.Peer == one.Cluster)],
    };
}

[JsonSourceGenerationOptions(WriteIndented = true, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(List<TroubleshootResult>))]
internal sealed partial class TroubleshootJson : JsonSerializerContext;
