using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Mesh.Kubernetes.Manifests;

namespace Mesh.Kubernetes.Api;

public enum CrdOutcome
{
    Created,
    Upgraded,

    /// <summary>The server has this version.</summary>
    UpToDate,

    /// <summary>The server has a newer one, or one of unknown origin: it stays as it is.</summary>
    Kept,
}

/// <param name="Name">Such as "ciliumnodes.cilium.io".</param>
/// <param name="Note">What to tell a person; null when nothing is to be told.</param>
public sealed record CrdResult(string Name, CrdOutcome Outcome, string? Note);

/// <summary>
/// The definitions of the custom resources that the mesh uses (deploy/kubernetes/crds, carried in this program), brought into a cluster.
/// A definition is replaced by a newer version of itself alone: what another program of a later version has installed stays, and so does
/// one without a version, whose origin nobody knows.
/// </summary>
public static class CrdInstaller
{
    /// <summary>Label with the schema's version, the same name that Cilium's own definitions carry.</summary>
    public const string VersionLabel = "io.cilium.k8s.crd.schema.version";

    private const int ConflictTries = 10;

    private static readonly TimeSpan EstablishedPoll = TimeSpan.FromMilliseconds(50);

    /// <summary>The definitions, each as the manifest it is.</summary>
    public static IReadOnlyList<JsonObject> Definitions => [.. Names("crds/").Select(Read)];

    /// <summary>ServiceExport and ServiceImport, for clusters with MCS-API.</summary>
    public static IReadOnlyList<JsonObject> MulticlusterDefinitions => [.. Names("mcs/").Select(Read)];

    /// <summary>Installs what is missing and upgrades what is older; returns when the server serves all of them.</summary>
    /// <param name="definitions">Null for ours.</param>
    /// <exception cref="KubeApiException">The server is away, or does not let us.</exception>
    public static async Task<IReadOnlyList<CrdResult>> InstallAsync(KubeClient client, TimeProvider time, CancellationToken cancellation,
        IReadOnlyList<JsonObject>? definitions = null)
    {
        var results = new List<CrdResult>();
        foreach (var definition in definitions ?? Definitions)
            results.Add(await InstallOneAsync(client, definition, cancellation).ConfigureAwait(false));
        foreach (var result in results)
            await EstablishedAsync(client, result.Name, time, cancellation).ConfigureAwait(false);
        return results;
    }

    private static async Task<CrdResult> InstallOneAsync(KubeClient client, JsonObject definition, CancellationToken cancellation)
    {
        var resource = KubeResources.CustomResourceDefinitions.Raw;
        var name = definition["metadata"]!["name"]!.GetValue<string>();
        var ours = VersionOf(definition);
        for (var tries = 1; ; tries++)
        {
            try
            {
                if (await client.FindAsync(resource, null, name, cancellation).ConfigureAwait(false) is not { } present)
                {
                    await client.CreateAsync(resource, null, definition, cancellation).ConfigureAwait(false);
                    return new CrdResult(name, CrdOutcome.Created, null);
                }
                var theirs = VersionOf(present);
                if (theirs is null || ours is null)
                    return new CrdResult(name, CrdOutcome.Kept,
                        $"{name} has no label {VersionLabel}: it was installed by somebody else and stays; to have ours, remove it first");
                if (theirs > ours)
                    return new CrdResult(name, CrdOutcome.Kept,
                        $"{name} is of the newer version {theirs} and stays; ours is {ours}: fields that only the newer one knows are not read");
                if (theirs == ours)
                    return new CrdResult(name, CrdOutcome.UpToDate, null);
                present["metadata"]!["labels"]!.AsObject()[VersionLabel] = ours.ToString();
                present["spec"] = definition["spec"]!.DeepClone();
                await client.UpdateAsync(resource, null, name, present, cancellation).ConfigureAwait(false);
                return new CrdResult(name, CrdOutcome.Upgraded, $"{name}: upgraded from {theirs} to {ours}");
            }
            catch (KubeApiException e) when (e.Fault is KubeFault.Conflict or KubeFault.AlreadyExists && tries < ConflictTries)
            {
                // Another replica was quicker: look again.
            }
        }
    }

    private static async Task EstablishedAsync(KubeClient client, string name, TimeProvider time, CancellationToken cancellation)
    {
        while (true)
        {
            var present = await client.FindAsync(KubeResources.CustomResourceDefinitions.Raw, null, name, cancellation).ConfigureAwait(false);
            if (present?["status"]?["conditions"] is JsonArray conditions && conditions.Any(condition =>
                condition?["type"]?.GetValue<string>() == "Established" && condition["status"]?.GetValue<string>() == "True"))
                return;
            await Task.Delay(EstablishedPoll, time, cancellation).ConfigureAwait(false);
        }
    }

    private static Version? VersionOf(JsonObject definition) =>
        definition["metadata"]?["labels"]?[VersionLabel] is JsonValue value && Version.TryParse(value.GetValue<string>(), out var version)
            ? version
            : null;

    private static IEnumerable<string> Names(string directory) =>
        typeof(CrdInstaller).Assembly.GetManifestResourceNames().Where(name => name.StartsWith(directory, StringComparison.Ordinal)).Order();

    private static JsonObject Read(string name)
    {
        using var reader = new StreamReader(typeof(CrdInstaller).Assembly.GetManifestResourceStream(name)!, Encoding.UTF8);
        return JsonSerializer.Deserialize(YamlToJson.Convert(reader.ReadToEnd())!.Utf8.Span, KubeJson.Default.JsonObject)!;
    }
}
