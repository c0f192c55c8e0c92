using System.Globalization;
using System.Text;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Model;
using Mesh.StateDB;

namespace Mesh.Agent.Identities;

/// <summary>
/// The identities of other clusters on disk, STATE_DIR/identities: one a line, number, cluster and labels. The kernel keeps numbers
/// but no labels, and policies ask for labels: so a restart while a peer is out of reach still knows whom its verdicts mean. Written aside
/// and moved into place, at most once a second.
/// </summary>
internal sealed class IdentityFile(string stateDirectory, string ownCluster)
{
    private static readonly TimeSpan Rest = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Idle = TimeSpan.FromSeconds(30);

    private readonly string _path = Path.Combine(stateDirectory, "identities");

    /// <summary>What the last run knew; empty when there is no file. Lines that are none are passed over and told.</summary>
    public IReadOnlyList<IdentityRow> Read(Action<string> log)
    {
        try
        {
            if (!File.Exists(_path))
                return [];
            var rows = new List<IdentityRow>();
            var broken = 0;
            foreach (var line in File.ReadLines(_path))
                if (line.Split('\t') is [var id, { Length: > 0 } cluster, var labels] && cluster != ownCluster
                    && uint.TryParse(id, NumberStyles.None, CultureInfo.InvariantCulture, out var number))
                    rows.Add(new IdentityRow(number, new EquatableArray<string>(labels.Split(';', StringSplitOptions.RemoveEmptyEntries)), cluster));
                else
                    broken++;
            if (broken > 0)
                log($"{_path}: {broken} lines are no identities and are passed over; the file is written anew when the peers are heard");
            return rows;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            log($"{_path} cannot be read ({e.Message}): until their clusters are heard, policies know nothing of pods of other clusters");
            return [];
        }
    }

    /// <summary>Follows the table until cancelled.</summary>
    public async Task FollowAsync(ITable<uint, IdentityRow> identities, TimeProvider time, Action<string> log, CancellationToken cancellation)
    {
        using var feed = identities.Subscribe();
        var failing = false;
        var written = "";
        try
        {
            while (true)
            {
                if (!await feed.WaitAsync(Idle, cancellation) && !failing)
                    continue;
                feed.Take();
                try
                {
                    var text = TextOf(identities);
                    if (text != written)
                        Write(text);
                    (written, failing) = (text, false);
                }
                catch (Exception e) when (e is IOException or UnauthorizedAccessException)
                {
                    if (!failing)
                        log($"{_path} cannot be written ({e.Message}): a restart that cannot reach a peer will not know its pods' labels");
                    failing = true;
                }
                await Task.Delay(Rest, time, cancellation);
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The normal end.
        }
    }

    private string TextOf(ITable<uint, IdentityRow> identities)
    {
        var text = new StringBuilder();
        foreach (var (id, entry) in identities.Snapshot().OrderBy(pair => pair.Key))
            if (entry.Row.Cluster != ownCluster)
                text.Append(CultureInfo.InvariantCulture, $"{id}\t{entry.Row.Cluster}\t{string.Join(';', entry.Row.Labels)}\n");
        return text.ToString();
    }

    private void Write(string text)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(_path)!);
        File.WriteAllText(_path + ".new", text);
        File.Move(_path + ".new", _path, overwrite: true);
    }
}
