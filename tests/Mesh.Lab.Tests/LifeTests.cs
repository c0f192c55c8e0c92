using System.Diagnostics;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;
using Mesh.Lab.Pods;
using Xunit;

namespace Mesh.Lab.Tests;

/// <summary>A lab's beginning and end: the machine afterwards is the machine before, whatever happened in between.</summary>
[Collection("one lab at a time")]
public sealed class LifeTests
{
    private const string Name = "lablife";
    private static readonly LabSpec Small = new(Name, 2, 1, 1);

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public LifeTests() => LiveLab.UseBuiltPrograms();

    /// <summary>Everything of the machine that this lab could leave behind, and nothing that other labs and tests make meanwhile.</summary>
    private static string Machine()
    {
        var cgroups = ControlGroup.FindRoot();
        IEnumerable<string> things =
        [
            .. Entries("/run/netns").Where(path => path.Contains(Name, StringComparison.Ordinal)),
            .. File.ReadLines("/proc/mounts").Where(m => m.Contains(Name, StringComparison.Ordinal)),
            .. Directory.EnumerateDirectories(cgroups, $"mesh-lab-{Name}*", SearchOption.AllDirectories),
            .. Entries($"{LabSpec.LabsRoot}/{Name}"),
            .. File.ReadLines("/proc/net/dev").Select(l => l.Split(':')[0].Trim()),
            .. Processes(),
        ];
        return string.Join('\n', things.Order(StringComparer.Ordinal));
    }

    private static IEnumerable<string> Entries(string path) => Directory.Exists(path) ? Directory.EnumerateFileSystemEntries(path) : [];

    /// <summary>Command lines that name this lab.</summary>
    private static IEnumerable<string> Processes()
    {
        foreach (var directory in Directory.EnumerateDirectories("/proc").Where(d => char.IsAsciiDigit(Path.GetFileName(d)[0])))
        {
            string command;
            try
            {
                command = File.ReadAllText($"{directory}/cmdline").Replace('\0', ' ');
            }
            catch (IOException)
            {
                continue;
            }
            if (command.Contains(Name, StringComparison.Ordinal) && !command.Contains("Mesh.Lab.Tests", StringComparison.Ordinal))
                yield return command;
        }
    }

    [Fact]
    public async Task Down_leaves_nothing_and_may_be_said_twice()
    {
        var before = Machine();
        var plan = await LabUp.RunAsync(Small, _ => { }, Cancel);
        Assert.NotEqual(before, Machine());
        // A visitor who is still inside keeps nothing alive.
        using var visitor = Process.Start(plan.Processes[0].Program, ["lab", "exec", "--name", Name, "osaka/1/1", "--", "sleep", "1000"]);
        await LiveLab.UntilAsync(() => Processes().Any(p => p.Contains("sleep", StringComparison.Ordinal)) || visitor.HasExited
            || File.ReadAllText($"/proc/{visitor.Id}/comm").Trim() == "sleep", "the visitor is inside");
        await LabDown.RunAsync(plan, Cancel);
        await visitor.WaitForExitAsync(Cancel);
        Assert.Equal(before, Machine());
        await LabDown.RunAsync(plan, Cancel);
        Assert.Null(LabStore.Find(Name));
    }

    [Fact]
    public async Task A_second_lab_of_the_same_name_is_refused_and_the_first_is_not_disturbed()
    {
        var plan = await LabUp.RunAsync(Small, _ => { }, Cancel);
        try
        {
            var refused = await Assert.ThrowsAsync<LabException>(() => LabUp.RunAsync(Small, _ => { }, Cancel));
            Assert.Contains("is up already", refused.Message, StringComparison.Ordinal);
            await using var load = LoadRun.Start(plan, "osaka/1/1", "--target", $"{plan.Clusters[1].ServiceIPv4}:80", "--count", "50");
            Assert.DoesNotContain(await load.EndAsync(Cancel), r => r.Error is not null);
        }
        finally
        {
            await LabDown.RunAsync(plan, CancellationToken.None);
        }
    }

    [Fact]
    public async Task A_lab_that_cannot_become_ready_is_taken_down_and_says_why()
    {
        var before = Machine();
        var given = Environment.GetEnvironmentVariable("MESH_BIN")!;
        var broken = Directory.CreateTempSubdirectory("mesh-lab-test");
        try
        {
            foreach (var program in new[] { "mesh", "clustermesh-apiserver" })
                File.CreateSymbolicLink(Path.Combine(broken.FullName, program), Path.Combine(given, program));
            await File.WriteAllTextAsync(Path.Combine(broken.FullName, "mesh-agent"), "#!/bin/sh\necho this agent is broken >&2\nexit 3\n", Cancel);
            File.SetUnixFileMode(Path.Combine(broken.FullName, "mesh-agent"), UnixFileMode.UserRead | UnixFileMode.UserExecute);
            Environment.SetEnvironmentVariable("MESH_BIN", broken.FullName);
            using var impatient = CancellationTokenSource.CreateLinkedTokenSource(Cancel);
            var failed = await Assert.ThrowsAsync<LabException>(() => LabUp.RunAsync(Small, _ => { }, TimeSpan.FromSeconds(3), impatient.Token));
            Assert.Contains("this agent is broken", failed.Message, StringComparison.Ordinal);
        }
        finally
        {
            Environment.SetEnvironmentVariable("MESH_BIN", given);
            broken.Delete(recursive: true);
        }
        Assert.Equal(before, Machine());
    }

    [Theory]
    [InlineData(5)]
    [InlineData(60)]
    [InlineData(150)]
    [InlineData(600)]
    public async Task A_lab_whose_making_was_killed_is_cleaned_away(int afterMilliseconds)
    {
        var before = Machine();
        using var up = Process.Start(new ProcessStartInfo(Path.Combine(Environment.GetEnvironmentVariable("MESH_BIN")!, "mesh"),
            ["lab", "up", "--name", Name, "--clusters", "2", "--nodes", "1", "--pods", "1"])
        { RedirectStandardOutput = true })!;
        await LiveLab.UntilAsync(() => Directory.Exists($"{LabSpec.LabsRoot}/{Name}") || up.HasExited, "the lab has begun");
        await Task.Delay(afterMilliseconds, Cancel);
        up.Kill();
        await up.WaitForExitAsync(Cancel);
        await LabDown.RunAsync(Name, Cancel);
        // A child that was killed before it could be given to the lab ends by itself when its input does.
        await LiveLab.UntilAsync(() => !Processes().Any(), "no process is left");
        Assert.Equal(before, Machine());
    }

    [Theory]
    [InlineData("lab up --clusters 2 --nodes 1 --pods 1", "network namespaces wired")]
    [InlineData("demo", "held: TCP, IPv4")]
    public async Task An_interrupted_command_takes_its_lab_down_itself(string line, string until)
    {
        var before = Machine();
        string[] command = [.. line.Split(' '), "--name", Name];
        using var up = Process.Start(new ProcessStartInfo(Path.Combine(Environment.GetEnvironmentVariable("MESH_BIN")!, "mesh"), command)
        { RedirectStandardOutput = true, RedirectStandardError = true })!;
        while (await up.StandardOutput.ReadLineAsync(Cancel) is { } said && !said.Contains(until, StringComparison.Ordinal))
        {
            // The story so far.
        }
        using (var interrupt = Process.Start("kill", ["-INT", $"{up.Id}"]))
            await interrupt.WaitForExitAsync(Cancel);
        var rest = up.StandardOutput.ReadToEndAsync(Cancel);
        Assert.Equal("mesh: interrupted\n", await up.StandardError.ReadToEndAsync(Cancel));
        Assert.DoesNotContain("FAILED", await rest, StringComparison.Ordinal);
        await up.WaitForExitAsync(Cancel);
        Assert.Equal(130, up.ExitCode);
        Assert.Equal(before, Machine());
    }

    [Fact]
    public async Task The_demo_holds_and_is_plain_text()
    {
        var before = Machine();
        var program = Path.Combine(Environment.GetEnvironmentVariable("MESH_BIN")!, "mesh");
        using var demo = Process.Start(new ProcessStartInfo(program, ["demo", "--name", Name])
        { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var error = demo.StandardError.ReadToEndAsync(Cancel);
        var story = await demo.StandardOutput.ReadToEndAsync(Cancel);
        await demo.WaitForExitAsync(Cancel);
        Assert.DoesNotContain("FAILED", story, StringComparison.Ordinal);
        Assert.Contains("Every step held", story, StringComparison.Ordinal);
        Assert.DoesNotContain('\u001b', story);
        Assert.Equal("", await error);
        Assert.Equal(0, demo.ExitCode);
        Assert.Equal(before, Machine());
    }
}
