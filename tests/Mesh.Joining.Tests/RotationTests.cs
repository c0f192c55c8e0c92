using Mesh.Joining.Tokens;
using Mesh.Pki;
using Xunit;

namespace Mesh.Joining.Tests;

/// <summary>An authority is replaced in a mesh that was made by tokens: a join again is what carries it to the peers.</summary>
public sealed class RotationTests : IAsyncLifetime
{
    private TestCluster _tokyo = null!;
    private TestCluster _osaka = null!;

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public ValueTask InitializeAsync()
    {
        _tokyo = TestCluster.Create("tokyo", 1);
        _osaka = TestCluster.Create("osaka", 2);
        _tokyo.Listen();
        return ValueTask.CompletedTask;
    }

    public async ValueTask DisposeAsync()
    {
        await _tokyo.DisposeAsync();
        await _osaka.DisposeAsync();
    }

    private async Task JoinAsync()
    {
        var token = JoinToken.Parse(_tokyo.Token().ToString());
        Assert.Equal(JoinState.Connected, (await _osaka.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel)).State);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_join_again_brings_certificate_and_bundle_and_frees_the_last_step(bool issuerRotates)
    {
        await JoinAsync();
        var (rotating, peer) = issuerRotates ? (_tokyo, _osaka) : (_osaka, _tokyo);
        var (own, other) = (rotating.Description.Name, peer.Description.Name);
        var pki = PkiDirectory.Open(rotating.Description.Pki);
        var before = pki.View().Issuing.KeyId;
        Assert.Equal($"remote-{other}", Assert.Single(pki.View().Peers).CommonName);
        pki.Rotate();
        pki.Rotate();
        Assert.Contains($"remote-{other}", Assert.Throws<PkiException>(() => pki.Rotate()).Message);
        Assert.Equal(before, CertificateFacts.OfPem(peer.Read($"relay/{own}.etcd-client.crt")).IssuerKeyId);

        await JoinAsync();

        Assert.Equal(pki.View().Issuing.KeyId, CertificateFacts.OfPem(peer.Read($"relay/{own}.etcd-client.crt")).IssuerKeyId);
        Assert.Equal(2, CertificateFacts.AllOfPem(peer.Read($"relay/{own}.etcd-client-ca.crt")).Count);
        Assert.True(CertificateRequests.IsFor(peer.Read($"relay/{own}.etcd-client.crt"), peer.Read($"relay/{own}.etcd-client.key")));
        Assert.Empty(pki.View().Blockers);
        Assert.Equal(RotationStage.Settled, pki.Rotate());
    }
}
