using Mesh.KubeApi;
using Mesh.Kubernetes.Api;
using Xunit;

namespace Mesh.Kubernetes.Tests.Api;

public sealed class LeaseElectionTests
{
    private static readonly LeaseElectionOptions Quick = new()
    {
        Duration = TimeSpan.FromSeconds(2),
        RenewDeadline = TimeSpan.FromSeconds(1),
        Retry = TimeSpan.FromMilliseconds(100),
    };

    /// <summary>A candidate, and whether it does the work now.</summary>
    private sealed class Candidate : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly KubeClient _client;
        private readonly Task _running;
        private volatile bool _leads;

        public Candidate(Cluster cluster, string name)
        {
            _client = cluster.NewClient(TimeSpan.FromSeconds(1));
            Election = new LeaseElection(_client, "kube-system", "mesh-operator", name, Quick);
            _running = Election.RunAsync(LeadAsync, _stop.Token);
        }

        public LeaseElection Election { get; }

        public bool Leads => _leads;

        public int Terms { get; private set; }

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            await _running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            _client.Dispose();
            _stop.Dispose();
        }

        private async Task LeadAsync(CancellationToken cancellation)
        {
            Terms++;
            _leads = true;
            try
            {
                await Task.Delay(Timeout.Infinite, cancellation);
            }
            finally
            {
                _leads = false;
            }
        }
    }

    [Fact]
    public async Task One_leads_and_when_it_goes_the_other_does_at_once()
    {
        await using var cluster = await Cluster.StartAsync();
        var first = new Candidate(cluster, "first");
        await Cluster.Until(() => first.Leads, () => "first does not lead");
        await using var second = new Candidate(cluster, "second");
        await Cluster.Until(() => second.Election.Holder == "first", () => "second does not see first");
        Assert.False(second.Leads);
        var begun = TimeProvider.System.GetTimestamp();
        await first.DisposeAsync();
        await Cluster.Until(() => second.Leads, () => "second does not lead");
        Assert.InRange(TimeProvider.System.GetElapsedTime(begun), TimeSpan.Zero, Quick.Duration);
    }

    [Fact]
    public async Task A_leader_that_cannot_renew_stops_before_another_begins()
    {
        await using var cluster = await Cluster.StartAsync();
        await using var first = new Candidate(cluster, "first");
        await Cluster.Until(() => first.Leads, () => "first does not lead");
        await using var second = new Candidate(cluster, "second");
        await Cluster.Until(() => second.Election.Holder == "first", () => "second does not see first");
        var both = 0;
        using (cluster.Server.Faults.Add(new Fault(FaultKind.InternalError) { Verb = "update", Resource = "leases" }))
            await Cluster.Until(() => !first.Leads, () => "first still leads");
        await Cluster.Until(
            () =>
            {
                both += first.Leads && second.Leads ? 1 : 0;
                return first.Leads || second.Leads;
            },
            () => $"nobody leads: {first.Election.Error} {second.Election.Error}");
        Assert.Equal(0, both);
    }
}
