using System.Text.Json;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.LoadBalancing.Decisions;
using Mesh.Model;

namespace Mesh.Agent.Decisions;

/// <summary>
/// Why each service is served as it is, on disk: STATE_DIR/decisions/NAMESPACE_NAME.json, one small file a service, so that
/// `mesh explain` can tell it with the agent dead. Written behind the kernel and never in its way: a few hundred services a second
/// at the most, each only when its story has changed, aside first and then moved into place. What cannot be written is tried again.
/// </summary>
internal sealed class DecisionFiles(LoadBalancingWriter services, string stateDirectory, TimeProvider time, Action<string> log)
{
    /// <summary>Services beyond this have no file.</summary>
    internal const int FilesMax = 16384;

    private const int PerTurn = 256;

    private static readonly TimeSpan Turn = TimeSpan.FromMilliseconds(500);

    private readonly string _directory = DecisionJson.DirectoryOf(stateDirectory);

    /// <summary>What stands in each file, as a hash.</summary>
    private readonly Dictionary<string, ulong> _written = new(StringComparer.Ordinal);

    private bool _failing;

    public async Task RunAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(Turn, time);
        var begun = false;
        do
        {
            try
            {
                if (!begun)
                    ForgetOthers();
                begun = true;
                while (WriteTurn() == PerTurn)
                    await timer.WaitForNextTickAsync(cancellation);
                _failing = false;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                if (!_failing)
                    log($"decisions cannot be written to {_directory} ({e.Message}): `mesh explain` tells old ones until they can");
                _failing = true;
            }
        }
        while (await timer.WaitForNextTickAsync(cancellation));
    }

    /// <returns>Services that were looked at.</returns>
    internal int WriteTurn()
    {
        var names = services.TakeUntold(PerTurn);
        for (var i = 0; i < names.Count; i++)
        {
            try
            {
                Write(names[i]);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                services.PutBack(names.Skip(i));
                throw;
            }
        }
        return names.Count;
    }

    private void Write(ServiceName name)
    {
        var file = DecisionJson.FileOf(name);
        if (file.Contains('/', StringComparison.Ordinal))
            return;
        var path = Path.Combine(_directory, file);
        if (services.Decision(name) is not { } decision)
        {
            _written.Remove(file);
            File.Delete(path);
            return;
        }
        var text = JsonSerializer.SerializeToUtf8Bytes(decision, DecisionJson.Default.ServiceDecision);
        var hash = Hash(text);
        if (_written.TryGetValue(file, out var before) ? before == hash : _written.Count >= FilesMax)
            return;
        var aside = path + ".new";
        File.WriteAllBytes(aside, text);
        File.Move(aside, path, overwrite: true);
        _written[file] = hash;
    }

    /// <summary>Files of services that went while no agent ran; the others are kept until they are told anew.</summary>
    private void ForgetOthers()
    {
        Directory.CreateDirectory(_directory);
        foreach (var path in Directory.EnumerateFiles(_directory))
        {
            var parts = Path.GetFileNameWithoutExtension(path).Split('_');
            if (parts.Length != 2 || !path.EndsWith(".json", StringComparison.Ordinal) || services.Decision(new ServiceName(parts[0], parts[1])) is null)
                File.Delete(path);
        }
    }

    private static ulong Hash(ReadOnlySpan<byte> text)
    {
        var hash = 14695981039346656037ul;
        foreach (var one in text)
            hash = (hash ^ one) * 1099511628211ul;
        return hash;
    }
}
