using System.Text.Json;
using Mesh.AgentApi;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>-o yaml and -o jsonpath, as people know them from kubectl and Cilium's tools.</summary>
public sealed class OutputFormatTests
{
    private static readonly JsonElement Peers = JsonSerializer.SerializeToElement<IReadOnlyList<RemoteCluster>>(
    [
        new() { Name = "c2", Ready = true, NumNodes = 3, Status = "etcd: 1/1 connected", Problems = ["it's broken"] },
        new() { Name = "c3", Status = "10", Config = new RemoteClusterConfig { Required = true, ClusterId = 3 } },
    ], AgentApiJson.Wire.IReadOnlyListRemoteCluster);

    [Fact]
    public void Yaml_has_its_members_in_order_and_quotes_what_would_mean_something_else() => Assert.Equal("""
        - last-failure: '0001-01-01T00:00:00.000Z'
          name: c2
          num-nodes: 3
          problems:
          - it's broken
          ready: true
          status: 'etcd: 1/1 connected'
        - config:
            cluster-id: 3
            required: true
          last-failure: '0001-01-01T00:00:00.000Z'
          name: c3
          status: '10'

        """, Yaml.Of(Peers));

    [Theory]
    [InlineData("""{"a":"true","b":"no","c":"","d":"-x","e":"a\nb","f":"10.1.0.1","g":"1.5","h":[],"i":{},"j":null,"k":"it's: x","l":"x #y"}""",
        "a: 'true'\nb: 'no'\nc: ''\nd: '-x'\ne: \"a\\nb\"\nf: 10.1.0.1\ng: '1.5'\nh: []\ni: {}\nj: null\nk: 'it''s: x'\nl: 'x #y'\n")]
    [InlineData("[]", "[]\n")]
    [InlineData("[[1,2],[{\"x\":1,\"z\":[3]}]]", "- - 1\n  - 2\n- - x: 1\n    z:\n    - 3\n")]
    public void Yaml_of_odd_values(string json, string yaml) => Assert.Equal(yaml, Yaml.Of(JsonDocument.Parse(json).RootElement));

    [Theory]
    [InlineData("{[*].name}", "c2 c3")]
    [InlineData("{$[0].name}", "c2")]
    [InlineData("{[-1].name}", "c3")]
    [InlineData("{[0:1].name}", "c2")]
    [InlineData("{[0]['num-nodes']}", "3")]
    [InlineData("{..cluster-id}", "3")]
    [InlineData("{[?(@.ready==true)].name}", "c2")]
    [InlineData("{[?(@.name!=\"c2\")].name}", "c3")]
    [InlineData("{[?(@.num-nodes>=3)].name}", "c2")]
    [InlineData("{[?(@.config)].name}", "c3")]
    [InlineData("{range [*]}{.name}={.ready}{\"\\n\"}{end}", "c2=true\nc3=\n")]
    [InlineData("peers: {[*].name}!", "peers: c2 c3!")]
    [InlineData("{[0].problems}", "[\"it's broken\"]")]
    [InlineData("{.nothing}", "")]
    [InlineData("no braces", "no braces")]
    public void A_jsonpath_gives(string template, string expected) => Assert.Equal(expected, JsonPath.Parse(template).Of(Peers));

    [Theory]
    [InlineData("{[*].name", "'}' is missing")]
    [InlineData("{[}", "a number, '*', a quoted name or a filter must stand in []")]
    [InlineData("{range [*]}{.name}", "'range' without {end}")]
    [InlineData("{end}", "'end' without 'range'")]
    [InlineData("{['name}", "' is not closed")]
    [InlineData("{.}.{..}", "a name must stand behind '.'")]
    public void A_wrong_jsonpath_says_where(string template, string fault)
    {
        var e = Assert.Throws<FormatException>(() => JsonPath.Parse(template));
        Assert.StartsWith("at character ", e.Message, StringComparison.Ordinal);
        Assert.EndsWith(fault, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Any_template_is_read_or_refused() => CsCheck.Check.Sample(CsCheck.Gen.String[CsCheck.Gen.Char["{}[]().*?@$'\"=<>!:-a1 \\"], 0, 24], template =>
    {
        try
        {
            JsonPath.Parse(template).Of(Peers);
        }
        catch (FormatException)
        {
            // Refused with a reason.
        }
    }, iter: 20_000);
}
