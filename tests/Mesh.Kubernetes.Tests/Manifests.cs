using Mesh.Kubernetes.Objects;
using Xunit;

namespace Mesh.Kubernetes.Tests;

/// <summary>A manifests directory of its own, the source that follows it, and what a reader of the source has seen so far.</summary>
internal sealed class Manifests : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private static readonly HashSet<ObjectKind> AllKinds = [.. Enum.GetValues<ObjectKind>()];

    private readonly Dictionary<ObjectKey, KubernetesObject> _objects = [];
    private readonly List<string> _history = [];
    private readonly CancellationTokenSource _stop = new();
    private readonly Lock _gate = new();
    private readonly string _home = Directory.CreateTempSubdirectory("mesh-manifests-").FullName;
    private readonly Task _reading;

    public Manifests(bool create = true, Action<string>? prepare = null)
    {
        Path = System.IO.Path.Combine(_home, "manifests");
        if (create)
            Directory.CreateDirectory(Path);
        prepare?.Invoke(Path);
        Source = new ManifestDirectory(Path);
        _reading = ReadAsync();
    }

    public string Path { get; }

    public ManifestDirectory Source { get; }

    /// <summary>Present objects as "Kind namespace/name", in order.</summary>
    public string Objects
    {
        get
        {
            lock (_gate)
                return string.Join(", ", _objects.Keys.Select(key => key.ToString()).Order(StringComparer.Ordinal));
        }
    }

    /// <summary>Events in order, such as "+Service default/web" and "synced".</summary>
    public string History
    {
        get
        {
            lock (_gate)
                return string.Join(' ', _history);
        }
    }

    public string Problems => string.Join('\n', Source.Problems.Select(problem => $"{problem.Where}: {problem.Message}"));

    public string At(string name) => System.IO.Path.Combine(Path, name);

    /// <summary>Writes the way a careful tool does: beside, then moved into place.</summary>
    public void Write(string name, string text)
    {
        var temporary = At($".{System.IO.Path.GetFileName(name)}.tmp");
        File.WriteAllText(temporary, text);
        File.Move(temporary, At(name), overwrite: true);
    }

    public Service? Service(string name)
    {
        lock (_gate)
            return _objects.GetValueOrDefault(new ObjectKey(ObjectKind.Service, "default", name)) as Service;
    }

    public async Task Until(Func<bool> condition, string what)
    {
        using var patience = new CancellationTokenSource(Patience);
        while (!condition())
        {
            if (patience.IsCancellationRequested)
                Assert.Fail($"waited for: {what}\nobjects: {Objects}\nhistory: {History}\nproblems: {Problems}");
            await Task.Delay(5, CancellationToken.None);
        }
    }

    public Task UntilSynced() => Until(() => History.EndsWith("synced", StringComparison.Ordinal), "the initial sync");

    public Task UntilObjects(string expected) => Until(() => Objects == expected, $"objects {expected}");

    public Task UntilProblem(string part) => Until(() => Problems.Contains(part, StringComparison.Ordinal), $"a problem with '{part}'");

    public Task UntilNoProblem() => Until(() => Problems.Length == 0, "no problem");

    /// <summary>Proves that everything written before has been looked at: a service written now has arrived.</summary>
    public async Task UntilLookedAt()
    {
        var name = $"marker-{Guid.NewGuid():N}";
        Write($"{name}.yaml", Yaml.Service(name));
        await Until(() => Service(name) is not null, "the marker service");
        File.Delete(At($"{name}.yaml"));
        await Until(() => Service(name) is null, "the marker service to go");
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => _reading);
        await Source.DisposeAsync();
        _stop.Dispose();
        Directory.Delete(_home, recursive: true);
    }

    private async Task ReadAsync()
    {
        await foreach (var batch in Source.WatchAsync(AllKinds, _stop.Token))
        {
            lock (_gate)
            {
                foreach (var change in batch)
                    Take(change);
            }
        }
    }

    private void Take(ObjectEvent change)
    {
        switch (change.Type)
        {
            case ObjectEventType.Synced:
                _history.Add("synced");
                break;
            case ObjectEventType.Upsert:
                _objects[change.Object!.Key] = change.Object;
                _history.Add($"+{change.Object.Key}");
                break;
            default:
                Assert.True(_objects.Remove(change.Object!.Key), $"deleted {change.Object.Key}, which was not there");
                _history.Add($"-{change.Object.Key}");
                break;
        }
    }
}

internal static class Yaml
{
    public static string Service(string name, string port = "80") =>
        $$"""
        apiVersion: v1
        kind: Service
        metadata: {name: {{name}}}
        spec:
          ports: [{name: http, port: {{port}}}]

        """;

    public static string Documents(params string[] documents) => string.Join("---\n", documents);
}
