namespace Mesh.Cli;

/// <summary>The program <c>mesh</c>, also under the name <c>cilium</c>.</summary>
public static class Program
{
    /// <summary>Runs one command.</summary>
    /// <returns>The exit code.</returns>
    public static Task<int> Main(string[] args) => MeshCommand.RunAsync(args, Console.Out, Console.Error);
}
