using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Serialization;
using Mesh.Cli.Contexts;
using Mesh.Cli.Text;
using Mesh.Datapath;

namespace Mesh.Cli.Commands.Bpf;

/// <summary>`mesh bpf …`: what the kernel holds, read from a node's pinned maps, so that it is true with the agent dead or busy.</summary>
internal static class BpfCommand
{
    public static Command Build(TextWriter output) => new("bpf", "What the kernel holds; works with the agent dead.")
    {
        new Command("lb", "Frontends and backends of the load balancer.") { BpfLbListCommand.Build(output) },
        new Command("ipcache", "Addresses, their identities and nodes.") { BpfIPCacheListCommand.Build(output) },
        new Command("tunnel", "Pod ranges and the nodes that they are tunnelled to.") { BpfTunnelListCommand.Build(output) },
    };

    /// <summary>A `list` of key and values, as a table or as the JSON object that cilium-dbg prints.</summary>
    /// <param name="headers">Of the two columns.</param>
    internal static Command List(
        TextWriter output, string description, string headers, Func<PinnedMaps, IEnumerable<KeyValuePair<string, string[]>>> rows)
    {
        var context = new ContextOptions();
        var root = new Option<string?>("--bpf-root") { Description = "The agent's --bpf-root, instead of a context" };
        var command = new Command("list", description) { context.Context, context.Socket, root, context.Output };
        command.SetAction(parsed =>
        {
            using var maps = PinnedMaps.Open(parsed.GetValue(root) ?? context.Node(parsed).FindBpfRoot());
            output.Write(context.IsStructured(parsed) ? context.Form(parsed, Json(rows(maps))) : Table(headers, rows(maps)));
            return 0;
        });
        return command;
    }

    internal static string Table(string headers, IEnumerable<KeyValuePair<string, string[]>> rows)
    {
        var table = new TabWriter(3);
        table.Line(headers);
        foreach (var (key, values) in rows)
            for (var i = 0; i < values.Length; i++)
                table.Row(i == 0 ? key : "", values[i], "");
        return table.ToString();
    }

    private static byte[] Json(IEnumerable<KeyValuePair<string, string[]>> rows) =>
        JsonSerializer.SerializeToUtf8Bytes(new Dictionary<string, string[]>(rows), BpfJson.Default.DictionaryStringStringArray);
}

[JsonSerializable(typeof(Dictionary<string, string[]>))]
internal sealed partial class BpfJson : JsonSerializerContext;
