using System.Diagnostics;

namespace Mesh.Datapath.Tests.Kernel;

/// <summary>A command in the namespaces of the calling thread, run to its end.</summary>
internal static class Command
{
    /// <summary>Standard output; a non-zero exit is an exception with what was said.</summary>
    internal static string Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? output
            : throw new InvalidOperationException($"{program} {string.Join(' ', arguments)}: exit {process.ExitCode}: {errors.Result}");
    }
}
