using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.Kubernetes;

/// <summary>
/// What a Service's annotations say about the mesh. The producer reads Global and Shared, the consumer Global and Affinity; both
/// from here, so that they never disagree. The canonical name (service.cilium.io/…) wins over its alias (io.cilium/…) whenever it
/// is present. Values compare without regard to case; anything but "true" is false, and of a Service any word but these two has been
/// refused by the object's rules, so that a typing error takes nothing out of the mesh.
/// </summary>
/// <param name="Global">The service exists in several clusters: needed to export it and to import it.</param>
/// <param name="Shared">Our backends are published. True for a global service unless denied; false when it is not global.</param>
/// <param name="Affinity">Which backends this cluster's clients prefer. An unknown word counts as none.</param>
public readonly record struct ServiceAnnotations(bool Global, bool Shared, ServiceAffinity Affinity)
{
    public const string GlobalName = "service.cilium.io/global";
    public const string GlobalAlias = "io.cilium/global-service";
    public const string SharedName = "service.cilium.io/shared";
    public const string SharedAlias = "io.cilium/shared-service";
    public const string AffinityName = "service.cilium.io/affinity";
    public const string AffinityAlias = "io.cilium/service-affinity";

    /// <summary>snat or dsr: how packets from outside get to their backend and back.</summary>
    public const string ForwardingName = "service.cilium.io/forwarding-mode";

    /// <summary>maglev or random: how a backend is chosen.</summary>
    public const string AlgorithmName = "service.cilium.io/lb-algorithm";

    /// <summary>On a Namespace: whether anything of it leaves the cluster.</summary>
    public const string NamespaceGlobalName = "clustermesh.cilium.io/global";

    public static ServiceAnnotations Read(ObjectMeta metadata)
    {
        var global = IsTrue(Find(metadata, GlobalName, GlobalAlias));
        var shared = Find(metadata, SharedName, SharedAlias);
        var affinity = Find(metadata, AffinityName, AffinityAlias);
        return new ServiceAnnotations(
            global,
            global && (shared is null || IsTrue(shared)),
            Is(affinity, "local") ? ServiceAffinity.Local : Is(affinity, "remote") ? ServiceAffinity.Remote : ServiceAffinity.None);
    }

    /// <summary>Whether a namespace takes part in the mesh.</summary>
    /// <param name="namespaceObject">Null when no such object is known: the default holds.</param>
    /// <param name="byDefault">What holds for a namespace that does not say (flag clustermesh-default-global-namespace).</param>
    public static bool IsGlobalNamespace(Namespace? namespaceObject, bool byDefault)
    {
        var value = namespaceObject is null ? null : Find(namespaceObject.Metadata, NamespaceGlobalName, alias: null);
        return value is null ? byDefault : IsTrue(value);
    }

    /// <summary>True when the annotation has this value, without regard to case.</summary>
    public static bool Says(ObjectMeta metadata, string name, string value) => Is(Find(metadata, name, alias: null), value);

    private static string? Find(ObjectMeta metadata, string name, string? alias)
    {
        if (metadata.Annotations is not { } annotations)
            return null;
        if (annotations.TryGetValue(name, out var value))
            return value;
        return alias is not null && annotations.TryGetValue(alias, out value) ? value : null;
    }

    private static bool IsTrue(string? value) => Is(value, "true");

    private static bool Is(string? value, string word) => string.Equals(value, word, StringComparison.OrdinalIgnoreCase);
}
