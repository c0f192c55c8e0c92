using CsCheck;
using Mesh.Joining.Tokens;
using Xunit;

namespace Mesh.Joining.Tests;

/// <summary>The token's text: what is whole is read, and nothing else is.</summary>
public sealed class TokenTests : IAsyncDisposable
{
    private readonly TestCluster _tokyo = TestCluster.Create("tokyo", 1);

    public ValueTask DisposeAsync() => _tokyo.DisposeAsync();

    [Fact]
    public void A_token_is_one_line_and_reads_back_as_it_was()
    {
        var token = _tokyo.Token(new TokenRequest(TimeSpan.FromMinutes(5), "osaka", [], []));
        var text = $"{token}";
        Assert.DoesNotContain(text, char.IsWhiteSpace);
        Assert.Equal(text, $"{JoinToken.Parse($"  {text}\n")}");
        Assert.Equal("osaka", JoinToken.Parse(text).Taker);
    }

    [Fact]
    public void No_beginning_of_a_token_is_a_token()
    {
        var text = $"{_tokyo.Token()}";
        for (var length = 0; length < text.Length; length++)
            Assert.StartsWith("token-", Assert.Throws<JoinException>(() => JoinToken.Parse(text[..length])).Code);
    }

    [Fact]
    public void No_changed_letter_goes_unnoticed()
    {
        var text = $"{_tokyo.Token()}";
        Gen.Select(Gen.Int[0, text.Length - 1], Gen.Char.AlphaNumeric).Sample((at, letter) =>
        {
            if (text[at] == letter)
                return;
            var changed = text[..at] + letter + text[(at + 1)..];
            Assert.StartsWith("token-", Assert.Throws<JoinException>(() => JoinToken.Parse(changed)).Code);
        }, iter: 2000);
    }

    [Fact]
    public void Any_other_text_is_refused_with_a_reason() => Gen.String.Sample(text =>
        Assert.StartsWith("token-", Assert.Throws<JoinException>(() => JoinToken.Parse(text)).Code));

    [Fact]
    public void A_token_of_another_version_says_so()
    {
        var text = $"{_tokyo.Token()}";
        Assert.Equal("token-version", Assert.Throws<JoinException>(() => JoinToken.Parse("mesh2" + text[5..])).Code);
    }

    [Fact]
    public void The_ledger_holds_no_secret_and_is_for_its_owner_alone()
    {
        var token = _tokyo.Token();
        Assert.DoesNotContain(token.Secret, _tokyo.Read("join/tokens.json"));
        Assert.Contains(token.Id, _tokyo.Read("join/tokens.json"));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode($"{_tokyo.Root}/join/tokens.json"));
        Assert.Equal((UnixFileMode)0x1C0, File.GetUnixFileMode($"{_tokyo.Root}/join"));
    }

    [Fact]
    public void Expired_tokens_are_pruned_after_a_day()
    {
        var time = new Microsoft.Extensions.Time.Testing.FakeTimeProvider(DateTimeOffset.UtcNow);
        var ledger = new TokenLedger(_tokyo.Description.JoinDirectory, time);
        var old = _tokyo.Token(time: time);
        time.Advance(TimeSpan.FromHours(23));
        _tokyo.Token(time: time);
        Assert.Contains(ledger.Tokens, record => record.Id == old.Id);
        time.Advance(TimeSpan.FromHours(2));
        _tokyo.Token(time: time);
        Assert.DoesNotContain(ledger.Tokens, record => record.Id == old.Id);
    }

    [Fact]
    public void An_address_that_the_server_certificate_does_not_bear_is_refused()
    {
        var e = Assert.Throws<JoinException>(() => _tokyo.Token(new TokenRequest(TimeSpan.FromMinutes(1), null, ["192.0.2.1:4443"], [])));
        Assert.Equal("token-address", e.Code);
        Assert.Empty(new TokenLedger(_tokyo.Description.JoinDirectory, TimeProvider.System).Tokens);
    }
}
