using System.CommandLine;
using Mesh.Cli.Kube;
using Mesh.Cli.Text;
using Mesh.Install.Applying;

namespace Mesh.Cli.Commands.Kube;

/// <summary>`mesh clustermesh enable` and `disable`; and what `connect` and `disconnect` do when `--destination-context` names a cluster.</summary>
internal static class KubePeeringCommands
{
    public static Command BuildEnable(TextWriter output)
    {
        var flags = new PeeringFlags();
        var type = new Option<string?>("--service-type") { Description = "How other clusters reach it: NodePort, LoadBalancer or ClusterIP" };
        type.AcceptOnlyFromAmong("NodePort", "LoadBalancer", "ClusterIP");
        var relay = new Option<bool?>("--enable-kvstoremesh") { Description = "Read each peer once for all agents" };
        var command = new Command("enable", "Run the API server that other clusters read.") { type, relay };
        flags.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var cluster = flags.Cluster(parsed);
            await flags.Peering(parsed, output).EnableAsync(cluster, parsed.GetValue(type), parsed.GetValue(relay), cancel);
            return 0;
        });
        return command;
    }

    public static Command BuildDisable(TextWriter output)
    {
        var flags = new PeeringFlags();
        var command = new Command("disable", "Take the API server and all peers away.");
        flags.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var cluster = flags.Cluster(parsed);
            await flags.Peering(parsed, output).DisableAsync(cluster, cancel);
            return 0;
        });
        return command;
    }
}

/// <summary>The flags of commands that change peers of a cluster on Kubernetes.</summary>
internal sealed class PeeringFlags
{
    private readonly KubeTarget _target = new();
    private readonly Option<string?> _context = new("--context") { Description = "Context of the kubeconfig; the current one by default" };

    private readonly Option<string> _release = new("--helm-release-name") { Description = "Name of the release", DefaultValueFactory = _ => "cilium" };

    private readonly Option<string> _wait = new("--wait-duration") { Description = "How long everything may take", DefaultValueFactory = _ => "5m" };

    public Option<string?> Destination { get; } = new("--destination-context")
    {
        Description = "Context of the other cluster, on Kubernetes: both sides are changed",
    };

    public Option<string[]> SourceEndpoints { get; } = new("--source-endpoint")
    {
        Description = "IP:PORT where the other cluster reaches this one; may be repeated",
        DefaultValueFactory = _ => [],
    };

    public Option<string[]> DestinationEndpoints { get; } = new("--destination-endpoint")
    {
        Description = "IP:PORT where this cluster reaches the other; may be repeated",
        DefaultValueFactory = _ => [],
    };

    /// <summary>For a command with no other meaning of --context and --wait-duration.</summary>
    public void AddTo(Command command)
    {
        _target.AddTo(command);
        foreach (var option in new Option[] { _context, _release, _wait })
            command.Add(option);
    }

    /// <summary>For `connect` and `disconnect`, which have these two already.</summary>
    public void AddDestination(Command command, bool endpoints)
    {
        _target.AddTo(command);
        command.Add(_release);
        command.Add(Destination);
        if (!endpoints)
            return;
        command.Add(SourceEndpoints);
        command.Add(DestinationEndpoints);
    }

    public KubeCluster Cluster(ParseResult parsed) => Cluster(parsed, parsed.GetValue(_context));

    public KubeCluster Cluster(ParseResult parsed, string? context) =>
        new(new Kubernetes.Api.KubeClient(Kubernetes.Api.KubeConfiguration.Find(parsed.GetValue(_target.Kubeconfig), context)),
            parsed.GetValue(_target.Namespace)!);

    /// <summary>Null when the context is of a lab, or of machines without Kubernetes.</summary>
    public KubeCluster? Find(ParseResult parsed, string? context) => _target.Find(parsed, context);

    public KubePeering Peering(ParseResult parsed, TextWriter output) => Peering(parsed, Patience(parsed.GetValue(_wait)!), output);

    public KubePeering Peering(ParseResult parsed, TimeSpan patience, TextWriter output) => new(
        InstallTarget.Named(parsed.GetValue(_target.Namespace)!, parsed.GetValue(_release)!), new WaitOptions { Total = patience }, output);

    private static TimeSpan Patience(string text) => GoText.ParseDuration(text)
        ?? throw new CliException($"--wait-duration {text}: must be a duration such as 90s or 5m");
}
