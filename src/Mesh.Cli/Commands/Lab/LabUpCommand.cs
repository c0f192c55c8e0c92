using System.CommandLine;
using Mesh.Lab;
using Mesh.Lab.Plan;

namespace Mesh.Cli.Commands.Lab;

/// <summary>`mesh lab up`.</summary>
internal static class LabUpCommand
{
    public static Command Build(TextWriter output)
    {
        var name = LabCommand.NameOption();
        var clusters = new Option<int>("--clusters") { Description = $"1 to {LabSpec.ClustersMax}", DefaultValueFactory = _ => 3 };
        var nodes = new Option<int>("--nodes") { Description = $"Per cluster, 1 to {LabSpec.NodesMax}", DefaultValueFactory = _ => 2 };
        var pods = new Option<int>("--pods") { Description = $"Per node, 1 to {LabSpec.PodsMax}", DefaultValueFactory = _ => 2 };
        var unconnected = new Option<bool>("--unconnected") { Description = "Do not connect the clusters: try token, plan and connect yourself" };
        var direct = new Option<bool>("--direct") { Description = "Agents read the peers' doors themselves, without a relay" };
        var command = new Command("up", "Make a lab and wait until its clusters are one mesh.") { name, clusters, nodes, pods, unconnected, direct };
        command.SetAction(async (parsed, cancel) =>
        {
            var spec = new LabSpec(parsed.GetValue(name)!, parsed.GetValue(clusters), parsed.GetValue(nodes), parsed.GetValue(pods))
            {
                Connected = !parsed.GetValue(unconnected),
                Direct = parsed.GetValue(direct),
            };
            var plan = await LabUp.RunAsync(spec, output.WriteLine, cancel);
            var cluster = plan.Clusters[^1];
            var suffix = spec.Name == LabSpec.DefaultName ? "" : $" --name {spec.Name}";
            var byHand = plan is { Connected: false, Clusters: [var first, var second, ..] } ? $"""

                  token=$(mesh clustermesh token create --context {plan.Name}/{first.Name})
                  mesh clustermesh plan --context {plan.Name}/{second.Name} "$token"
                  mesh clustermesh connect --context {plan.Name}/{second.Name} "$token"
                  mesh clustermesh disconnect {first.Name} --context {plan.Name}/{second.Name}
                """ : "";
            output.WriteLine($"""

                Lab {plan.Name} is up. Try:{byHand}
                  mesh clustermesh status --context {plan.Name}/{cluster.Name}
                  mesh lab exec{suffix} {cluster.Name}/1/1 -- curl -s http://{cluster.ServiceIPv4}/
                  mesh lab info{suffix}        names, addresses, processes
                  mesh lab down{suffix}
                """);
            return 0;
        });
        return command;
    }
}
