using System.CommandLine;
using System.Text;
using Mesh.Joining;
using Mesh.Joining.Checks;

namespace Mesh.Cli.Commands.Joining;

/// <summary>`mesh clustermesh plan TOKEN`: looks at everything that a join needs, changes nothing, and leaves the token unused.</summary>
internal static class PlanCommand
{
    public static Command Build(TextWriter output)
    {
        var choice = new ClusterChoice();
        var token = new TokenArgument();
        var command = choice.AddTo(new Command("plan", "Check whether this cluster can join by a token; changes nothing. Exit code 1 on a fault."));
        token.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            var cluster = choice.Read(parsed);
            var report = await new TokenJoin(cluster.Description, token.Read(parsed), cluster.Environment(_ => { })).PlanAsync(cancel);
            output.Write(choice.Json(parsed) ? report.ToJson() + "\n" : Format(report));
            return report.Faults.Any() ? 1 : 0;
        });
        return command;
    }

    public static string Format(PlanReport report)
    {
        var text = new StringBuilder($"{report.Cluster} ⇄ {report.Peer}\n");
        foreach (var finding in report.Findings)
        {
            text.Append(finding.Severity switch { Severity.Ok => "  ✅ ", Severity.Warning => "  ⚠️  ", _ => "  ❌ " })
                .Append(finding.Check).Append(": ").Append(finding.Text).Append('\n');
            if (finding.Mend is not null)
                text.Append("       ").Append(finding.Mend).Append('\n');
        }
        int Count(Severity severity) => report.Findings.Count(finding => finding.Severity == severity);
        return text.Append($"{Count(Severity.Fault)} faults, {Count(Severity.Warning)} warnings, {Count(Severity.Ok)} ok\n").ToString();
    }
}
