using System.CommandLine;
using System.Text.Json;
using Mesh.Cli.Contexts;
using Mesh.Datapath;

namespace Mesh.Cli.Commands.Explain;

/// <summary>
/// `mesh explain CLIENT SERVICE:PORT`: which backends the client may be given and why, from the agent's decisions on disk and from the
/// pinned maps; nothing is asked of the agent, which may be dead. 0 = map and intention agree, 3 = they differ, 4 = no such service.
/// </summary>
internal static class ExplainCommand
{
    internal const int Differ = 3;
    internal const int Unknown = 4;

    /// <summary>An agent that lives may be in the middle of a change: a difference counts when it stays this long.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(200);

    public static Command Build(TextWriter output)
    {
        var options = new ContextOptions();
        var client = new Argument<string>("CLIENT") { Description = "A pod (namespace/name) of the context's nodes, or an address" };
        var service = new Argument<string>("SERVICE:PORT")
        {
            Description = "namespace/name, name or virtual address, with the number or the name of a port",
        };
        var root = new Option<string?>("--bpf-root") { Description = "The agent's --bpf-root, instead of a context" };
        var state = new Option<string?>("--state-dir") { Description = "The agent's --state-dir, instead of a context" };
        var command = new Command("explain", "Why a client is given which backends; works with the agent dead.")
        {
            client, service, options.Context, options.Socket, root, state, options.Output,
        };
        command.SetAction(async (parsed, cancel) =>
        {
            var wanted = ServicePort.Parse(parsed.GetValue(service)!);
            var places = PlacesOf(parsed.GetValue(root), parsed.GetValue(state), () => options.Nodes(parsed));
            var asked = Client.Find(parsed.GetValue(client)!, places);
            var explanation = await ReadAsync(asked, wanted, cancel);
            if (explanation is null)
            {
                output.Write($"{wanted}: no such service on {asked.Place.Name}: neither the agent's decisions nor its maps have it\n");
                return Unknown;
            }
            output.Write(options.IsStructured(parsed)
                ? options.Form(parsed, JsonSerializer.SerializeToUtf8Bytes(explanation, ExplanationJson.Default.Explanation))
                : ExplanationText.Of(explanation));
            return explanation.Agrees ? 0 : Differ;
        });
        return command;
    }

    /// <summary>Null when nobody knows the service.</summary>
    internal static async Task<Explanation?> ReadAsync(Client client, ServicePort wanted, CancellationToken cancellation)
    {
        var until = DateTimeOffset.UtcNow + Patience;
        while (true)
        {
            var explanation = Read(client, wanted);
            if (explanation is null or { Agrees: true } or { AgentSilence: null or > 5 } || DateTimeOffset.UtcNow >= until)
                return explanation;
            await Task.Delay(Pause, cancellation);
        }
    }

    private static Explanation? Read(Client client, ServicePort wanted)
    {
        using var maps = PinnedMaps.Open(client.Place.BpfRoot);
        var decisions = new DecisionDirectory(client.Place.StateDirectory);
        var decision = decisions.Find(wanted, client.Namespace);
        var intended = (decision?.Frontends ?? []).Where(wanted.Means).ToList();
        var external = client.IsExternal(maps);
        var scope = external ? LbScopes.External : LbScopes.Internal;
        var addresses = intended.Select(frontend => frontend.Address).ToHashSet(StringComparer.Ordinal);
        var pinned = maps.Frontends(address => addresses.Contains(address.ToString()) || wanted.Means(address))
            .Where(frontend => scope.Sees(frontend)).ToDictionary(frontend => frontend.Address.ToString());
        if (intended.Count == 0 && pinned.Count == 0)
            return null;
        var join = new Join(maps, DateTimeOffset.UtcNow);
        return new Explanation
        {
            Client = client.Text,
            Node = client.Place.Name,
            External = external,
            Identity = client.IdentityIn(maps),
            Service = decision?.Service ?? "",
            Global = decision?.Global ?? false,
            Choice = decision?.Choice ?? "",
            Remarks = decision?.Remarks ?? [],
            AgentSilence = maps.AgentState().SinceHeartbeat?.TotalSeconds,
            Frontends =
            [
                .. intended.Select(frontend => join.Of(frontend.Address, frontend, pinned.GetValueOrDefault(frontend.Address), external)),
                .. pinned.Where(pair => !addresses.Contains(pair.Key)).Select(pair => join.Of(pair.Key, null, pair.Value, external)),
            ],
        };
    }

    private static IReadOnlyList<Place> PlacesOf(string? root, string? state, Func<IReadOnlyList<ContextNode>> nodes)
    {
        if (root is not null && state is not null)
            return [new Place("this node", root, state)];
        if (root is not null || state is not null)
            throw new CliException("--bpf-root and --state-dir are needed together: give the agent's both");
        return
        [
            .. nodes().Select(node => new Place(node.Name, node.FindBpfRoot(), node.FindStateDirectory())),
        ];
    }
}

/// <summary>An agent as it is found on disk.</summary>
internal sealed record Place(string Name, string BpfRoot, string StateDirectory);
