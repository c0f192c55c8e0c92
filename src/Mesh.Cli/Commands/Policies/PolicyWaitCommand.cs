using System.CommandLine;
using System.Globalization;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;

namespace Mesh.Cli.Commands.Policies;

/// <summary>
/// `mesh policy wait REVISION`: until an agent has read that many changes of policies and every pod of its node is governed by them. Cilium's
/// connectivity test runs it in each agent's pod behind each policy that it makes or deletes; a byte on stderr fails the test.
/// </summary>
internal static class PolicyWaitCommand
{
    public static Command Build()
    {
        var options = new ContextOptions();
        var revision = new Argument<long>("revision") { Description = "Revision, as `policy get` has it" };
        var patience = Seconds("--max-wait-time", "How long at most, in seconds (default 360)", 360);
        var failing = Seconds("--fail-wait-time", "How long a pod may be not-ready before that is the end of it, in seconds (default 60)", 60);
        var pause = Seconds("--sleep-time", "Seconds between two looks (default 1)", 1);
        var command = new Command("wait", "Wait until every pod of the node is governed by the policies of a revision; exit code 1 when that takes too long.")
        {
            revision, patience, failing, pause,
        };
        options.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var agent = options.Node(parsed).Connect();
            await WaitAsync(agent, parsed.GetValue(revision), TimeSpan.FromSeconds(parsed.GetValue(patience)),
                TimeSpan.FromSeconds(parsed.GetValue(failing)), TimeSpan.FromSeconds(parsed.GetValue(pause)), TimeProvider.System, cancel);
            return 0;
        });
        return command;
    }

    private static Option<uint> Seconds(string name, string description, uint standard) =>
        new(name) { Description = description, DefaultValueFactory = _ => standard };

    /// <exception cref="CliException">It took longer than <paramref name="patience"/>, or a pod was not-ready for longer than
    /// <paramref name="failing"/>; says who is late.</exception>
    private static async Task WaitAsync(AgentClient agent, long revision, TimeSpan patience, TimeSpan failing, TimeSpan pause, TimeProvider time,
        CancellationToken cancellation)
    {
        var begin = time.GetTimestamp();
        long? failed = null;
        while (true)
        {
            var read = (await agent.GetPolicyAsync(cancellation)).Revision;
            var late = (await agent.GetEndpointsAsync(cancellation))
                .Where(endpoint => (endpoint.Status?.Policy?.Realized?.PolicyRevision ?? 0) < revision).ToList();
            if (read >= revision && late.Count == 0)
                return;
            failed = late.Any(endpoint => endpoint.Status?.State == "not-ready") ? failed ?? time.GetTimestamp() : null;
            var waited = time.GetElapsedTime(begin);
            if (waited >= patience || (failed is { } since && time.GetElapsedTime(since) >= failing))
                throw new CliException(string.Create(CultureInfo.InvariantCulture, $"revision {revision} does not hold after {waited.TotalSeconds:F0} s: "
                    + $"{Reason(read, revision, late)}"));
            await Task.Delay(pause < patience - waited ? pause : patience - waited, time, cancellation);
        }
    }

    private static string Reason(long read, long revision, List<Endpoint> late) => read < revision
        ? $"the agent has read {read}; what changes after that it has not been told, or it is no policy"
        : string.Join(", ", late.OrderBy(endpoint => endpoint.Id).Select(endpoint =>
            $"endpoint {endpoint.Id} ({endpoint.Status?.ExternalIdentifiers?.PodName}) is {endpoint.Status?.State} with "
            + $"{endpoint.Status?.Policy?.Realized?.PolicyRevision ?? 0}"));
}
