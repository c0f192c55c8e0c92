using System.CommandLine;
using Mesh.Kubernetes.Api;
using Mesh.Lab;

namespace Mesh.Cli.Kube;

/// <summary>
/// Which Kubernetes cluster a command is for, and whether it is for one at all. `--context` names a lab's cluster first, because those are there
/// only while a lab runs; then a context of the kubeconfig. Without it: the lab, the agent of this machine, else the kubeconfig's current context.
/// </summary>
internal sealed class KubeTarget
{
    public Option<string?> Kubeconfig { get; } = new("--kubeconfig") { Description = "File with the cluster's address; as kubectl finds it by default" };

    public Option<string> Namespace { get; } = new("--namespace", "-n")
    {
        Description = "Namespace of the mesh in a Kubernetes cluster",
        DefaultValueFactory = _ => Environment.GetEnvironmentVariable("CILIUM_NAMESPACE") is { Length: > 0 } ns ? ns : "kube-system",
    };

    public void AddTo(Command command)
    {
        command.Add(Kubeconfig);
        command.Add(Namespace);
    }

    /// <summary>Null when the command is for a lab or for an agent of this machine.</summary>
    /// <exception cref="KubeConfigurationException">A kubeconfig is meant, and is none or points nowhere.</exception>
    public KubeCluster? Find(ParseResult parsed, string? context)
    {
        var file = parsed.GetValue(Kubeconfig);
        context ??= file is null ? Environment.GetEnvironmentVariable(Contexts.Context.Variable) : null;
        if (file is null)
        {
            if (context is null && (IsAgentHere() || LabStore.Names().Any()))
                return null;
            if (context is not null && IsOfLab(context))
                return null;
            // Neither lab nor kubeconfig: the older explanation of what contexts there are is the better one.
            if (!KubeConfiguration.IsInCluster && KubeConfiguration.Contexts().Count == 0)
                return null;
        }
        var client = new KubeClient(KubeConfiguration.Find(file, context), new KubeClientOptions { UserAgent = "mesh" });
        return new KubeCluster(client, parsed.GetValue(Namespace)!);
    }

    private static bool IsAgentHere() => Environment.GetEnvironmentVariable("CILIUM_SOCK") is { Length: > 0 }
        || File.Exists(AgentApi.AgentClient.DefaultSocketPath);

    private static bool IsOfLab(string context)
    {
        var words = context.Split('/');
        return LabStore.Names().Any(name => name == words[0] || LabStore.Get(name).Clusters.Any(cluster => cluster.Name == words[0]));
    }
}

/// <summary>A Kubernetes cluster with the namespace that the mesh is in.</summary>
internal sealed record KubeCluster(KubeClient Client, string Namespace) : IDisposable
{
    /// <summary>For messages: the context's name, else the server's address.</summary>
    public string Name => Client.Configuration.Context is { Length: > 0 } name ? name : $"{Client.Configuration.Server}";

    public void Dispose() => Client.Dispose();
}
