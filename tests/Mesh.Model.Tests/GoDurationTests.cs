using Xunit;

namespace Mesh.Model.Tests;

/// <summary>Durations as flags give them.</summary>
public sealed class GoDurationTests
{
    [Theory]
    [InlineData("0s", 0)]
    [InlineData("15m", 900)]
    [InlineData("1h30m", 5400)]
    [InlineData("2500ms", 2.5)]
    [InlineData("1000h", 3_600_000)]
    public void A_duration_is_read_as_Go_writes_it(string text, double seconds) =>
        Assert.Equal(TimeSpan.FromSeconds(seconds), GoDuration.Parse(text));

    [Theory]
    [InlineData("")]
    [InlineData("15")]
    [InlineData("m")]
    [InlineData("-15m")]
    [InlineData("1.5h")]
    [InlineData("15 m")]
    [InlineData("15d")]
    [InlineData("1001h")]
    [InlineData("1000h1s")]
    [InlineData("2147483647h")]
    [InlineData("99999999999s")]
    public void What_is_none_or_longer_than_any_timer_is_refused(string text) => Assert.Null(GoDuration.Parse(text));
}
