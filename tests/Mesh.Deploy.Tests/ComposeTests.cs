using System.Text.RegularExpressions;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Deploy.Tests;

public sealed partial class ComposeTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    private static string Config() => ChildThread.Run("docker-compose", "--file", $"{Checkout.Root}/docker-compose.yml", "config");

    [Fact]
    public async Task Two_clusters_of_the_compose_file_become_one_service_by_the_token_that_connect_makes()
    {
        await using var compose = new Compose(Config());
        compose.Up(without: "connect");

        // Without the token there is osaka alone: the control of what follows.
        await Compose.UntilAsync(() => Answers(compose, 1).Count > 0, Patience, () => Logs(compose));
        Assert.Equal(["osaka"], Answers(compose, 20));

        compose.Start("connect");
        await compose.CompletedAsync("connect", Patience);
        await Compose.UntilAsync(() => Answers(compose, 5).Contains("tokyo"), Patience, () => Logs(compose));
        Assert.Equal(["osaka", "tokyo"], Answers(compose, 60));
        // Its exit code would be 3 while a warning stands; the text is compared, so that a failure shows it.
        var status = compose.Exec("osaka-1", "sh", "-c", "mesh clustermesh status 2>&1; true");
        Assert.Contains("tokyo: 1/1 configured, 1/1 connected", status, StringComparison.Ordinal);

        var exported = Exported(compose);
        foreach (var file in Directory.GetFiles($"{Checkout.Root}/deploy/dashboards", "*.json").Append($"{Checkout.Root}/deploy/alerts/mesh.rules.yaml"))
        {
            var named = Metric().Matches(File.ReadAllText(file)).Select(match => match.Value).Distinct().ToList();
            Assert.NotEmpty(named);
            Assert.Equal([], named.Except(exported));
        }
    }

    /// <summary>Which clusters answer the client.</summary>
    private static SortedSet<string> Answers(Compose compose, int requests)
    {
        var loop = $"for i in $(seq {requests}); do curl -s -m 2 http://10.98.0.10/; echo; done";
        var said = compose.Exec("osaka-client", "mesh", "pod", "enter", "client", "--", "sh", "-c", loop) ?? "";
        return [.. Cluster().Matches(said).Select(match => match.Groups[1].Value)];
    }

    private static HashSet<string> Exported(Compose compose)
    {
        var pages = new[] { ("osaka-1", 9962), ("osaka-apiserver", 9964) }
            .Select(page => compose.Exec(page.Item1, "curl", "-s", $"http://127.0.0.1:{page.Item2}/metrics") ?? "");
        return [.. pages.SelectMany(page => Family().Matches(page)).Select(match => match.Groups[1].Value)];
    }

    private static string Logs(Compose compose) =>
        string.Join('\n', compose.Services.Select(name => $"== {name}\n{string.Join('\n', compose.Log(name).Split('\n').TakeLast(8))}"));

    [GeneratedRegex("(tokyo|osaka)/backend")]
    private static partial Regex Cluster();

    [GeneratedRegex(@"\b(cilium|mesh)_[a-z0-9_]+\b")]
    private static partial Regex Metric();

    [GeneratedRegex("^# TYPE ([a-z0-9_]+) ", RegexOptions.Multiline)]
    private static partial Regex Family();
}
