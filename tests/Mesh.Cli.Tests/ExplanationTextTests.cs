using System.Text.Json;
using Mesh.Cli.Commands.Explain;
using Xunit;

namespace Mesh.Cli.Tests;

public class ExplanationTextTests
{
    [Theory]
    [InlineData("web:0")]
    [InlineData("web:65536")]
    [InlineData("web:99999999999999999999")]
    [InlineData("web:")]
    [InlineData("web")]
    [InlineData("fd00::1")]
    public void A_port_that_cannot_be_is_no_service_that_nobody_has(string text) =>
        Assert.StartsWith($"'{text}' names no port", Assert.Throws<CliException>(() => ServicePort.Parse(text)).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("shop/web:65535", "65535")]
    [InlineData("[fd00::1]:80", "80")]
    [InlineData("web:http", "http")]
    [InlineData("web:8080-tcp", "8080-tcp")]
    public void A_port_is_a_number_or_a_name(string text, string port) => Assert.Equal(port, ServicePort.Parse(text).Port);

    [Fact]
    public void What_could_not_be_behind_the_frontend_at_all_is_counted_and_JSON_names_it()
    {
        var explanation = Of(
            Backend("10.1.0.2:8080/TCP", "kept"),
            Backend("10.1.0.2:8053/UDP", "cut: other protocol (UDP)") with { IsOfAnotherKind = true },
            Backend("10.1.0.3:8053/UDP", "cut: other protocol (UDP)") with { IsOfAnotherKind = true },
            Backend("[fd00::2]:8080/TCP", "cut: other family (IPv6)") with { IsOfAnotherKind = true });
        Assert.Equal(
            """
            client   default/front, of the cluster, at osaka-1
            agent    alive

            10.96.0.10:80/TCP ClusterIP: service 3, generation 1, 1 segments
            BACKEND            CLUSTER  REVISION  AGE  STATE   TIER  SEGMENT  SLOT  TABLE  CHANCE  WHY
            10.1.0.2:8080/TCP  tokyo    -         -    active  -     -        -     -      0.0%    kept
            and 1 cut: other family (IPv6), 2 cut: other protocol (UDP); -o json names them
            map and intention agree

            """, ExplanationText.Of(explanation));
        var json = JsonSerializer.Serialize(explanation, ExplanationJson.Default.Explanation);
        Assert.All(["10.1.0.2:8080/TCP", "10.1.0.2:8053/UDP", "10.1.0.3:8053/UDP", "[fd00::2]:8080/TCP"],
            address => Assert.Contains($"\"address\": \"{address}\"", json, StringComparison.Ordinal));
    }

    /// <summary>The control: what a rule of the choice has cut keeps its line.</summary>
    [Fact]
    public void What_is_cut_by_choice_keeps_its_line_and_nothing_is_counted()
    {
        var text = ExplanationText.Of(Of(Backend("10.1.0.3:8080/TCP", "cut: not ready")));
        Assert.Contains("cut: not ready\n", text, StringComparison.Ordinal);
        Assert.DoesNotContain("-o json", text, StringComparison.Ordinal);
        Assert.Contains("no cluster offers a backend\nand 1 cut: other protocol (UDP); -o json names them\n", ExplanationText.Of(
            Of(Backend("10.1.0.2:8053/UDP", "cut: other protocol (UDP)") with { IsOfAnotherKind = true })), StringComparison.Ordinal);
    }

    private static ExplainedBackend Backend(string address, string rule) => new() { Address = address, Cluster = "tokyo", State = "active", Rule = rule };

    private static Explanation Of(params ExplainedBackend[] backends) => new()
    {
        Client = "default/front",
        Node = "osaka-1",
        AgentSilence = 1,
        Frontends =
        [
            new ExplainedFrontend { Address = "10.96.0.10:80/TCP", Type = "ClusterIP", ServiceId = 3, Generation = 1, Segments = 1, Backends = backends },
        ],
    };
}
