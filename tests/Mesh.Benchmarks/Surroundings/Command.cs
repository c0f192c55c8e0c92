using System.Diagnostics;
using System.Runtime.CompilerServices;
using Mesh.TestKit;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>Other programs: tools that are run to their end, and our own as `make build` left them.</summary>
internal static class Command
{
    /// <summary>Root of the checkout.</summary>
    public static string Root { get; } = FindRoot();

    /// <summary>Standard output; a non-zero exit is an exception with what was said.</summary>
    public static string Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? output
            : throw new InvalidOperationException(
                $"{program} {string.Join(' ', arguments)}: exit code {process.ExitCode}: {errors.Result}");
    }

    /// <summary>Starts one of our programs; what it says goes to <paramref name="log"/>. It dies with this process.</summary>
    public static Process Start(string program, string log, params string[] arguments) => StartAt(PathOf(program), log, arguments);

    /// <summary>One of our programs.</summary>
    public static string PathOf(string program)
    {
        var folder = Environment.GetEnvironmentVariable("MESH_BIN") is { Length: > 0 } given ? given : Path.Combine(Root, "out", "bin");
        var path = Path.Combine(folder, program);
        if (!File.Exists(path))
            throw new InvalidOperationException($"{path} is not there: run `make build`");
        return path;
    }

    /// <summary>This program once more, as something to be measured: with the runtime's usual settings, not those of who measures.</summary>
    public static Process StartSelf(string log, params string[] arguments) =>
        StartAt("env", log, ["DOTNET_TieredPGO=1", "DOTNET_gcConcurrent=1", Environment.ProcessPath!, .. arguments]);

    private static Process StartAt(string path, string log, string[] arguments) =>
        ChildThread.Start(new ProcessStartInfo("/bin/sh",
            ["-c", "log=$1; shift; exec \"$@\" >>\"$log\" 2>&1", "sh", log, path, .. arguments])
        {
            // One that serves until its input ends has one.
            RedirectStandardInput = true,
        });

    public static async Task StopAsync(Process process)
    {
        if (!process.HasExited)
            process.Kill();
        await process.WaitForExitAsync();
        process.Dispose();
    }

    private static string FindRoot([CallerFilePath] string here = "")
    {
        var folder = Path.GetDirectoryName(here)!;
        while (!File.Exists(Path.Combine(folder, "Mesh.sln")))
            folder = Path.GetDirectoryName(folder) ?? throw new InvalidOperationException($"no Mesh.sln above {here}");
        return folder;
    }
}
