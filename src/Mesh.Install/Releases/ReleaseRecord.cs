using System.Globalization;
using System.IO.Compression;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Mesh.Install.Charts;
using Mesh.Install.Text;

namespace Mesh.Install.Releases;

/// <summary>
/// What Helm 3 keeps of a release, in a Secret sh.helm.release.v1.NAME.vREVISION: chart, values and manifest, as JSON, gzip, base64. We
/// keep the same, so that `helm` and the cilium CLI, which changes values of the chart that lies in here, work on what we installed,
/// and we on what they did.
/// </summary>
public sealed record ReleaseRecord
{
    public const string Deployed = "deployed";
    public const string Superseded = "superseded";
    public const string Failed = "failed";
    public const string PendingInstall = "pending-install";
    public const string PendingUpgrade = "pending-upgrade";

    private const string MarkOfOurs = "mesh.cilium.io/chart";

    public required string Name { get; init; }

    public required string Namespace { get; init; }

    /// <summary>1 and up.</summary>
    public required int Revision { get; init; }

    /// <summary>Helm's word, one of the constants here or another.</summary>
    public required string Status { get; init; }

    public required string Description { get; init; }

    public required DateTimeOffset FirstDeployed { get; init; }

    public required DateTimeOffset LastDeployed { get; init; }

    /// <summary>Values that were given, without those of the chart.</summary>
    public required Map Config { get; init; }

    /// <summary>All objects, as YAML.</summary>
    public required string Manifest { get; init; }

    /// <summary>The chart as Helm writes it.</summary>
    public required JsonObject Chart { get; init; }

    public string ChartVersion => (string?)Chart["metadata"]?["version"] ?? "?";

    public string ChartName => (string?)Chart["metadata"]?["name"] ?? "?";

    /// <summary>False for a chart of others, such as Cilium's own, that is released under the same name.</summary>
    public bool IsOurs => Chart["metadata"]?["annotations"]?[MarkOfOurs] is not null;

    public string SecretName => $"sh.helm.release.v1.{Name}.v{Revision}";

    public JsonObject ToSecret()
    {
        var body = new JsonObject
        {
            ["name"] = Name,
            ["info"] = new JsonObject
            {
                ["first_deployed"] = Time(FirstDeployed),
                ["last_deployed"] = Time(LastDeployed),
                ["deleted"] = "",
                ["description"] = Description,
                ["status"] = Status,
            },
            ["chart"] = Chart.DeepClone(),
            ["config"] = Tree.ToJson(Config),
            ["manifest"] = Manifest,
            ["version"] = Revision,
            ["namespace"] = Namespace,
        };
        using var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Optimal, leaveOpen: true))
            gzip.Write(Encoding.UTF8.GetBytes(body.ToJsonString()));
        // Helm's base64, and then that of the Secret.
        var release = Convert.ToBase64String(Encoding.ASCII.GetBytes(Convert.ToBase64String(packed.ToArray())));
        return new JsonObject
        {
            ["apiVersion"] = "v1",
            ["kind"] = "Secret",
            ["metadata"] = new JsonObject
            {
                ["name"] = SecretName,
                ["namespace"] = Namespace,
                ["labels"] = new JsonObject
                {
                    ["name"] = Name,
                    ["owner"] = "helm",
                    ["status"] = Status,
                    ["version"] = Tree.Print((long)Revision),
                    ["modifiedAt"] = Tree.Print(LastDeployed.ToUnixTimeSeconds()),
                },
            },
            ["type"] = "helm.sh/release.v1",
            ["data"] = new JsonObject { ["release"] = release },
        };
    }

    /// <exception cref="InstallException">The Secret holds no release.</exception>
    public static ReleaseRecord FromSecret(JsonObject secret)
    {
        var name = (string?)secret["metadata"]?["name"] ?? "?";
        try
        {
            var once = Encoding.ASCII.GetString(Convert.FromBase64String((string)secret["data"]!["release"]!));
            using var gzip = new GZipStream(new MemoryStream(Convert.FromBase64String(once)), CompressionMode.Decompress);
            var body = (JsonObject)JsonNode.Parse(gzip)!;
            var info = body["info"]!;
            return new ReleaseRecord
            {
                Name = (string)body["name"]!,
                Namespace = (string?)body["namespace"] ?? (string)secret["metadata"]!["namespace"]!,
                Revision = (int)body["version"]!,
                Status = (string)info["status"]!,
                Description = (string?)info["description"] ?? "",
                FirstDeployed = Moment(info["first_deployed"]),
                LastDeployed = Moment(info["last_deployed"]),
                Config = Tree.FromJson(body["config"]) as Map ?? [],
                Manifest = (string?)body["manifest"] ?? "",
                Chart = (JsonObject)body["chart"]!.DeepClone(),
            };
        }
        catch (Exception e) when (e is FormatException or InvalidDataException or JsonException or NullReferenceException or InvalidOperationException
            or InvalidCastException)
        {
            throw new InstallException($"Secret {name} holds no release that can be read: {e.Message}", e);
        }
    }

    /// <summary>A chart as Helm writes it into a record.</summary>
    public static JsonObject ChartOf(Chart chart)
    {
        var metadata = (JsonObject)Tree.ToJson(chart.Metadata)!;
        return new JsonObject
        {
            ["metadata"] = metadata,
            ["lock"] = null,
            ["templates"] = new JsonArray([.. chart.Templates.Select(file => (JsonNode)File(file, chart.Files[file]))]),
            ["values"] = Tree.ToJson(chart.Values),
            ["schema"] = Convert.ToBase64String(Encoding.UTF8.GetBytes(chart.Files["values.schema.json"])),
            ["files"] = new JsonArray(),
        };
    }

    private static JsonObject File(string name, string text) =>
        new() { ["name"] = name, ["data"] = Convert.ToBase64String(Encoding.UTF8.GetBytes(text)) };

    private static string Time(DateTimeOffset time) => time.ToString("yyyy-MM-dd'T'HH:mm:ss.fffffff'Z'", CultureInfo.InvariantCulture);

    private static DateTimeOffset Moment(JsonNode? node) =>
        DateTimeOffset.TryParse((string?)node, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var time)
            ? time.ToUniversalTime()
            : DateTimeOffset.UnixEpoch;
}
