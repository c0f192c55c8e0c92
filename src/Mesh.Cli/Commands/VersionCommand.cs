using System.CommandLine;
using System.Reflection;

namespace Mesh.Cli.Commands;

/// <summary>`mesh version`.</summary>
internal static class VersionCommand
{
    public static Command Build(TextWriter output)
    {
        var command = new Command("version", "The version of this program.");
        command.SetAction(_ =>
        {
            var version = typeof(VersionCommand).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion;
            output.WriteLine($"mesh {version}");
            return 0;
        });
        return command;
    }
}
