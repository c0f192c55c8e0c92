using System.Diagnostics;
using Mesh.TestKit;

namespace Mesh.Cluster.Tests;

/// <summary>Somebody with a shell, the programs and a kubeconfig.</summary>
internal sealed class Person(KubeWorld.KubeWorld world)
{
    private static readonly string Path = Environment.GetEnvironmentVariable("MESH_BIN") is { Length: > 0 } given ? given : Built();

    /// <summary>Runs `mesh …`; its exit code and all that it printed.</summary>
    public (int ExitCode, string Said) Mesh(params string[] words)
    {
        var start = new ProcessStartInfo("sh", ["-c", "mesh \"$@\" 2>&1", "sh", .. words]) { RedirectStandardOutput = true };
        start.Environment["KUBECONFIG"] = world.Kubeconfig;
        start.Environment["PATH"] = $"{Path}:{Environment.GetEnvironmentVariable("PATH")}";
        start.Environment.Remove("MESH_CONTEXT");
        using var process = ChildThread.Start(start);
        var said = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, said);
    }

    public string Kubectl(string context, params string[] words) =>
        ChildThread.Run("kubectl", ["--kubeconfig", world.Kubeconfig, "--context", context, .. words]);

    /// <param name="input">What it reads on stdin.</param>
    public string KubectlText(string context, string input, params string[] words) =>
        ChildThread.Run("sh", ["-c", "text=$1; shift; printf %s \"$text\" | kubectl \"$@\"", "sh", input,
            "--kubeconfig", world.Kubeconfig, "--context", context, .. words]);

    private static string Built([System.Runtime.CompilerServices.CallerFilePath] string here = "") =>
        System.IO.Path.GetFullPath(System.IO.Path.Combine(System.IO.Path.GetDirectoryName(here)!, "..", "..", "out", "bin"));
}
