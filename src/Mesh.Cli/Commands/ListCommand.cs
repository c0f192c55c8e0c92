using System.CommandLine;
using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;

namespace Mesh.Cli.Commands;

/// <summary>What `service list`, `node list` and their like have in common: ask one agent, print its answer or a table of it.</summary>
internal static class ListCommand
{
    /// <param name="path">Of the agent's REST API, below /v1/.</param>
    /// <param name="member">Of the answer, which -o json prints; null for all of it.</param>
    public static Command Build(
        TextWriter output, string description, string path, Func<AgentClient, CancellationToken, Task<string>> table, string? member = null)
    {
        var options = new ContextOptions();
        var command = new Command("list", description);
        options.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var agent = options.Node(parsed).Connect();
            output.Write(options.IsStructured(parsed)
                ? options.Form(parsed, Member(await agent.GetBytesAsync(path, cancel), member))
                : await table(agent, cancel));
            return 0;
        });
        return command;
    }

    private static byte[] Member(byte[] json, string? name)
    {
        if (name is null)
            return json;
        using var document = JsonDocument.Parse(json);
        return document.RootElement.TryGetProperty(name, out var member) ? System.Text.Encoding.UTF8.GetBytes(member.GetRawText()) : "[]"u8.ToArray();
    }

    /// <summary>The agent's own bytes, indented by two blanks: nothing that it said is lost.</summary>
    public static string Indent(byte[] json)
    {
        using var document = JsonDocument.Parse(json);
        using var stream = new MemoryStream();
        using (var writer = new Utf8JsonWriter(stream, new JsonWriterOptions
        {
            Indented = true,
            Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        }))
        {
            document.WriteTo(writer);
        }
        return System.Text.Encoding.UTF8.GetString(stream.ToArray()) + "\n";
    }
}
