using System.CommandLine;
using Mesh.Lab;

namespace Mesh.Cli.Commands.Lab;

/// <summary>`mesh lab etcdctl`: this process becomes etcdctl, in the right control plane and with the right certificate.</summary>
internal static class LabEtcdctlCommand
{
    public static Command Build()
    {
        var name = LabCommand.NameOption();
        var peer = new Option<string?>("--as") { Description = "Read the door, with the certificate that this peer got; else: the etcd behind it" };
        var cluster = new Argument<string>("CLUSTER") { Description = "Whose keys" };
        var words = new Argument<string[]>("ARGUMENTS") { Description = "Of etcdctl, behind --", Arity = ArgumentArity.OneOrMore };
        var command = new Command("etcdctl", "Look at a cluster's keys with etcd's own client.") { name, peer, cluster, words };
        command.SetAction(parsed =>
        {
            var plan = LabStore.Get(parsed.GetValue(name)!);
            var owner = LabPlace.FindCluster(plan, parsed.GetValue(cluster)!);
            var visitor = parsed.GetValue(peer) is { } other ? LabPlace.FindCluster(plan, other) : owner;
            var reader = visitor == owner
                ? LabEtcd.Own(owner) ?? throw new CliException($"the API server of {owner.Name} has not started an etcd yet: try again")
                : LabEtcd.As(visitor, owner) ?? throw new CliException($"{visitor.Name} has no certificate for the door of {owner.Name}: "
                    + $"connect them first, `mesh clustermesh token create --context {owner.Name}`");
            LabPlace.ControlPlane(plan, visitor).Become(reader.Command(parsed.GetValue(words)!));
            return 1;
        });
        return command;
    }
}
