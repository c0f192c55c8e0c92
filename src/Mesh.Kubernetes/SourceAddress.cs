using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;

namespace Mesh.Kubernetes;

/// <summary>The value of --source: where a cluster's objects are.</summary>
public sealed record SourceAddress
{
    public const string Allowed = "manifests:DIRECTORY, kubernetes, or kubernetes:KUBECONFIG[#CONTEXT]";

    private const string ManifestsScheme = "manifests:";
    private const string KubernetesWord = "kubernetes";

    private SourceAddress()
    {
    }

    /// <summary>Directory of manifests, which need not exist yet; null for an API server.</summary>
    public string? Manifests { get; private init; }

    /// <summary>Null for the service account of the pod we run in, or where kubectl would look.</summary>
    public string? Kubeconfig { get; private init; }

    /// <summary>Null for the kubeconfig's current one.</summary>
    public string? Context { get; private init; }

    public static SourceAddress OfManifests(string directory) => new() { Manifests = directory };

    /// <summary>Null when the text is none of <see cref="Allowed"/>.</summary>
    public static SourceAddress? TryParse(string text)
    {
        if (text.StartsWith(ManifestsScheme, StringComparison.Ordinal))
            return text.Length == ManifestsScheme.Length ? null : OfManifests(text[ManifestsScheme.Length..]);
        if (text == KubernetesWord)
            return new SourceAddress();
        if (!text.StartsWith(KubernetesWord + ":", StringComparison.Ordinal))
            return null;
        var rest = text[(KubernetesWord.Length + 1)..];
        var hash = rest.LastIndexOf('#');
        var (file, context) = hash < 0 ? (rest, null) : (rest[..hash], rest[(hash + 1)..]);
        return file.Length == 0 || context?.Length == 0 ? null : new SourceAddress { Kubeconfig = file, Context = context };
    }

    /// <summary>Begins to follow the objects.</summary>
    /// <param name="kinds">Kinds that will be asked for; no others are fetched.</param>
    /// <param name="program">What an API server's audit log calls us.</param>
    /// <exception cref="KubeConfigurationException">The kubeconfig is none, or points nowhere.</exception>
    public IObjectSource Open(IReadOnlySet<ObjectKind> kinds, string program, TimeProvider time, Action<string> log)
    {
        if (Manifests is not null)
            return new ManifestDirectory(Manifests, time, log);
        var client = new KubeClient(Configuration(), new KubeClientOptions { UserAgent = program, Time = time });
        return new KubernetesSource(client, kinds, new ReflectorOptions { Time = time, Log = log });
    }

    /// <summary>How the API server is reached; not for manifests.</summary>
    /// <exception cref="KubeConfigurationException">The kubeconfig is none, or points nowhere.</exception>
    public KubeConfiguration Configuration() => Kubeconfig is null && KubeConfiguration.IsInCluster
        ? KubeConfiguration.InCluster()
        : KubeConfiguration.Find(Kubeconfig, Context);

    /// <summary>As one writes it.</summary>
    public override string ToString() => Manifests is not null
        ? ManifestsScheme + Manifests
        : Kubeconfig is null ? KubernetesWord : $"{KubernetesWord}:{Kubeconfig}{(Context is null ? "" : "#" + Context)}";
}
