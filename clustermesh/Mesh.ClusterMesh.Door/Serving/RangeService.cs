using System.Buffers;
using System.IO.Pipelines;
using Etcdserverpb;
using Grpc.Core;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Door.Protocol;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>KV.Range out of the cache. The answer is copied key by key into the connection, so a list of any length needs no buffer.</summary>
internal sealed class RangeService(DoorLimits limits, DoorCounters counters)
{
    private const int FlushBytes = 64 << 10;

    public async Task ServeAsync(GrpcCall call, DoorConnection connection)
    {
        var request = await call.ReadOnlyAsync(RangeRequest.Parser);
        if (request.Key.Length == 0)
            throw EtcdFault.EmptyKey();
        var range = KeyRange.Of(request.Key.Span, request.RangeEnd.Span);
        if (connection.Access is not { View: { } view } access || !access.Grants.Allows(range))
            throw EtcdFault.PermissionDenied();
        if (view.Confirmation is not null && !request.Serializable)
            await view.Confirmation.ConfirmAsync(call.Aborted);
        if (!view.Cache.IsReady)
            throw EtcdFault.NoLeader();
        var answer = RangeAnswer.Of(request, range, view.Cache.View);
        counters.Ranges.Increment();
        await WriteAsync(call, answer, () => connection.Access is var now && ReferenceEquals(now.View, view) && now.Grants.Allows(range));
        call.Finish(StatusCode.OK);
    }

    /// <param name="mayRead">Asked again before each part: a long answer to a slow reader is under way for minutes.</param>
    private async Task WriteAsync(GrpcCall call, RangeAnswer answer, Func<bool> mayRead)
    {
        var size = answer.Size();
        if (size > int.MaxValue)
            throw new EtcdFault(StatusCode.ResourceExhausted, $"the answer has {size} bytes: ask for it in pages (limit)");
        await call.StartAsync();
        // A reader that stops reading would pin the old versions of keys that its answer refers to.
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(call.Aborted);
        var output = call.Output;
        WriteHead(output, answer, (int)size);
        foreach (var key in answer.Keys)
        {
            WriteKey(output, key, answer.KeysOnly);
            if (output.UnflushedBytes < FlushBytes)
                continue;
            patience.CancelAfter(limits.StalledRange);
            await output.FlushAsync(patience.Token);
            if (!mayRead())
                throw EtcdFault.PermissionDenied();
        }
        WriteTail(output, answer);
        patience.CancelAfter(limits.StalledRange);
        await output.FlushAsync(patience.Token);
    }

    private static void WriteHead(PipeWriter output, RangeAnswer answer, int size)
    {
        var into = output.GetSpan(64);
        var at = Proto.WriteFramePrefix(into, size);
        at += ResponseHeaderBytes.WriteField(into[at..], answer.Ids, answer.Revision);
        output.Advance(at);
    }

    private static void WriteKey(PipeWriter output, KeyVersion key, bool keysOnly)
    {
        var length = keysOnly ? key.SizeWithoutValue : key.Message.Length;
        output.Advance(Proto.WriteLength(output.GetSpan(8), 2, length));
        if (!keysOnly)
        {
            output.Write(key.Message);
            return;
        }
        key.CopyWithoutValue(output.GetSpan(length));
        output.Advance(length);
    }

    private static void WriteTail(PipeWriter output, RangeAnswer answer)
    {
        var into = output.GetSpan(16);
        var at = Proto.WriteField(into, 3, answer.More ? 1u : 0u);
        at += Proto.WriteField(into[at..], 4, (ulong)answer.Count);
        output.Advance(at);
    }
}
