using System.CommandLine;
using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;
using Mesh.Cli.Text;

namespace Mesh.Cli.Commands.Policies;

/// <summary>`mesh policy list|get|trace|wait`: which policies hold on a node, and what they decide about a flow.</summary>
internal static class PolicyCommand
{
    public static Command Build(TextWriter output) => new("policy", "Network policies of a node, and what they decide.")
    {
        BuildList(output), BuildGet(output), BuildTrace(output), PolicyWaitCommand.Build(),
    };

    private static Command BuildList(TextWriter output) => ListCommand.Build(output, "Policies in force, their rules, and the pods they govern.",
        "policy/report", async (agent, cancel) => Table(await agent.GetPolicyReportAsync(cancel)));

    /// <summary>As cilium-dbg has it: the JSON text and the revision; -o jsonpath={.revision} is what its test suite waits for.</summary>
    private static Command BuildGet(TextWriter output)
    {
        var options = new ContextOptions();
        var command = new Command("get", "The policies as JSON, and their revision.");
        options.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var agent = options.Node(parsed).Connect();
            if (options.IsStructured(parsed))
            {
                output.Write(options.Form(parsed, await agent.GetBytesAsync("policy", cancel)));
                return 0;
            }
            var tree = await agent.GetPolicyAsync(cancel);
            output.Write($"{tree.Policy}\nRevision: {tree.Revision}\n");
            return 0;
        });
        return command;
    }

    private static Command BuildTrace(TextWriter output)
    {
        const string who = "NAMESPACE/POD, CLUSTER/NAMESPACE/POD, an address, an identity's number, or a word such as world";
        var options = new ContextOptions();
        var source = new Option<string>("--src") { Description = $"Who sends: {who}", Required = true };
        var destination = new Option<string>("--dst") { Description = "Who is to receive it, named alike", Required = true };
        var port = new Option<string>("--dport") { Description = "80/TCP, 53/UDP, 8/ICMP (type)", Required = true };
        var command = new Command("trace", "What a node decides about a flow, by which rule, and what its maps say; exit code 1 when they differ.")
        {
            source, destination, port,
        };
        options.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var agent = options.Node(parsed).Connect();
            var report = await agent.TracePolicyAsync(parsed.GetValue(source)!, parsed.GetValue(destination)!, parsed.GetValue(port)!, cancel);
            output.Write(options.IsStructured(parsed)
                ? options.Form(parsed, JsonSerializer.SerializeToUtf8Bytes(report, AgentApiJson.Wire.PolicyTraceReport))
                : Text(report));
            return report.Ends.All(end => end.Kernel?.Agrees != false) ? 0 : 1;
        });
        return command;
    }

    internal static string Table(PolicyReport report)
    {
        var text = "";
        var rules = new TabWriter(3);
        rules.Line("POLICY\tRULE\tDIRECTION\tACTION\tPEERS\tPORTS\tPACKETS");
        foreach (var policy in report.Objects)
        {
            var name = $"{policy.Kind} {(policy.Namespace is null ? "" : $"{policy.Namespace}/")}{policy.Name}";
            if (policy.Rules.Count == 0)
                rules.Line($"{name}\t-\t\tdeny by default\t\t\t");
            foreach (var rule in policy.Rules)
                rules.Line($"{name}\t{rule.Field}\t{rule.Direction}\t{(rule.Deny ? "deny" : "allow")}\t"
                    + $"{(rule.Peers.Count == 0 ? "nobody" : string.Join("; ", rule.Peers))}\t"
                    + $"{(rule.Ports is null ? "any" : string.Join(", ", rule.Ports))}\t{rule.Packets}");
        }
        text += report.Objects.Count == 0 ? "no policies\n" : rules.ToString();
        var problems = report.Objects.SelectMany(policy => (policy.Unsupported ?? []).Select(what => $"{policy.Kind} {policy.Namespace}/{policy.Name}: {what}"))
            .Concat(report.Problems ?? []).ToList();
        if (problems.Count > 0)
            text += "\n" + string.Concat(problems.Select(problem => $"! {problem}\n"));
        var endpoints = new TabWriter(3);
        endpoints.Line("ENDPOINT\tPOD\tIDENTITY\tINGRESS\tEGRESS\tROWS");
        foreach (var endpoint in report.Endpoints)
            endpoints.Line($"{endpoint.Id}\t{endpoint.Pod}\t{endpoint.Identity}\t{endpoint.Ingress}\t{endpoint.Egress}\t{endpoint.Rows}");
        return $"{text}\n{endpoints}Revision: {report.Revision}{(report.Audit ? ", audit mode: what is denied passes" : "")}\n";
    }

    internal static string Text(PolicyTraceReport report)
    {
        var text = $"{report.Source}\n  -> {report.Destination}, {report.Port}\n";
        foreach (var end in report.Ends)
        {
            text += $"{end.Direction} of {end.Pod} (endpoint {end.Endpoint}): {(end.Allowed ? "allowed" : "denied")}: {end.Reason}\n";
            foreach (var rule in end.Rules ?? [])
                text += $"   {(rule is { MeansPeer: true, MeansPort: true } ? rule.Deny ? "denies " : "allows " : "passes over")} {rule.Rule}"
                    + $"{(rule.MeansPeer ? "" : " (other peers)")}{(rule.MeansPort ? "" : " (other ports)")}\n";
            if (end.Kernel is { } kernel)
                text += $"   kernel: {kernel.Entry}{(kernel.Agrees ? "" : $"  <-- differs: the map {(kernel.Allowed ? "allows" : "denies")} it")}\n";
        }
        if (report.Ends.Count == 0)
            text += "neither end is a pod of this node: ask the agents of their nodes\n";
        return $"{text}Final verdict: {report.Verdict}\n";
    }
}
