using Etcdserverpb;
using Google.Protobuf;
using Grpc.Net.Client;

namespace Mesh.KVStore.Tests;

/// <summary>Writes keys that our own client never would.</summary>
internal static class RawPut
{
    public static async Task PutAsync(string endpoint, byte[] key, CancellationToken cancellation)
    {
        using var channel = GrpcChannel.ForAddress(endpoint);
        await new KV.KVClient(channel).PutAsync(
            new PutRequest { Key = ByteString.CopyFrom(key), Value = ByteString.CopyFromUtf8("x") }, cancellationToken: cancellation);
    }
}
