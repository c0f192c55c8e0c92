using System.Diagnostics;
using System.Runtime.CompilerServices;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;
using Mesh.Lab.Pods;
using Xunit;

namespace Mesh.Lab.Tests;

/// <summary>A lab of three clusters that the tests of a class break and mend; taken down with them.</summary>
public sealed class LiveLab : IAsyncLifetime
{
    public const string Name = "labtest";
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    public LabPlan Plan { get; private set; } = null!;

    public ClusterPlan Tokyo => Plan.Clusters[0];

    public ClusterPlan Osaka => Plan.Clusters[1];

    /// <summary>A pod in osaka.</summary>
    public static string Client => "osaka/1/1";

    public string[] HttpTargets => ["--target", $"{Osaka.ServiceIPv4}:80", "--target", $"[{Osaka.ServiceIPv6}]:80"];

    public static CancellationToken Cancel => TestContext.Current.CancellationToken;

    /// <summary>Tests drive the programs as they are shipped.</summary>
    public static void UseBuiltPrograms([CallerFilePath] string here = "")
    {
        if (Environment.GetEnvironmentVariable("MESH_BIN") is { Length: > 0 })
            return;
        var root = Path.GetDirectoryName(Path.GetDirectoryName(Path.GetDirectoryName(here)))!;
        Environment.SetEnvironmentVariable("MESH_BIN", Path.Combine(root, "out", "bin"));
    }

    public async ValueTask InitializeAsync()
    {
        UseBuiltPrograms();
        await LabDown.RunAsync(Name, Cancel);
        Plan = await LabUp.RunAsync(new LabSpec(Name, 3, 2, 2), line => TestContext.Current.SendDiagnosticMessage(line), Cancel);
    }

    public async ValueTask DisposeAsync()
    {
        if (Plan is not null)
            await LabDown.RunAsync(Plan, CancellationToken.None);
    }

    /// <summary>Load from the client pod until it is stopped.</summary>
    public LoadRun Load(int perSecond = 200) => LoadRun.Start(Plan, Client, [.. HttpTargets, "--rate", $"{perSecond}"]);

    public Task MeshAsync() => LabReady.WaitForMeshAsync(Plan, Patience, Cancel);

    public ProcessReference? Running(string process) => ProcessReference.FromPidFile(Plan.PidFile(process));

    public static double Now => (DateTime.UtcNow - DateTime.UnixEpoch).TotalMilliseconds;

    public static Task UntilAsync(Func<bool> condition, string what, TimeSpan? patience = null) =>
        UntilAsync(() => Task.FromResult(condition()), what, patience);

    public static async Task UntilAsync(Func<Task<bool>> condition, string what, TimeSpan? patience = null)
    {
        var clock = Stopwatch.StartNew();
        while (!await condition())
        {
            Assert.True(clock.Elapsed < (patience ?? Patience), $"waited in vain until {what}");
            await Task.Delay(20, Cancel);
        }
    }

    /// <summary>Waits until so many more requests have been answered or have failed.</summary>
    public static async Task RequestsAsync(LoadRun load, int number)
    {
        var before = load.Snapshot().Count;
        await UntilAsync(() => load.Snapshot().Count >= before + number, $"{number} requests were made");
    }

    /// <summary>One of the shipped programs, still running; what it says must be read.</summary>
    public Process Start(params string[] arguments) => Process.Start(new ProcessStartInfo(Plan.Processes[0].Program, arguments)
    {
        RedirectStandardOutput = true,
        RedirectStandardError = true,
    })!;

    /// <summary>One of the shipped programs, run to its end.</summary>
    public async Task<(int Code, string Output, string Error)> MeshAsync(params string[] arguments)
    {
        using var process = Start(arguments);
        var error = process.StandardError.ReadToEndAsync(Cancel);
        var output = await process.StandardOutput.ReadToEndAsync(Cancel);
        await process.WaitForExitAsync(Cancel);
        return (process.ExitCode, output, await error);
    }
}
