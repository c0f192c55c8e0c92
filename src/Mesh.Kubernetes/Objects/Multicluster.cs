namespace Mesh.Kubernetes.Objects;

/// <summary>multicluster.x-k8s.io ServiceExport: the Service of this name is given to all clusters.</summary>
public sealed record ServiceExport : KubernetesObject
{
    public override ObjectKind Kind => ObjectKind.ServiceExport;

    public ServiceExportSpec? Spec { get; init; }

    public ServiceExportStatus? Status { get; init; }
}

public sealed record ServiceExportSpec
{
    public IReadOnlyDictionary<string, string>? ExportedLabels { get; init; }

    public IReadOnlyDictionary<string, string>? ExportedAnnotations { get; init; }
}

public sealed record ServiceExportStatus
{
    public IReadOnlyList<ObjectCondition>? Conditions { get; init; }
}

/// <summary>multicluster.x-k8s.io ServiceImport: a service that clusters export, as it is here. Made by the operator.</summary>
public sealed record ServiceImport : IKubeObject
{
    public ObjectMeta Metadata { get; init; } = new();

    public ServiceImportSpec? Spec { get; init; }

    public ServiceImportStatus? Status { get; init; }
}

public sealed record ServiceImportSpec
{
    public IReadOnlyList<ServiceImportPort>? Ports { get; init; }

    /// <summary>Of the derived Service; none for headless ones.</summary>
    public IReadOnlyList<string>? Ips { get; init; }

    public IReadOnlyList<string>? IpFamilies { get; init; }

    /// <summary>ClusterSetIP or Headless.</summary>
    public string? Type { get; init; }

    public string? SessionAffinity { get; init; }

    public SessionAffinityConfig? SessionAffinityConfig { get; init; }

    public string? InternalTrafficPolicy { get; init; }

    public string? TrafficDistribution { get; init; }
}

public sealed record ServiceImportPort
{
    public string? Name { get; init; }

    /// <summary>TCP when absent.</summary>
    public string? Protocol { get; init; }

    public string? AppProtocol { get; init; }

    public int Port { get; init; }
}

public sealed record ServiceImportStatus
{
    /// <summary>Those that export it.</summary>
    public IReadOnlyList<ServiceImportCluster>? Clusters { get; init; }

    public IReadOnlyList<ObjectCondition>? Conditions { get; init; }
}

public sealed record ServiceImportCluster
{
    public string? Cluster { get; init; }
}
