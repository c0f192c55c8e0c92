using System.Text.Json.Nodes;
using Mesh.Install.Text;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Objects;

/// <summary>One Kubernetes object as we want it, or as we found it.</summary>
public sealed class KubeObject
{
    private KubeObject(JsonObject body, KubeResource resource)
    {
        Body = body;
        Resource = resource;
    }

    public JsonObject Body { get; }

    public KubeResource Resource { get; }

    public string Kind => Resource.Kind;

    public string Name => (string)Body["metadata"]!["name"]!;

    /// <summary>Null for an object of the whole cluster.</summary>
    public string? Namespace => Resource.Namespaced ? (string?)Body["metadata"]!["namespace"] : null;

    /// <exception cref="InstallException">It is no object, or of a kind that an installation does not have.</exception>
    public static KubeObject Parse(string yaml, string source) =>
        YamlText.ParseJson(yaml, source) is JsonObject body ? From(body, source) : throw new InstallException($"{source}: a document is no object");

    /// <inheritdoc cref="Parse"/>
    public static KubeObject From(JsonObject body, string source)
    {
        var (apiVersion, kind) = ((string?)body["apiVersion"], (string?)body["kind"]);
        if (body["metadata"]?["name"] is not JsonValue)
            throw new InstallException($"{source}: a {kind ?? "document"} has no metadata.name");
        var resource = KubeKinds.Find(apiVersion ?? "", kind ?? "")
            ?? throw new InstallException($"{source}: an installation has no objects of kind {kind} in {apiVersion}");
        if (resource.Namespaced && body["metadata"]!["namespace"] is null)
            throw new InstallException($"{source}: {kind} {body["metadata"]!["name"]} says no namespace");
        return new KubeObject(body, resource);
    }

    public KubeObject Copy() => new((JsonObject)Body.DeepClone(), Resource);

    /// <summary>As people name it: "DaemonSet kube-system/cilium".</summary>
    public override string ToString() => Namespace is { } ns ? $"{Kind} {ns}/{Name}" : $"{Kind} {Name}";
}

/// <summary>The resources that an installation consists of.</summary>
internal static class KubeKinds
{
    private static readonly KubeResource[] All =
    [
        KubeResources.Namespaces, KubeResources.ServiceAccounts, KubeResources.ConfigMaps, KubeResources.Secrets, KubeResources.Services,
        KubeResources.ClusterRoles, KubeResources.ClusterRoleBindings, KubeResources.Roles, KubeResources.RoleBindings,
        KubeResources.DaemonSets, KubeResources.Deployments,
    ];

    public static KubeResource? Find(string apiVersion, string kind) =>
        All.FirstOrDefault(resource => resource.Kind == kind && resource.ApiVersion == apiVersion);
}

/// <summary>What is applied first: whatever others refer to. Deleting goes the other way.</summary>
internal static class InstallOrder
{
    private static readonly string[] Kinds =
    [
        "Namespace", "ServiceAccount", "Secret", "ConfigMap", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Service",
        "DaemonSet", "Deployment",
    ];

    public static int Of(string kind) => Array.IndexOf(Kinds, kind);
}
