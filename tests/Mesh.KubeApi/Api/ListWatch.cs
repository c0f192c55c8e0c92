using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Api;

/// <summary>Lists in pages out of one snapshot, and watches from a revision on: the two reads that every reflector lives by.</summary>
internal sealed class ListWatch(ObjectStore store, KubeApiOptions options)
{
    private sealed record Filter(string Namespace, LabelSelector Labels, FieldSelector Fields)
    {
        public bool IsEmpty => Labels.IsEmpty && Fields.IsEmpty;

        public bool Matches(StoredObject stored) =>
            (Namespace == "" || stored.Type.Namespaced is false || stored.Namespace == Namespace) && Labels.Matches(stored.Node) && Fields.Matches(stored.Node);
    }

    private static Filter Filters(ApiRequest request, ResourceType type)
    {
        var fields = request.Query("fieldSelector");
        // GET of one name with watch=true: the name is a field selector.
        if (request.Name != "")
            fields = $"metadata.name={request.Name}{(fields == "" ? "" : $",{fields}")}";
        return new(type.Namespaced ? request.Namespace : "", LabelSelector.Parse(request.Query("labelSelector")), FieldSelector.Parse(fields, type.Plural));
    }

    private static string Text(long revision) => revision.ToString(CultureInfo.InvariantCulture);

    /// <summary>The objects of a list without paging and their revision: for deletecollection.</summary>
    public List<StoredObject> Matching(ApiRequest request, ResourceType type)
    {
        var filter = Filters(request, type);
        return [.. store.Snapshot(type).Table.Values.Where(filter.Matches)];
    }

    public async Task ListAsync(ApiRequest request, ResourceType type)
    {
        if (request.Query("sendInitialEvents") != "")
            throw new KubeApiException(422, "Invalid",
                "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list");
        var filter = Filters(request, type);
        var limit = request.Number("limit") is { } asked and > 0 ? asked : long.MaxValue;
        var (revision, table) = store.Snapshot(type);
        var after = "";
        if (request.Query("continue") is { Length: > 0 } token)
        {
            (revision, after) = ReadToken(token);
            table = store.Kept(type, revision);
        }
        else if (request.Query("resourceVersionMatch") == "Exact" && request.Number("resourceVersion") is { } exact && exact != revision)
        {
            table = store.Kept(type, exact);
            revision = exact;
        }
        else if (request.Number("resourceVersion") > revision)
        {
            throw new KubeApiException(504, "Timeout", $"Too large resource version: {request.Query("resourceVersion")}, current: {Text(revision)}");
        }

        var page = new List<StoredObject>();
        long remaining = 0;
        foreach (var (key, stored) in table)
        {
            if (after != "" && string.CompareOrdinal(key, after) <= 0)
                continue;
            if (!filter.Matches(stored))
                continue;
            if (page.Count < limit)
                page.Add(stored);
            else if (filter.IsEmpty)
                remaining++;
            else
            {
                remaining = 1;
                break;
            }
        }
        var metadata = new JsonObject { ["resourceVersion"] = Text(revision) };
        if (remaining > 0)
        {
            store.Keep(type, revision, table);
            metadata["continue"] = MakeToken(revision, page[^1].Key);
            if (filter.IsEmpty)
                metadata["remainingItemCount"] = remaining;
        }
        var output = new MemoryStream(4096);
        var form = ResponseForm.Of(request);
        if (form.Table)
        {
            Tables.Write(output, type, request.Version, page, form, metadata, options.Time, headings: true);
        }
        else
        {
            var partial = form.MetadataOnly;
            output.Write(Encoding.UTF8.GetBytes(partial
                ? "{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":"
                : $"{{\"kind\":\"{type.ListKind}\",\"apiVersion\":\"{type.ApiVersion(request.Version)}\",\"metadata\":"));
            output.Write(Encoding.UTF8.GetBytes(Json.Text(metadata)));
            output.Write(",\"items\":["u8);
            for (var i = 0; i < page.Count; i++)
            {
                if (i > 0)
                    output.WriteByte((byte)',');
                if (partial)
                    Tables.WritePartial(output, page[i]);
                else
                    page[i].WriteTo(output, request.Version, type.BareItems);
            }
            output.Write("]}\n"u8);
        }
        await Reply.BytesAsync(request.Http, 200, output, form.ContentType);
    }

    private static string MakeToken(long revision, string after) => Convert.ToBase64String(Encoding.UTF8.GetBytes(Json.Text(new JsonObject
    {
        ["v"] = "meta.k8s.io/v1",
        ["rv"] = revision,
        ["start"] = after,
    }))).TrimEnd('=').Replace('+', '-').Replace('/', '_');

    private static (long Revision, string After) ReadToken(string token)
    {
        try
        {
            var padded = token.Replace('-', '+').Replace('_', '/');
            var node = JsonNode.Parse(Convert.FromBase64String(padded.PadRight((padded.Length + 3) / 4 * 4, '=')));
            return (node.Num("rv") ?? 0, node.Str("start") ?? "");
        }
        catch (Exception failure) when (failure is FormatException or System.Text.Json.JsonException)
        {
            throw KubeApiException.BadRequest($"continue key is not valid: {failure.Message}");
        }
    }

    public async Task WatchAsync(ApiRequest request, ResourceType type, CancellationToken serverStops)
    {
        if (request.Query("sendInitialEvents") != "")
            throw KubeApiException.Invalid("ListOptions", "meta.k8s.io", "", [new("sendInitialEvents", "FieldValueForbidden",
                "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled")]);
        var filter = Filters(request, type);
        var form = ResponseForm.Of(request);
        var from = request.Number("resourceVersion") is { } number and > 0 ? number : (long?)null;
        var http = request.Http;
        ObjectStore.Watcher begun;
        try
        {
            begun = store.Watch(type, from);
        }
        catch (KubeApiException told)
        {
            // A revision that cannot be served is told in the stream; only before that are there HTTP codes.
            var error = new MemoryStream();
            Line(error, "ERROR", Encoding.UTF8.GetBytes(Json.Text(told.ToStatus())));
            await Reply.BytesAsync(http, 200, error, form.ContentType);
            return;
        }
        using var watcher = begun;
        http.Response.StatusCode = 200;
        http.Response.ContentType = form.ContentType;
        http.Response.Headers.CacheControl = "no-cache, private";
        using var ends = CancellationTokenSource.CreateLinkedTokenSource(http.RequestAborted, serverStops);
        var output = http.Response.Body;
        await http.Response.StartAsync(ends.Token);
        await output.FlushAsync(ends.Token);

        // Real servers take a random time when the client gives none; a fixed half hour is one of those.
        var timeout = TimeSpan.FromSeconds(request.Number("timeoutSeconds") is { } seconds and > 0 ? seconds : 1800);
        var bookmarks = request.Flag("allowWatchBookmarks");
        using var over = new CancellationTokenSource(timeout, options.Time);
        var lines = new MemoryStream();
        var headings = true;
        try
        {
            while (true)
            {
                using var wait = CancellationTokenSource.CreateLinkedTokenSource(ends.Token, over.Token);
                using var bookmarkDue = new CancellationTokenSource(options.BookmarkInterval, options.Time);
                using var either = CancellationTokenSource.CreateLinkedTokenSource(wait.Token, bookmarkDue.Token);
                try
                {
                    if (!await watcher.Changes.WaitToReadAsync(either.Token))
                        return;
                }
                catch (OperationCanceledException) when (!ends.IsCancellationRequested && !over.IsCancellationRequested)
                {
                    if (bookmarks && watcher.Settled() is { } settled)
                    {
                        Bookmark(output: lines, type, request.Version, settled);
                        await SendAsync(lines, output, ends.Token);
                    }
                    continue;
                }
                while (lines.Length < 256 * 1024 && watcher.Changes.TryRead(out var change))
                    Event(lines, change, type, request.Version, filter, form, ref headings);
                await SendAsync(lines, output, ends.Token);
            }
        }
        catch (OperationCanceledException) when (!http.RequestAborted.IsCancellationRequested && !serverStops.IsCancellationRequested)
        {
            if (bookmarks && watcher.Settled() is { } settled)
            {
                Bookmark(lines, type, request.Version, settled);
                await SendAsync(lines, output, ends.Token);
            }
        }
        catch (OperationCanceledException)
        {
            // The client or the server goes; there is nobody to tell.
        }
        catch (KubeApiException told)
        {
            Line(lines, "ERROR", Encoding.UTF8.GetBytes(Json.Text(told.ToStatus())));
            await SendAsync(lines, output, ends.Token);
        }
    }

    private static async Task SendAsync(MemoryStream lines, Stream output, CancellationToken stop)
    {
        if (lines.Length == 0)
            return;
        await output.WriteAsync(lines.GetBuffer().AsMemory(0, (int)lines.Length), stop);
        await output.FlushAsync(stop);
        lines.SetLength(0);
    }

    private static void Line(MemoryStream lines, string kind, ReadOnlySpan<byte> payload)
    {
        lines.Write(Encoding.UTF8.GetBytes($"{{\"type\":\"{kind}\",\"object\":"));
        lines.Write(payload);
        lines.Write("}\n"u8);
    }

    private static void Bookmark(MemoryStream output, ResourceType type, string version, long revision) =>
        Line(output, "BOOKMARK", Encoding.UTF8.GetBytes(Json.Text(new JsonObject
        {
            ["kind"] = type.Kind,
            ["apiVersion"] = type.ApiVersion(version),
            ["metadata"] = new JsonObject { ["resourceVersion"] = Text(revision), ["creationTimestamp"] = null },
        })));

    private void Event(MemoryStream lines, Change change, ResourceType type, string version, Filter filter, ResponseForm form, ref bool headings)
    {
        var was = change.Before is not null && filter.Matches(change.Before);
        var isNow = change.After is not null && filter.Matches(change.After);
        if (!was && !isNow)
            return;
        var kind = !was ? "ADDED" : isNow ? "MODIFIED" : "DELETED";
        var shown = isNow ? change.After! : change.Removed ?? new StoredObject(type, AtRevision(change), change.Revision);
        lines.Write(Encoding.UTF8.GetBytes($"{{\"type\":\"{kind}\",\"object\":"));
        if (form.Table)
            Tables.Write(lines, type, version, [shown], form, [], options.Time, headings);
        else if (form.MetadataOnly)
            Tables.WritePartial(lines, shown);
        else
            shown.WriteTo(lines, version, bare: false);
        lines.Write("}\n"u8);
        headings = false;
    }

    /// <summary>An object that has left the selection is shown as it was while it belonged, with the revision of the change.</summary>
    private static JsonObject AtRevision(Change change)
    {
        var node = (JsonObject)change.Before!.Node.DeepClone();
        node["metadata"]!["resourceVersion"] = Text(change.Revision);
        return node;
    }
}
