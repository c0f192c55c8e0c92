using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Reachability;

/// <param name="Action">Null when the test's policies did not come or go.</param>
/// <param name="Reason">One line.</param>
internal sealed record Failure(string Scenario, TestAction? Action, string Reason);

/// <param name="SkipReason">Null when it ran.</param>
internal sealed record TestResult(string Name, int Actions, IReadOnlyList<Failure> Failures, int SkippedScenarios, string? SkipReason, TimeSpan Duration);

/// <summary>
/// Carries a suite out, test after test, and says what it does in the layout of Cilium's own connectivity test. A failed action ends nothing: the
/// others still run. The policies of a test are withdrawn before the next begins, whatever happened.
/// </summary>
/// <param name="collect">Directory for what helps to find a failure's cause.</param>
internal sealed class SuiteRun(IStage stage, TextWriter output, string collect, TimeProvider time)
{
    /// <summary>The first failures tell; more of the same would only fill the disk.</summary>
    private const int CollectionsMax = 3;

    private static readonly TimeSpan WithdrawWithin = TimeSpan.FromSeconds(60);

    private int _collections;

    public async Task<IReadOnlyList<TestResult>> RunAsync(IReadOnlyList<ConnectivityTest> tests, CancellationToken cancel)
    {
        var results = new List<TestResult>();
        output.WriteLine($"🏃[{stage.Name}] Running {tests.Count} tests ...");
        foreach (var (number, test) in tests.Index())
        {
            var place = $"[{number + 1}/{tests.Count}]";
            if (test.SkipReason is { } reason)
            {
                output.WriteLine($"[=] [{stage.Name}] Skipping test [{test.Name}] {place} ({reason})");
                results.Add(new TestResult(test.Name, 0, [], 0, reason, TimeSpan.Zero));
                continue;
            }
            output.WriteLine($"[=] [{stage.Name}] Test [{test.Name}] {place}");
            results.Add(await TestAsync(test, cancel));
        }
        output.WriteLine();
        output.Write(Summary(stage.Name, results));
        if (_collections > 0)
            output.WriteLine($"📦 [{stage.Name}] Logs, maps and events of the failures are in {collect}");
        return results;
    }

    /// <summary>The last lines: how many, and each failure once more.</summary>
    public static string Summary(string name, IReadOnlyList<TestResult> results)
    {
        var ran = results.Where(result => result.SkipReason is null).ToList();
        var failed = ran.Where(result => result.Failures.Count > 0).ToList();
        var (actions, skipped, scenarios) = (ran.Sum(result => result.Actions), results.Count - ran.Count, ran.Sum(result => result.SkippedScenarios));
        var tail = $"{skipped} tests skipped, {scenarios} scenarios skipped";
        if (failed.Count == 0)
            return $"✅ [{name}] All {ran.Count} tests ({actions} actions) successful, {tail}.\n";
        var actionsFailed = failed.Sum(result => result.Failures.Count(failure => failure.Action is not null));
        return $"📋 Test Report [{name}]\n❌ [{name}] {failed.Count}/{ran.Count} tests failed ({actionsFailed}/{actions} actions), {tail}:\n"
            + string.Concat(failed.Select(result => $"Test [{result.Name}]:\n"
                + string.Concat(result.Failures.Select(failure => $"  ❌ {Path(result.Name, failure)}: {failure.Reason}\n"))));
    }

    public static string Path(string test, Failure failure) => failure.Action is { } action
        ? $"{test}/{failure.Scenario}:{action.Name}: {action}"
        : test;

    private async Task<TestResult> TestAsync(ConnectivityTest test, CancellationToken cancel)
    {
        var (failures, actions, skipped, began) = (new List<Failure>(), 0, 0, time.GetTimestamp());
        try
        {
            if (test.Policies.Count > 0)
            {
                output.WriteLine($"  ℹ️  📜 Applying {test.Policies.Count} policies to all clusters");
                await stage.ApplyAsync(test.Policies, cancel);
            }
            foreach (var scenario in test.Scenarios)
            {
                if (scenario.SkipReason is { } reason)
                {
                    skipped++;
                    output.WriteLine($"[-] Skipping scenario [{test.Name}/{scenario.Name}] ({reason})");
                    continue;
                }
                output.WriteLine($"[-] Scenario [{test.Name}/{scenario.Name}]");
                foreach (var action in scenario.Actions)
                {
                    actions++;
                    output.WriteLine($"[.] Action [{test.Name}/{scenario.Name}:{action.Name}: {action}]");
                    if (await ActAsync(action, cancel) is not { } why)
                        continue;
                    output.WriteLine($"  ❌ {why}\n     {string.Join(' ', Curl.Command(action))}");
                    failures.Add(new Failure(scenario.Name, action, why));
                }
            }
        }
        catch (Exception e) when (e is CliException or KubeApiException)
        {
            output.WriteLine($"  ❌ {e.Message}");
            failures.Add(new Failure("", null, e.Message));
        }
        finally
        {
            // What holds while it fails is what explains it.
            if (failures.Count > 0 && _collections < CollectionsMax && !cancel.IsCancellationRequested)
                await CollectAsync(test.Name, cancel);
            await WithdrawAsync(test, failures);
        }
        return new TestResult(test.Name, actions, failures, skipped, null, time.GetElapsedTime(began));
    }

    private async Task<string?> ActAsync(TestAction action, CancellationToken cancel)
    {
        try
        {
            return Curl.Judge(action, await stage.RunAsync(action.From, Curl.Command(action), cancel));
        }
        catch (Exception e) when (e is CliException or KubeApiException)
        {
            return $"could not be tried: {e.Message}";
        }
    }

    private async Task WithdrawAsync(ConnectivityTest test, List<Failure> failures)
    {
        if (test.Policies.Count == 0)
            return;
        using var bound = new CancellationTokenSource(WithdrawWithin, time);
        try
        {
            await stage.WithdrawAsync(test.Policies, bound.Token);
        }
        catch (Exception e) when (e is CliException or KubeApiException or OperationCanceledException)
        {
            output.WriteLine($"  ❌ the policies of {test.Name} were not withdrawn: {e.Message}");
            failures.Add(new Failure("", null, $"its policies were not withdrawn: {e.Message}"));
        }
    }

    private async Task CollectAsync(string test, CancellationToken cancel)
    {
        _collections++;
        try
        {
            await stage.CollectAsync(System.IO.Path.Combine(collect, test), cancel);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CliException or KubeApiException)
        {
            output.WriteLine($"  ⚠️  nothing could be collected in {collect}: {e.Message}");
        }
    }
}
