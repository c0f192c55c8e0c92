using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Mesh.KubeApi.Objects;

/// <summary>A label selector as it stands in a query: a=b, a!=b, a in (b,c), a notin (b), a, !a; all must hold.</summary>
internal sealed partial class LabelSelector
{
    private readonly List<(string Key, string Operator, string[] Values)> _terms = [];

    [GeneratedRegex(@"^\s*(?<key>[A-Za-z0-9./_-]+)\s+(?<op>in|notin)\s*\((?<values>[^)]*)\)\s*$")]
    private static partial Regex Set();

    [GeneratedRegex(@"^\s*(?<not>!)?\s*(?<key>[A-Za-z0-9./_-]+)\s*((?<op>==|=|!=)\s*(?<value>[A-Za-z0-9._-]*))?\s*$")]
    private static partial Regex Simple();

    public static LabelSelector Parse(string text)
    {
        var selector = new LabelSelector();
        foreach (var term in Terms(text))
        {
            if (Set().Match(term) is { Success: true } set)
            {
                var values = set.Groups["values"].Value.Split(',').Select(value => value.Trim()).ToArray();
                selector._terms.Add((set.Groups["key"].Value, set.Groups["op"].Value, values));
            }
            else if (Simple().Match(term) is { Success: true } simple)
            {
                var key = simple.Groups["key"].Value;
                if (!simple.Groups["op"].Success)
                    selector._terms.Add((key, simple.Groups["not"].Success ? "absent" : "exists", []));
                else
                    selector._terms.Add((key, simple.Groups["op"].Value == "!=" ? "notin" : "in", [simple.Groups["value"].Value]));
            }
            else
            {
                throw KubeApiException.BadRequest($"unable to parse requirement: {term}");
            }
        }
        return selector;
    }

    private static IEnumerable<string> Terms(string text)
    {
        int depth = 0, start = 0;
        for (var i = 0; i <= text.Length; i++)
        {
            if (i == text.Length || (text[i] == ',' && depth == 0))
            {
                if (!string.IsNullOrWhiteSpace(text[start..i]))
                    yield return text[start..i];
                start = i + 1;
            }
            else
            {
                depth += text[i] switch { '(' => 1, ')' => -1, _ => 0 };
            }
        }
    }

    public bool IsEmpty => _terms.Count == 0;

    public bool Matches(JsonObject node)
    {
        var labels = node["metadata"]?["labels"] as JsonObject;
        foreach (var (key, op, values) in _terms)
        {
            var value = (string?)labels?[key];
            var holds = op switch
            {
                "exists" => value is not null,
                "absent" => value is null,
                "in" => value is not null && values.Contains(value),
                _ => value is null || !values.Contains(value),
            };
            if (!holds)
                return false;
        }
        return true;
    }
}

/// <summary>A field selector: metadata.name, metadata.namespace, and per kind those that a kube-apiserver indexes.</summary>
internal sealed class FieldSelector
{
    private readonly List<(string Path, bool Equal, string Value)> _terms = [];

    private static readonly Dictionary<string, string[]> Supported = new()
    {
        ["pods"] = ["spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork", "status.phase",
            "status.podIP", "status.nominatedNodeName"],
        ["events"] = ["involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion",
            "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"],
        ["nodes"] = ["spec.unschedulable"],
        ["namespaces"] = ["status.phase"],
        ["secrets"] = ["type"],
        ["replicasets"] = ["status.replicas"],
        ["jobs"] = ["status.successful"],
        ["services"] = ["spec.clusterIP", "spec.type"],
        ["certificatesigningrequests"] = ["spec.signerName"],
    };

    public static FieldSelector Parse(string text, string resource)
    {
        var selector = new FieldSelector();
        foreach (var term in text.Split(',', StringSplitOptions.RemoveEmptyEntries))
        {
            var not = term.IndexOf("!=", StringComparison.Ordinal);
            var at = not >= 0 ? not : term.IndexOf('=', StringComparison.Ordinal);
            if (at < 0)
                throw KubeApiException.BadRequest($"invalid selector: '{term}'; can't understand '{term}'");
            var path = term[..at].Trim();
            var value = term[(at + (not >= 0 ? 2 : term[at..].StartsWith("==", StringComparison.Ordinal) ? 2 : 1))..].Trim();
            if (path is not ("metadata.name" or "metadata.namespace") && !Supported.GetValueOrDefault(resource, []).Contains(path))
                throw KubeApiException.BadRequest($"field label not supported: {path}");
            selector._terms.Add((path, not < 0, value));
        }
        return selector;
    }

    public bool IsEmpty => _terms.Count == 0;

    /// <summary>The one name that can match, when the selector says so.</summary>
    public string? Name => _terms.Where(term => term.Path == "metadata.name" && term.Equal).Select(term => term.Value).FirstOrDefault();

    public bool Matches(JsonObject node)
    {
        foreach (var (path, equal, value) in _terms)
        {
            JsonNode? at = node;
            foreach (var step in path.Split('.'))
                at = (at as JsonObject)?[step];
            var text = at switch
            {
                null => path is "spec.unschedulable" or "spec.hostNetwork" ? "false" : "",
                JsonValue leaf when leaf.GetValueKind() is System.Text.Json.JsonValueKind.String => (string)leaf!,
                _ => at.ToJsonString(),
            };
            if (text == value != equal)
                return false;
        }
        return true;
    }
}
