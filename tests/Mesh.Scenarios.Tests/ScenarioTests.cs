using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using Mesh.AgentApi;
using Mesh.Datapath;
using Xunit;

namespace Mesh.Scenarios.Tests;

/// <summary>Runs each file of tests/scenarios; see its README for the steps.</summary>
public class ScenarioTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan LookEvery = TimeSpan.FromMilliseconds(20);

    public static TheoryData<string> Files => [.. Directory.EnumerateFiles(Folder(), "*.txtar").Select(file => Path.GetFileName(file)).Order()];

    [Theory]
    [MemberData(nameof(Files))]
    public async Task The_story_holds(string file)
    {
        var scenario = Scenario.Read(Path.Combine(Folder(), file));
        var cancellation = TestContext.Current.CancellationToken;
        await using var world = new World();
        foreach (var (line, words) in scenario.Steps)
        {
            try
            {
                await StepAsync(world, scenario, words, cancellation);
            }
            catch (Exception failure) when (failure is not OperationCanceledException)
            {
                Assert.Fail($"{file}:{line}: {string.Join(' ', words)}\n{failure.Message}\n{world.Logs()}");
            }
        }
    }

    private static Task StepAsync(World world, Scenario scenario, string[] words, CancellationToken cancellation)
    {
        switch (words)
        {
            case ["cluster", var name, var id]:
                return world.AddClusterAsync(name, id);
            case ["foreign", var name]:
                return world.AddForeignAsync(name);
            case ["apply", var cluster, var text]:
                world.Apply(cluster, text, scenario.Text(text));
                return Task.CompletedTask;
            case ["apply", var cluster, var text, "as", var manifest]:
                world.Apply(cluster, manifest, scenario.Text(text));
                return Task.CompletedTask;
            case ["withdraw", var cluster, var manifest]:
                world.Withdraw(cluster, manifest);
                return Task.CompletedTask;
            case ["put", var cluster, var key, var text]:
                return world.PutAsync(cluster, key, scenario.Text(text).TrimEnd('\n'), cancellation);
            case ["remove", var cluster, var key]:
                return world.RemoveAsync(cluster, key, cancellation);
            case ["agent", var cluster, var node, var id]:
                world.AddAgent(cluster, node, id);
                return Task.CompletedTask;
            case ["pin", var peer, var text]:
                world.Pin(peer, scenario.Text(text));
                return Task.CompletedTask;
            case ["connect", var peer]:
                world.Connect(peer);
                return Task.CompletedTask;
            case ["disconnect", var peer]:
                world.Disconnect(peer);
                return Task.CompletedTask;
            case ["kill", "etcd", var cluster]:
                return world.KillEtcdAsync(cluster);
            case ["start", "etcd", var cluster]:
                return world.StartEtcdAsync(cluster);
            case ["kill", "agent"]:
                return world.KillAgentAsync();
            case ["start", "agent"]:
                world.StartAgent();
                return Task.CompletedTask;
            case ["etcd", var cluster, var text]:
                return ExpectAsync(() => world.EtcdAsync(cluster, cancellation), Sorted(scenario.Text(text)), cancellation);
            case ["frontends", var text]:
                return ExpectAsync(() => world.FrontendsAsync(cancellation), Sorted(scenario.Text(text)), cancellation);
            case ["lb", var text]:
                return ExpectAsync(() => Task.FromResult(world.LoadBalancing()), Sorted(scenario.Text(text)), cancellation);
            case ["ipcache", var text]:
                return ExpectAsync(() => Task.FromResult(world.IPCache()), Sorted(scenario.Text(text)), cancellation);
            case ["quarantine", var text]:
                return ExpectAsync(() => world.QuarantineAsync(cancellation), Sorted(scenario.Text(text)), cancellation);
            case ["peer", var peer, .. var expected]:
                return UntilAsync(() => world.PeerAsync(peer, cancellation), status => status.Contains(string.Join(' ', expected), StringComparison.Ordinal),
                    string.Join(' ', expected), cancellation);
            case ["unchanged", "lb", var text, var time]:
                return InsistAsync(world.LoadBalancing, Sorted(scenario.Text(text)),
                    TimeSpan.FromSeconds(double.Parse(time.TrimEnd('s'), CultureInfo.InvariantCulture)), cancellation);
            default:
                throw new FormatException("no such step: tests/scenarios/README.md lists them");
        }
    }

    private static Task ExpectAsync(Func<Task<string>> look, string expected, CancellationToken cancellation) =>
        UntilAsync(look, actual => actual == expected, expected, cancellation);

    private static async Task UntilAsync(Func<Task<string>> look, Predicate<string> holds, string expected, CancellationToken cancellation)
    {
        var clock = Stopwatch.StartNew();
        while (true)
        {
            string actual;
            try
            {
                actual = await look();
            }
            catch (Exception notYet) when (notYet is AgentException or DatapathException or IOException)
            {
                actual = notYet.Message;
            }
            if (holds(actual))
                return;
            if (clock.Elapsed > Patience)
                Assert.Fail($"expected within {Patience.TotalSeconds} s:\n{expected}\nbut it is:\n{actual}");
            await Task.Delay(LookEvery, cancellation);
        }
    }

    private static async Task InsistAsync(Func<string> look, string expected, TimeSpan time, CancellationToken cancellation)
    {
        for (var clock = Stopwatch.StartNew(); clock.Elapsed < time; await Task.Delay(LookEvery, cancellation))
            Assert.Equal(expected, look());
    }

    private static string Sorted(string text) =>
        string.Join('\n', text.Split('\n').Where(line => line.Length > 0 && line[0] != '#').Order(StringComparer.Ordinal));

    private static string Folder([CallerFilePath] string here = "") =>
        Path.Combine(Path.GetDirectoryName(Path.GetDirectoryName(here))!, "scenarios");
}
