using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.Pki.Tests;

/// <summary>A cluster's certificates: what is made, what an accident leaves, and who verifies whom through a rotation.</summary>
public sealed class PkiDirectoryTests : IDisposable
{
    private readonly Scratch _scratch = new();

    public void Dispose() => _scratch.Dispose();

    [Fact]
    public void Init_makes_an_authority_and_the_four_certificates_of_a_cluster()
    {
        var pki = _scratch.Init();

        var names = pki.View().Leaves.ToDictionary(leaf => leaf.Leaf.Name, leaf => leaf.Certificate.CommonName);
        Assert.Equal("clustermesh-apiserver.cilium.io", names["server"]);
        Assert.Equal("local-tokyo", names["local"]);
        Assert.Equal("remote", names["remote"]);
        Assert.Equal("admin-tokyo", names["admin"]);
        var server = pki.View().Leaves[0].Certificate.Names;
        Assert.Contains("*.mesh.cilium.io", server.Dns);
        Assert.Contains("10.0.0.1", server.Addresses.Select(address => $"{address}"));
        foreach (var leaf in PkiLeaf.All)
        {
            Assert.True(CertificateRequests.IsFor(File.ReadAllText(pki.CertFile(leaf)), File.ReadAllText(pki.KeyFile(leaf))));
            Assert.True(Scratch.Verifies(File.ReadAllText(pki.CertFile(leaf)), pki.TrustedPem));
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(pki.KeyFile(leaf)));
        }
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(Path.Combine(_scratch.Pki, "ca.key")));
    }

    [Fact]
    public void Init_again_changes_nothing_and_another_cluster_is_refused()
    {
        _scratch.Init();
        var before = _scratch.Text("server.crt");
        _scratch.Init();
        Assert.Equal(before, _scratch.Text("server.crt"));
        Assert.Contains("tokyo", Assert.Throws<PkiException>(() => _scratch.Init("osaka")).Message);
        Assert.Equal(before, _scratch.Text("server.crt"));
    }

    [Fact]
    public void Init_does_not_write_over_somebody_elses_certificates()
    {
        Directory.CreateDirectory(_scratch.Pki);
        File.WriteAllText(Path.Combine(_scratch.Pki, "ca.crt"), "theirs");
        Assert.Contains("ca.crt", Assert.Throws<PkiException>(() => _scratch.Init()).Message);
        Assert.Equal("theirs", _scratch.Text("ca.crt"));
    }

    [Fact]
    public void Open_says_what_to_do_when_there_is_nothing() =>
        Assert.Contains("mesh ca init", Assert.Throws<PkiException>(() => PkiDirectory.Open(_scratch.Path)).Message);

    [Fact]
    public void Files_put_in_by_hand_are_taken_over()
    {
        var pki = _scratch.Init();
        var other = CertificateAuthority.Create("another", TimeSpan.FromDays(1));
        // As an editor saves: another file under the same name.
        var bundle = Path.Combine(_scratch.Pki, "ca.crt");
        var text = pki.TrustedPem + other.CertificatePem;
        File.Delete(bundle);
        File.WriteAllText(bundle, text);

        pki.Issue([PkiLeaf.Server]);

        Assert.Equal(text, pki.TrustedPem);
        Assert.NotNull(new FileInfo(bundle).LinkTarget);
    }

    [Fact]
    public void Issue_replaces_what_was_asked_for_only()
    {
        var pki = _scratch.Init();
        var (server, admin) = (_scratch.Text("server.crt"), _scratch.Text("admin.crt"));
        pki.Issue([PkiLeaf.Server], CertificateNames.Parse(["10.0.0.2", "door.example"]));
        Assert.NotEqual(server, _scratch.Text("server.crt"));
        Assert.Equal(admin, _scratch.Text("admin.crt"));
        Assert.Contains("door.example", pki.View().Leaves[0].Certificate.Names.Dns);
        Assert.DoesNotContain("10.0.0.1", pki.View().Leaves[0].Certificate.Names.ToString(), StringComparison.Ordinal);
        // The next issue keeps the names.
        pki.Issue([PkiLeaf.Server]);
        Assert.Contains("door.example", pki.View().Leaves[0].Certificate.Names.Dns);
    }

    [Fact]
    public void Through_a_rotation_everybody_verifies_everybody()
    {
        var pki = _scratch.Init();
        var bundles = new List<string> { pki.TrustedPem };
        var leaves = new List<string> { _scratch.Text("server.crt") };
        for (var step = 0; step < 3; step++)
        {
            pki.Rotate();
            bundles.Add(pki.TrustedPem);
            leaves.Add(_scratch.Text("server.crt"));
            // One may lag behind by any step until the last, with its bundle or with its certificate.
            if (step < 2)
                Assert.All(leaves, leaf => Assert.All(bundles, bundle => Assert.True(Scratch.Verifies(leaf, bundle))));
        }
        Assert.Equal(RotationStage.Settled, pki.Settings.Stage);
        Assert.Single(CertificateFacts.AllOfPem(pki.TrustedPem));
        Assert.True(Scratch.Verifies(leaves[3], bundles[3]));
        // What the last step is for: the previous authority is nobody any more.
        Assert.False(Scratch.Verifies(leaves[0], bundles[3]));
        Assert.False(Scratch.Verifies(leaves[3], bundles[0]));
        // The leaf of the second step is still good: it is the same one, but for the chain.
        Assert.True(Scratch.Verifies(leaves[2], bundles[3]));
        Assert.False(File.Exists(Path.Combine(_scratch.Pki, "previous.key")));
        Assert.Empty(Directory.EnumerateFiles(_scratch.Pki, "previous*", SearchOption.AllDirectories));
    }

    [Fact]
    public void The_last_step_waits_for_peers_that_hold_an_old_certificate()
    {
        var pki = _scratch.Init();
        var osaka = CertificateRequests.Create("osaka").CsrPem;
        pki.IssueForPeer(osaka, "remote-osaka");
        pki.Rotate();
        pki.Rotate();
        Assert.Contains("remote-osaka", Assert.Single(pki.View().Blockers));
        Assert.Contains("remote-osaka", Assert.Throws<PkiException>(() => pki.Rotate()).Message);
        Assert.Equal(RotationStage.Reissued, pki.Settings.Stage);

        // Joined again: it has both the new certificate and the new bundle.
        var (issued, bundle) = pki.IssueForPeer(osaka, "remote-osaka");
        Assert.Empty(pki.View().Blockers);
        Assert.Equal(RotationStage.Settled, pki.Rotate());
        Assert.True(Scratch.Verifies(issued, pki.TrustedPem));
        Assert.True(Scratch.Verifies(_scratch.Text("server.crt"), bundle));
    }

    [Fact]
    public void An_operator_may_decide_to_cut_a_peer()
    {
        var pki = _scratch.Init();
        pki.IssueForPeer(CertificateRequests.Create("osaka").CsrPem, "remote-osaka");
        pki.Rotate();
        pki.Rotate();
        Assert.Equal(RotationStage.Settled, pki.Rotate(force: true));
    }

    [Fact]
    public void A_peer_that_is_gone_or_expired_hinders_nothing()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UtcNow);
        var pki = _scratch.Init(time: time);
        pki.IssueForPeer(CertificateRequests.Create("osaka").CsrPem, "remote-osaka");
        pki.IssueForPeer(CertificateRequests.Create("kyoto").CsrPem, "remote-kyoto", TimeSpan.FromDays(1));
        pki.Rotate();
        pki.Rotate();
        Assert.Equal(2, pki.View().Blockers.Count);
        Assert.True(pki.ForgetPeer("remote-osaka"));
        Assert.False(pki.ForgetPeer("remote-osaka"));
        Assert.Single(pki.View().Blockers);
        time.Advance(TimeSpan.FromDays(2));
        Assert.Empty(pki.View().Blockers);
    }

    [Fact]
    public void An_announcement_can_be_taken_back_and_a_reissue_cannot()
    {
        var pki = _scratch.Init();
        var before = pki.TrustedPem;
        pki.Rotate();
        Assert.NotEqual(before, pki.TrustedPem);
        pki.CancelRotation();
        Assert.Equal(before, pki.TrustedPem);
        Assert.Equal(RotationStage.Settled, pki.Settings.Stage);
        Assert.Throws<PkiException>(pki.CancelRotation);
        pki.Rotate();
        pki.Rotate();
        Assert.Contains("signed already", Assert.Throws<PkiException>(pki.CancelRotation).Message);
    }

    [Fact]
    public void An_authority_made_elsewhere_is_taken_over()
    {
        using var root = CertificateAuthority.Create("Cilium CA", TimeSpan.FromDays(10));
        using var below = CertificateAuthority.Create("tokyo below", TimeSpan.FromDays(5));
        var pki = PkiDirectory.Init(_scratch.Pki, new PkiSettings { Cluster = "tokyo" },
            new PkiAuthorityFiles(root.CrossSign(below), below.KeyPem, root.CertificatePem));
        Assert.Equal("Cilium CA", pki.View().Trusted.Single().CommonName);
        var presented = _scratch.Text("server.crt");
        Assert.Equal(2, CertificateFacts.AllOfPem(presented).Count);
        Assert.True(Scratch.Verifies(presented, root.CertificatePem));
        // Rotated away from it, step by step.
        pki.Rotate();
        pki.Rotate();
        Assert.True(Scratch.Verifies(_scratch.Text("server.crt"), root.CertificatePem));
        pki.Rotate();
        Assert.True(Scratch.Verifies(_scratch.Text("server.crt"), pki.TrustedPem));
        Assert.False(Scratch.Verifies(presented, pki.TrustedPem));
    }
}
