using System.CommandLine;

namespace Mesh.Cli.Commands;

internal static class DemoCommand
{
    public static Command Build(TextWriter output) => new("demo", "x");
}
