namespace Mesh.Cli.Reachability;

/// <summary>The request of an action as curl's arguments, and whether what came of it is what must come.</summary>
internal static class Curl
{
    private const int CannotResolve = 6;
    private const int Refused = 7;
    private const int TimedOut = 28;

    /// <summary>Seconds. A dropped packet is waited for in vain: shorter.</summary>
    private const string AnswerWithin = "10", DropWithin = "3";

    public static IReadOnlyList<string> Command(TestAction action)
    {
        var patience = action.Expected.IsDropped ? DropWithin : AnswerWithin;
        return ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--connect-timeout", patience, "--max-time", patience,
            $"http://{action.Target}/"];
    }

    /// <summary>Null when all is as it must be; else why not.</summary>
    public static string? Judge(TestAction action, CommandOutcome outcome)
    {
        var (expected, who) = (action.Expected, outcome.Output.Split(' ', 2)[0].Trim());
        if (expected.IsDropped)
        {
            return outcome.ExitCode switch
            {
                TimedOut => null,
                0 => $"answered by {who}, but must be dropped",
                Refused => $"refused, but must be dropped: {Said(outcome)}",
                _ => $"ended with {outcome.ExitCode} and not by a drop: {Said(outcome)}",
            };
        }
        return outcome.ExitCode switch
        {
            0 when expected.AnsweredBy.Contains(who) => null,
            0 => $"answered by {(who.Length > 0 ? who : "nobody")}, must be {expected}",
            CannotResolve => $"the name has no address in the cluster's DNS: {Said(outcome)}",
            Refused => $"refused: nobody listens there, or the service has no backends on this node: {Said(outcome)}",
            TimedOut => $"no answer within {AnswerWithin} s, must be {expected}: {Said(outcome)}",
            126 or 127 => $"there is no curl in the pod's image: {Said(outcome)}",
            var code => $"curl ended with {code}: {Said(outcome)}",
        };
    }

    private static string Said(CommandOutcome outcome) =>
        string.Join(' ', outcome.Errors.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)) is { Length: > 0 } said ? said : "it said nothing";
}
