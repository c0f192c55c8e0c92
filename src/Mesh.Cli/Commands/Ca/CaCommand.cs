using System.CommandLine;

namespace Mesh.Cli.Commands.Ca;

/// <summary>`mesh ca …`: the certificates of a cluster, in a directory of files. Nothing here talks to anybody; who reads the files
/// sees a change at its next handshake.</summary>
internal static class CaCommand
{
    public static Command Build(TextWriter output) => new("ca", "The certificates of a cluster: authority, server, readers.")
    {
        CaInitCommand.Build(output),
        CaIssueCommand.Build(output),
        CaRotateCommand.Build(output),
        CaShowCommand.Build(output),
    };
}
