using System.Text;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>Commits of many at once are made together, and whoever comes alone waits for nobody.</summary>
public sealed class GroupCommitTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-group-").FullName;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    private MirrorView Open(TimeProvider? time = null, TimeSpan? gathering = null) => MirrorView.Open(
        new MirrorOptions { StateDir = _directory, Gathering = gathering ?? TimeSpan.FromMilliseconds(1) }, time ?? TimeProvider.System, _ => { });

    private static Task<MirrorCommit> CommitAsync(MirrorView mirror, string key, string value, CancellationToken? cancellation = null) =>
        mirror.CommitAsync([new MirrorChange(key, Encoding.UTF8.GetBytes(value))], cancellation ?? Cancellation).AsTask();

    private static string Content(MirrorView mirror) =>
        string.Join(' ', mirror.KeysBelow("").Select(key => $"{key}={Encoding.UTF8.GetString(mirror.Get(key)!.Value.Span)}"));

    /// <summary>Peers that commit now and then, each when it has something. The control: without gathering, nearly each is by itself.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(0)]
    public async Task Commits_of_many_are_few_and_each_is_a_revision(int milliseconds)
    {
        const int peers = 20;
        const int each = 25;
        MirrorStatus status;
        await using (var mirror = Open(gathering: TimeSpan.FromMilliseconds(milliseconds)))
        {
            var commits = await Task.WhenAll(Enumerable.Range(0, peers).Select(async peer =>
            {
                var revisions = new List<MirrorCommit>();
                for (var i = 0; i < each; i++)
                {
                    revisions.Add(await CommitAsync(mirror, $"{peer}", $"{i}"));
                    await Task.Delay(TimeSpan.FromMilliseconds(5 + (peer % 7)), Cancellation);
                }
                return revisions;
            }));
            status = mirror.Status;
            Assert.Equal(Enumerable.Range(2, peers * each), commits.SelectMany(one => one).Select(one => (int)one.Revision).Order());
            Assert.All(commits, one => Assert.Equal(one.Select(commit => commit.Revision).Order(), one.Select(commit => commit.Revision)));
            Assert.Equal((peers, 1), (commits.Sum(one => one.Sum(commit => commit.Keys)), commits[0][1].Changed));
            Assert.Equal((peers * each) + 1, status.Revision);
        }
        TestContext.Current.SendDiagnosticMessage($"gathering {milliseconds} ms: {status.Commits} commits of {peers * each}");
        if (milliseconds > 0)
            Assert.InRange(status.Commits, 1, peers * each * 3 / 5);
        // What was committed together is read back as one by one.
        await using var again = Open();
        Assert.Equal((status.ClusterId, status.Revision, 1L), (again.Status.ClusterId, again.Status.Revision, again.Status.OldestRevision));
        Assert.Equal(string.Join(' ', Enumerable.Range(0, peers).Select(peer => $"{peer}").Order(StringComparer.Ordinal)
            .Select(peer => $"{peer}={each - 1}")), Content(again));
    }

    [Fact]
    public async Task Only_what_comes_a_moment_after_several_others_waits_and_takes_along_who_comes_meanwhile()
    {
        var time = new FakeTimeProvider();
        await using var mirror = Open(time);
        // As many as one change of a peer makes, and one before them.
        for (var i = 0; i < 3; i++)
            Assert.True(CommitAsync(mirror, "a", $"{i}").IsCompletedSuccessfully);
        var fourth = CommitAsync(mirror, "a", "3");
        var fifth = CommitAsync(mirror, "b", "1");
        using var impatience = new CancellationTokenSource();
        var impatient = CommitAsync(mirror, "c", "1", impatience.Token);
        var sixth = CommitAsync(mirror, "d", "1");
        Assert.False(fourth.IsCompleted || fifth.IsCompleted || impatient.IsCompleted || sixth.IsCompleted);
        await impatience.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => impatient);
        time.Advance(TimeSpan.FromMilliseconds(1));
        Assert.Equal([5L, 6L, 7L], (await Task.WhenAll(fourth, fifth, sixth)).Select(commit => commit.Revision));
        Assert.Equal((4L, "a=3 b=1 d=1"), (mirror.Status.Commits, Content(mirror)));
        // The control: after a quiet moment nobody waits.
        time.Advance(TimeSpan.FromMilliseconds(10));
        Assert.True(CommitAsync(mirror, "a", "4").IsCompletedSuccessfully);
    }

    [Fact]
    public async Task A_large_commit_is_work_enough_and_does_not_wait()
    {
        var time = new FakeTimeProvider();
        await using var mirror = Open(time);
        for (var i = 0; i < 20; i++)
        {
            var changes = Enumerable.Range(0, 100).Select(key => new MirrorChange($"{key}", Encoding.UTF8.GetBytes($"{i}"))).ToList();
            Assert.True(mirror.CommitAsync(changes, Cancellation).AsTask().IsCompletedSuccessfully);
        }
        Assert.Equal(21, mirror.Status.Revision);
    }
}
