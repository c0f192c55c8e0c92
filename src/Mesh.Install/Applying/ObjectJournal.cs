using System.Text.Json.Nodes;
using Mesh.Install.Objects;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Applying;

/// <summary>
/// Applies objects and remembers what it did to the cluster, so that exactly this can be undone: what it created is deleted (that very
/// object, by its UID), what it changed is put back as it was found. What it did not touch it does not know.
/// </summary>
public sealed class ObjectJournal(KubeClient client, string releaseName, string releaseNamespace, Action<string> tell)
{
    /// <summary>Owner of the fields that we apply.</summary>
    public const string FieldManager = "mesh-install";

    private const string ManagedBy = "app.kubernetes.io/managed-by";
    private const string ReleaseName = "meta.helm.sh/release-name";
    private const string ReleaseNamespace = "meta.helm.sh/release-namespace";

    private readonly Stack<Step> _done = [];

    /// <summary>Whether an object that is there belongs to this release.</summary>
    public bool IsOurs(JsonObject found) => (string?)found["metadata"]?["annotations"]?[ReleaseName] == releaseName
        && (string?)found["metadata"]?["annotations"]?[ReleaseNamespace] == releaseNamespace;

    /// <summary>Creates the object, or changes it to what is wanted.</summary>
    /// <exception cref="KubeApiException">The server refused.</exception>
    public async Task ApplyAsync(KubeObject wanted, CancellationToken cancellation)
    {
        var marked = Marked(wanted);
        var resource = wanted.Resource.Raw;
        var before = await client.FindAsync(resource, wanted.Namespace, wanted.Name, cancellation);
        JsonObject after;
        try
        {
            after = await client.ApplyAsync(resource, wanted.Namespace, wanted.Name, marked, FieldManager, cancellation);
        }
        catch (KubeApiException e) when (before is null && e.IsTransient)
        {
            // Nobody knows whether it arrived: if it did, it is ours to remove.
            _done.Push(new Step(wanted, null, null));
            throw;
        }
        if (before is null)
            _done.Push(new Step(wanted, null, Uid(after)));
        else if ((string?)before["metadata"]!["resourceVersion"] != (string?)after["metadata"]!["resourceVersion"])
            _done.Push(new Step(wanted, before, Uid(after)));
        else
            return;
        tell($"{(before is null ? "created" : "changed")} {wanted}");
    }

    /// <summary>Creates a namespace if there is none of that name.</summary>
    public async Task EnsureNamespaceAsync(string name, CancellationToken cancellation)
    {
        if (await client.FindAsync(KubeResources.Namespaces.Raw, null, name, cancellation) is not null)
            return;
        var body = new JsonObject { ["apiVersion"] = "v1", ["kind"] = "Namespace", ["metadata"] = new JsonObject { ["name"] = name } };
        await ApplyAsync(KubeObject.From(body, "namespace"), cancellation);
    }

    /// <summary>Deletes an object of this release; one of others is left.</summary>
    public async Task DeleteAsync(KubeObject unwanted, CancellationToken cancellation)
    {
        var found = await client.FindAsync(unwanted.Resource.Raw, unwanted.Namespace, unwanted.Name, cancellation);
        if (found is null || !IsOurs(found))
            return;
        _done.Push(new Step(unwanted, found, null));
        await client.DeleteAsync(unwanted.Resource, unwanted.Namespace, unwanted.Name, cancellation, new KubeDelete { Uid = Uid(found) });
        tell($"deleted {unwanted}");
    }

    /// <summary>Undoes all of it, the last first. It goes on when one thing cannot be undone.</summary>
    /// <returns>What could not be undone, and why.</returns>
    public async Task<IReadOnlyList<string>> RollBackAsync(CancellationToken cancellation)
    {
        var left = new List<string>();
        while (_done.TryPop(out var step))
        {
            try
            {
                tell(await UndoAsync(step, cancellation));
            }
            catch (KubeApiException e)
            {
                left.Add($"{step.Object}: {e.Message}");
            }
        }
        return left;
    }

    private async Task<string> UndoAsync(Step step, CancellationToken cancellation)
    {
        var (wanted, before, uid) = step;
        var resource = wanted.Resource.Raw;
        if (before is null)
        {
            await client.DeleteAsync(wanted.Resource, wanted.Namespace, wanted.Name, cancellation,
                new KubeDelete { Uid = uid, Propagation = "Background" });
            return $"deleted {wanted} again";
        }
        var body = (JsonObject)before.DeepClone();
        var metadata = (JsonObject)body["metadata"]!;
        foreach (var ofServer in new[] { "resourceVersion", "managedFields", "generation", "creationTimestamp" })
            metadata.Remove(ofServer);
        body.Remove("status");
        if (await client.FindAsync(resource, wanted.Namespace, wanted.Name, cancellation) is null)
        {
            metadata.Remove("uid");
            await client.CreateAsync(resource, wanted.Namespace, body, cancellation);
        }
        else
        {
            await client.UpdateAsync(resource, wanted.Namespace, wanted.Name, body, cancellation);
        }
        return $"put {wanted} back as it was";
    }

    /// <summary>With the marks by which Helm knows what belongs to a release.</summary>
    private JsonObject Marked(KubeObject wanted)
    {
        var body = (JsonObject)wanted.Body.DeepClone();
        var metadata = (JsonObject)body["metadata"]!;
        Member(metadata, "labels")[ManagedBy] = "Helm";
        var annotations = Member(metadata, "annotations");
        annotations[ReleaseName] = releaseName;
        annotations[ReleaseNamespace] = releaseNamespace;
        return body;
    }

    private static JsonObject Member(JsonObject parent, string name)
    {
        if (parent[name] is JsonObject there)
            return there;
        var made = new JsonObject();
        parent[name] = made;
        return made;
    }

    private static string? Uid(JsonObject found) => (string?)found["metadata"]?["uid"];

    /// <param name="Before">As it was found; null when there was none.</param>
    /// <param name="Uid">Of what was created; null when that is not known.</param>
    private sealed record Step(KubeObject Object, JsonObject? Before, string? Uid);
}
