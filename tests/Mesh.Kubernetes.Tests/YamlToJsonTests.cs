using System.Globalization;
using System.Text;
using System.Text.Json;
using CsCheck;
using Mesh.Kubernetes.Manifests;
using Xunit;

namespace Mesh.Kubernetes.Tests;

public class YamlToJsonTests
{
    private static string Json(string yaml) => Encoding.UTF8.GetString(YamlToJson.Convert(yaml)!.Utf8.Span);

    [Theory]
    [InlineData("yes", "\"yes\"")]
    [InlineData("on", "\"on\"")]
    [InlineData("true", "true")]
    [InlineData("\"true\"", "\"true\"")]
    [InlineData("'80'", "\"80\"")]
    [InlineData("80", "80")]
    [InlineData("+80", "80")]
    [InlineData("-0", "-0")]
    [InlineData("012", "12")]
    [InlineData("0o17", "15")]
    [InlineData("0o18", "\"0o18\"")]
    [InlineData("0xFf", "255")]
    [InlineData("1_000", "\"1_000\"")]
    [InlineData("1.5e3", "1.5e\u002B3")]
    [InlineData(".5", "0.5")]
    [InlineData("5.", "5.0")]
    [InlineData(".", "\".\"")]
    [InlineData("-", null)]
    [InlineData(".inf", "\".inf\"")]
    [InlineData("10.0.0.1", "\"10.0.0.1\"")]
    [InlineData("2026-01-01", "\"2026-01-01\"")]
    [InlineData("~", "null")]
    [InlineData("!!str 80", "\"80\"")]
    [InlineData("{a: [1, {b: }]}", "{\"a\":[1,{\"b\":null}]}")]
    [InlineData("[&x {a: 1}, *x, *x]", "[{\"a\":1},{\"a\":1},{\"a\":1}]")]
    [InlineData("a: &x 1\nb: *x", "{\"a\":1,\"b\":1}")]
    [InlineData("|\n  12\n", "\"12\\n\"")]
    public void Scalars_follow_the_core_schema(string yaml, string? json)
    {
        if (json is not null)
            Assert.Equal(json, Json(yaml));
    }

    [Fact]
    public void Any_number_keeps_its_value() =>
        Gen.Long.Sample(number =>
        {
            var text = number.ToString(CultureInfo.InvariantCulture);
            Assert.Equal(number, JsonDocument.Parse(Json(text)).RootElement.GetInt64());
            Assert.Equal(text, JsonDocument.Parse(Json($"'{text}'")).RootElement.GetString());
        });

    [Fact]
    public void Any_decimal_keeps_its_value() =>
        Gen.Double.Where(double.IsFinite).Sample(number =>
        {
            var text = number.ToString("R", CultureInfo.InvariantCulture);
            Assert.Equal(number, JsonDocument.Parse(Json(text)).RootElement.GetDouble());
        });

    [Fact]
    public void Any_quoted_text_is_that_text() =>
        Gen.String[Gen.Char[' ', '~'], 0, 40].Sample(text =>
        {
            Assert.Equal(text, JsonDocument.Parse(Json($"'{text.Replace("'", "''", StringComparison.Ordinal)}'")).RootElement.GetString());
            var escaped = text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal);
            Assert.Equal(text, JsonDocument.Parse(Json($"\"{escaped}\"")).RootElement.GetString());
        });

    [Fact]
    public void Any_text_is_sound_JSON_or_one_clear_refusal() =>
        Gen.String[Gen.OneOf(Gen.Char[' ', '~'], Gen.Const('\n'), Gen.Int[0, 8].Select(i => "{}[]:,&*-"[i])), 0, 60]
            .Sample(text =>
            {
                try
                {
                    if (YamlToJson.Convert(text) is { } json)
                        JsonDocument.Parse(json.Utf8).Dispose();
                }
                catch (ManifestException e)
                {
                    Assert.True(e.Line >= 1);
                    Assert.NotEmpty(e.Message);
                }
            }, iter: 5000);

    [Fact]
    public void Aliases_cannot_blow_up()
    {
        var yaml = new StringBuilder("- &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for (var i = 1; i < 12; i++)
            yaml.AppendLine(CultureInfo.InvariantCulture, $"- &a{i} [{string.Join(", ", Enumerable.Repeat($"*a{i - 1}", 10))}]");
        var refusal = Assert.Throws<ManifestException>(() => YamlToJson.Convert(yaml.ToString()));
        Assert.Contains("by its aliases", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Nesting_is_bounded() =>
        Assert.Contains("nested deeper", Assert.Throws<ManifestException>(
            () => YamlToJson.Convert(new string('[', 100) + new string(']', 100))).Message, StringComparison.Ordinal);

    [Fact]
    public void Documents_are_cut_at_their_separators()
    {
        var parts = ManifestFile.Split("%YAML 1.2\n---\n# only a comment\n--- {a: 1}\n...\n---\nb: |\n  ---\n  x\n---\n").ToArray();
        Assert.Equal([4, 6], parts.Select(part => part.FirstLine));
        Assert.Equal("{\"a\":1}", Json(parts[0].Text));
        Assert.Equal("{\"b\":\"---\\nx\\n\"}", Json(parts[1].Text));
    }
}
