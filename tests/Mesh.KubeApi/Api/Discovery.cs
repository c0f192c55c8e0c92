using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Api;

/// <summary>What the server says of itself: version, groups, resources.</summary>
internal sealed class Discovery(KubeApiOptions options, TypeRegistry types)
{
    private static readonly string[] ReadWrite = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    private static readonly string[] OfStatus = ["get", "patch", "update"];

    public JsonObject Version()
    {
        var parts = options.Version.TrimStart('v').Split('.');
        return new()
        {
            ["major"] = parts[0],
            ["minor"] = parts[1],
            ["gitVersion"] = options.Version,
            ["gitCommit"] = "0000000000000000000000000000000000000000",
            ["gitTreeState"] = "clean",
            ["buildDate"] = "2026-01-01T00:00:00Z",
            ["goVersion"] = "none",
            ["compiler"] = "none",
            ["platform"] = string.Create(CultureInfo.InvariantCulture, $"linux/{(Environment.Is64BitProcess ? "amd64" : "386")}"),
        };
    }

    public static JsonObject Core(string address) => new()
    {
        ["kind"] = "APIVersions",
        ["versions"] = new JsonArray("v1"),
        ["serverAddressByClientCIDRs"] = new JsonArray(new JsonObject { ["clientCIDR"] = "0.0.0.0/0", ["serverAddress"] = address }),
    };

    public JsonObject Groups() => new()
    {
        ["kind"] = "APIGroupList",
        ["apiVersion"] = "v1",
        ["groups"] = new JsonArray([.. types.All.Where(type => type.Group != "").Select(type => type.Group)
            .Distinct().Select(group => (JsonNode)Group(group)!)]),
    };

    /// <summary>Newest version first, as a kube-apiserver orders them: v2 before v1 before v2alpha1.</summary>
    private IEnumerable<string> Versions(string group) => types.All.Where(type => type.Group == group).SelectMany(type => type.Versions.Select(one => one.Name))
        .Distinct().OrderBy(name => name.Contains("alpha", StringComparison.Ordinal) ? 2 : name.Contains("beta", StringComparison.Ordinal) ? 1 : 0)
        .ThenByDescending(name => name, StringComparer.Ordinal);

    public JsonObject? Group(string group)
    {
        var versions = Versions(group).Select(name => new JsonObject { ["groupVersion"] = $"{group}/{name}", ["version"] = name }).ToList();
        return versions.Count == 0 || group == "" ? null : new JsonObject
        {
            ["name"] = group,
            ["versions"] = new JsonArray([.. versions]),
            ["preferredVersion"] = versions[0].DeepClone(),
        };
    }

    public JsonObject? Resources(string group, string version)
    {
        var served = types.All.Where(type => type.Group == group && type.Versions.Any(one => one.Name == version)).ToList();
        return served.Count == 0 ? null : new JsonObject
        {
            ["kind"] = "APIResourceList",
            ["apiVersion"] = "v1",
            ["groupVersion"] = group == "" ? version : $"{group}/{version}",
            ["resources"] = new JsonArray([.. served.SelectMany(type => Entries(type, version))]),
        };
    }

    private static IEnumerable<JsonObject> Entries(ResourceType type, string version)
    {
        var entry = Entry(type.Plural, type.Singular, type.Namespaced, type.Kind, type.CreateOnly ? ["create"] : ReadWrite);
        if (type.ShortNames.Count > 0)
            entry["shortNames"] = new JsonArray([.. type.ShortNames.Select(one => (JsonNode)one)]);
        if (type.Categories.Count > 0)
            entry["categories"] = new JsonArray([.. type.Categories.Select(one => (JsonNode)one)]);
        if (!type.CreateOnly)
            entry["storageVersionHash"] = Convert.ToBase64String(BitConverter.GetBytes((long)type.Key.Length * 7919));
        yield return entry;
        if (type.HasStatus(version))
            yield return Entry($"{type.Plural}/status", "", type.Namespaced, type.Kind, OfStatus);
        foreach (var sub in type.Subresources)
        {
            var one = Entry($"{type.Plural}/{sub}", "", type.Namespaced, type.Kind, sub switch
            {
                "scale" => OfStatus,
                "log" => ["get"],
                "exec" or "attach" or "portforward" or "proxy" => ["create", "get"],
                "finalize" => ["update"],
                "ephemeralcontainers" => OfStatus,
                _ => ["create"],
            });
            var (group, its, kind) = sub switch
            {
                "scale" => ("autoscaling", "v1", "Scale"),
                "eviction" => ("policy", "v1", "Eviction"),
                "token" => ("authentication.k8s.io", "v1", "TokenRequest"),
                "binding" => ("", "v1", "Binding"),
                "exec" => ("", "", "PodExecOptions"),
                "attach" => ("", "", "PodAttachOptions"),
                "portforward" => ("", "", "PodPortForwardOptions"),
                _ => ("", "", type.Kind),
            };
            one["kind"] = kind;
            if (group != "")
                one["group"] = group;
            if (its != "")
                one["version"] = its;
            yield return one;
        }
    }

    private static JsonObject Entry(string name, string singular, bool namespaced, string kind, IEnumerable<string> verbs) => new()
    {
        ["name"] = name,
        ["singularName"] = singular,
        ["namespaced"] = namespaced,
        ["kind"] = kind,
        ["verbs"] = new JsonArray([.. verbs.Select(verb => (JsonNode)verb)]),
    };
}
