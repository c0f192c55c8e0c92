using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>When a certificate's end is worth a word, and which.</summary>
public sealed class TlsStatusTests
{
    private static readonly DateTimeOffset Now = new(2026, 11, 23, 4, 0, 0, TimeSpan.Zero);

    private static string? Said(double days) =>
        new TlsStatus("remote-osaka", Now.AddDays(days), "CN=server", Now.AddDays(400), Now.AddDays(900), null).Expiry(Now);

    [Fact]
    public void Thirty_days_before_the_end_it_becomes_a_warning_and_behind_it_an_error()
    {
        Assert.Null(Said(30));
        Assert.Null(Said(364));
        Assert.StartsWith("warning: our client certificate remote-osaka expires in 29 days, on 2026-12-23", Said(29.99), StringComparison.Ordinal);
        Assert.Contains("expires in 1 day,", Said(1.5), StringComparison.Ordinal);
        Assert.Contains("within a day", Said(0.5), StringComparison.Ordinal);
        Assert.StartsWith("error: our client certificate remote-osaka expired on 2026-11-23", Said(0), StringComparison.Ordinal);
        Assert.StartsWith("error:", Said(-3), StringComparison.Ordinal);
    }

    [Fact]
    public void Each_side_is_named_with_its_mend()
    {
        var status = new TlsStatus("remote-osaka", Now.AddDays(1), "CN=server", Now.AddDays(2), Now.AddDays(-1), null).Expiry(Now)!;
        Assert.Contains("join it again", status, StringComparison.Ordinal);
        Assert.Contains("CN=server expires in 2 days", status, StringComparison.Ordinal);
        Assert.Contains("error: the authority", status, StringComparison.Ordinal);
        Assert.Null(new TlsStatus(null, null, null, null, null, null).Expiry(Now));
    }
}
