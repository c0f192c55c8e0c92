using System.Runtime.CompilerServices;

namespace Mesh.Deploy.Tests;

/// <summary>Where the repository is, and its programs.</summary>
internal static class Checkout
{
    public static string Root { get; } = Find();

    /// <summary>PATH of the programs under test: MESH_BIN, several directories if need be, else out/bin.</summary>
    public static string Programs { get; } = Environment.GetEnvironmentVariable("MESH_BIN") is { Length: > 0 } given ? given : $"{Root}/out/bin";

    public static string Program(string name) => Programs.Split(':').Select(directory => Path.Combine(directory, name)).FirstOrDefault(File.Exists)
        ?? throw new InvalidOperationException($"{name} is not in {Programs}: run `make build`");

    private static string Find([CallerFilePath] string here = "") => Path.GetFullPath(Path.Combine(Path.GetDirectoryName(here)!, "..", ".."));
}
