using Mesh.Joining.Files;

namespace Mesh.Joining;

/// <summary>
/// Leaves a peer, without needing anything of it: its peer files go first, so that its entries leave the maps, then its user, so that it
/// reads us no more. Journalled like a join; run again it does what is left, and nothing when nothing is.
/// </summary>
public static class Disconnection
{
    /// <returns>False when there was nothing of that peer.</returns>
    public static bool Run(ClusterDescription own, string peer, JoinEnvironment environment)
    {
        if (Model.ClusterName.Validate(peer) is { } fault)
            throw new JoinException("cluster-name", fault);
        if (peer == own.Name)
            throw new JoinException("cluster-name", $"{peer} is this cluster itself: name a peer");
        using var alone = DirectoryLock.Take(own.JoinDirectory, $"connect-{peer}.lock");
        using var held = DirectoryLock.Take(own.JoinDirectory);
        var journal = Journal.Load(own.JoinDirectory, peer);
        if (journal is { Operation: Journal.Disconnect, Phase: JournalPhase.Planned })
        {
            Apply(own, journal, environment);
            return true;
        }
        // A join that was interrupted left files that look like those of a peer, or none yet.
        var changes = PeerFiles.Disconnected(own, peer);
        if (changes.Count == 0)
        {
            Journal.Remove(own.JoinDirectory, peer);
            Journal.Remove(own.JoinDirectory, peer, accepted: true);
            return false;
        }
        journal = new Journal
        {
            Operation = Journal.Disconnect,
            Peer = peer,
            Phase = JournalPhase.Planned,
            Began = environment.Time.GetUtcNow(),
            Changes = changes,
        };
        environment.Step("journal disconnect");
        journal.Save(own.JoinDirectory);
        Apply(own, journal, environment);
        return true;
    }

    private static void Apply(ClusterDescription own, Journal journal, JoinEnvironment environment)
    {
        journal.Apply(ChangeStage.Peer, environment.Step);
        journal.Apply(ChangeStage.Grant, environment.Step);
        environment.Step("forget");
        OwnPki.Forget(own.Pki, own.UserOf(journal.Peer), environment.Time);
        environment.Step("journal removed");
        // They hold keys that have no use any more.
        Journal.Remove(own.JoinDirectory, journal.Peer, accepted: true);
        Journal.Remove(own.JoinDirectory, journal.Peer);
    }
}
