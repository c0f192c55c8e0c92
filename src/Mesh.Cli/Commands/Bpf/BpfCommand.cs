using System.CommandLine;

namespace Mesh.Cli.Commands.Bpf;

/// <summary>`mesh bpf …`: what the kernel holds, read from the pinned maps, so that it works with the agent dead.</summary>
internal static class BpfCommand
{
    public static Command Build(TextWriter output, TextWriter error) => new("bpf", "What the kernel holds; works with the agent dead.")
    {
    };
}
