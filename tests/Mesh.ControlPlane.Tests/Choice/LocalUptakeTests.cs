using Mesh.ControlPlane.LoadBalancing.Choice;
using Xunit;

namespace Mesh.ControlPlane.Tests.Choice;

/// <summary>A local side that begins from nothing is taken up gradually.</summary>
public sealed class LocalUptakeTests
{
    private static readonly TimeSpan SlowStart = TimeSpan.FromSeconds(10);
    private static readonly DateTimeOffset Start = DateTimeOffset.UnixEpoch;

    [Fact]
    public void While_thirty_backends_come_one_by_one_none_gets_over_three_times_its_steady_share()
    {
        var uptake = LocalUptake.Old(0);
        var now = Start;
        for (var local = 1; local <= 30; local++, now += TimeSpan.FromMilliseconds(200))
        {
            uptake = uptake.With(local, now);
            Assert.True(uptake.At(now, remote: 30, SlowStart).Share / local <= 3.0 / 30, $"{local} local backends");
        }
        Assert.Equal((1, null), uptake.At(now + 3 * SlowStart, 30, SlowStart));
    }

    [Fact]
    public void Afterwards_the_share_grows_in_steps_and_never_falls()
    {
        var uptake = LocalUptake.Old(0).With(10, Start);
        var shares = new List<double>();
        DateTimeOffset? at = Start;
        while (at is { } now)
        {
            (var share, at) = uptake.At(now, remote: 10, SlowStart);
            shares.Add(share);
        }
        Assert.Equal([0.5, 0.6, 0.7, 0.8, 0.9, 1], shares.Select(share => Math.Round(share, 6)));
    }

    [Fact]
    public void A_rolling_restart_is_not_a_beginning()
    {
        var uptake = LocalUptake.Old(10);
        foreach (var backends in new[] { 9, 10, 9, 10, 11 })
            uptake = uptake.With(backends, Start);
        Assert.Equal((1, null), uptake.At(Start, 10, SlowStart));
    }

    [Fact]
    public void After_the_last_one_left_the_next_is_new_again()
    {
        var uptake = LocalUptake.Old(10).With(0, Start).With(1, Start);
        Assert.Equal(0.1, uptake.At(Start, 9, SlowStart).Share, 6);
    }

    [Fact]
    public void Alone_in_the_mesh_or_with_slow_start_off_it_takes_everything_at_once()
    {
        var uptake = LocalUptake.Old(0).With(1, Start);
        Assert.Equal((1, null), uptake.At(Start, 0, SlowStart));
        Assert.Equal((1, null), uptake.At(Start, 9, TimeSpan.Zero));
    }
}
