using System.Diagnostics;
using System.Runtime.CompilerServices;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Scenarios.Tests;

/// <summary>The programs as they are shipped, and a child of ours that dies with us.</summary>
internal static class Programs
{
    public static string Folder { get; } = Environment.GetEnvironmentVariable("MESH_BIN") is { Length: > 0 } given ? given : Built();

    /// <summary>Starts a program of ours; its output goes to the log file. Killed when this process dies.</summary>
    public static Process Start(string program, string log, params string[] arguments)
    {
        var path = Path.Combine(Folder, program);
        Assert.True(File.Exists(path), $"{path} is not there: run `make build`");
        // The shell gives us the redirection, and becomes the program.
        var start = new ProcessStartInfo("/bin/sh") { UseShellExecute = false };
        foreach (var word in (string[])["-c", "log=$1; shift; exec \"$@\" >>\"$log\" 2>&1", "sh", log, path, .. arguments])
            start.ArgumentList.Add(word);
        return ChildThread.Start(start);
    }

    public static async Task KillAsync(Process process)
    {
        if (!process.HasExited)
            process.Kill();
        await process.WaitForExitAsync();
        process.Dispose();
    }

    public static string Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var word in arguments)
            start.ArgumentList.Add(word);
        using var process = Process.Start(start)!;
        var error = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? output
            : throw new InvalidOperationException($"{program} {string.Join(' ', arguments)}: exit code {process.ExitCode}: {error.Result}");
    }

    private static string Built([CallerFilePath] string here = "") =>
        Path.Combine(Path.GetDirectoryName(Path.GetDirectoryName(Path.GetDirectoryName(here)))!, "out", "bin");
}
