using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Grpc.Net.Client;
using Mesh.ClusterMesh.Door.Serving;
using Mesh.Pki;

namespace Mesh.ClusterMesh.Door;

/// <summary>
/// Proves at each start, through real TLS connections to a loopback port, that the door refuses what it must: peers were once let
/// into every key of a mesh by one mount that silently switched roles off (CVE-2023-28114). It asks with certificates of an authority
/// that lives only as long as the test, so it needs no peer's key. Each refusal has a control that must be allowed, or a door that
/// refuses everything would pass.
/// </summary>
internal sealed class SelfTest(DoorListener listener, X509Certificate2 server, string cluster, CertificateAuthority authority)
{
    private static readonly TimeSpan CertificateLife = TimeSpan.FromMinutes(10);
    private static readonly TimeSpan CallTimeout = TimeSpan.FromSeconds(10);

    public static CertificateAuthority NewAuthority() => CertificateAuthority.Create("door self-test", CertificateLife);

    /// <summary>Null when the door holds, otherwise what it let through or could not answer.</summary>
    /// <param name="remote">Whether the shared user may read here at all.</param>
    /// <param name="twoViews">Whether remote and local readers must find different key spaces.</param>
    public async Task<string?> RunAsync(bool remote, bool twoViews, CancellationToken cancellation) =>
        (remote ? await TryReaderAsync("remote", cancellation) : await TryStrangerAsync("remote", cancellation))
        ?? (twoViews ? await TryViewsAsync(cancellation) : null)
        ?? await TryReaderAsync($"local-{cluster}", cancellation)
        ?? await TryAdminAsync(cancellation)
        ?? await TryStrangerAsync("nobody-in-particular", cancellation)
        ?? await TryForeignCertificateAsync(cancellation);

    private async Task<string?> TryReaderAsync(string user, CancellationToken cancellation)
    {
        using var channel = Connect(authority, user);
        var kv = new KV.KVClient(channel);
        return await AllowedAsync($"{user} reading the heartbeat", options => kv.RangeAsync(Read("cilium/.heartbeat", null), options), cancellation)
            ?? await RefusedAsync($"{user} reading all keys", options => kv.RangeAsync(Read("\0", "\0"), options), cancellation)
            ?? await RefusedAsync($"{user} reading cilium/", options => kv.RangeAsync(Read("cilium/", "cilium0"), options), cancellation)
            ?? await RefusedAsync($"{user} reading below its range", options => kv.RangeAsync(Read("cilium/.a", "cilium/.heartbeat0"), options), cancellation)
            ?? await RefusedAsync($"{user} watching all keys", options => WatchEverythingAsync(channel, options), cancellation)
            ?? await TryWritesAsync(user, channel, cancellation);
    }

    private async Task<string?> TryViewsAsync(CancellationToken cancellation)
    {
        try
        {
            var admin = await ClusterIdAsync($"admin-{cluster}", cancellation);
            var local = await ClusterIdAsync($"local-{cluster}", cancellation);
            return admin == local ? $"local-{cluster} is served the state instead of the cache" : null;
        }
        catch (RpcException e)
        {
            return $"asking both views failed: {e.Status}";
        }
    }

    private async Task<ulong> ClusterIdAsync(string user, CancellationToken cancellation)
    {
        using var channel = Connect(authority, user);
        return (await new KV.KVClient(channel).RangeAsync(Read("cilium/.heartbeat", null), Options(cancellation))).Header.ClusterId;
    }

    private async Task<string?> TryAdminAsync(CancellationToken cancellation)
    {
        var user = $"admin-{cluster}";
        using var channel = Connect(authority, user);
        var kv = new KV.KVClient(channel);
        return await AllowedAsync($"{user} reading all keys",
                options => kv.RangeAsync(new RangeRequest { Key = Text("\0"), RangeEnd = Text("\0"), CountOnly = true }, options), cancellation)
            ?? await TryWritesAsync(user, channel, cancellation);
    }

    private async Task<string?> TryStrangerAsync(string user, CancellationToken cancellation)
    {
        using var channel = Connect(authority, user);
        var kv = new KV.KVClient(channel);
        return await RefusedAsync($"the user {user}, who has no right here, reading the heartbeat",
            options => kv.RangeAsync(Read("cilium/.heartbeat", null), options), cancellation);
    }

    private async Task<string?> TryForeignCertificateAsync(CancellationToken cancellation)
    {
        using var foreign = NewAuthority();
        using var channel = Connect(foreign, $"admin-{cluster}");
        try
        {
            await new KV.KVClient(channel).RangeAsync(Read("cilium/.heartbeat", null), Options(cancellation));
        }
        catch (RpcException e) when (e.StatusCode is StatusCode.Unavailable or StatusCode.Internal)
        {
            return null;
        }
        catch (RpcException e)
        {
            return $"a certificate of an unknown authority got as far as an answer: {e.Status}";
        }
        return "a certificate of an unknown authority was let in";
    }

    private static async Task<string?> TryWritesAsync(string user, GrpcChannel channel, CancellationToken cancellation)
    {
        var kv = new KV.KVClient(channel);
        var key = Text("cilium/.heartbeat");
        var txn = new TxnRequest { Success = { new RequestOp { RequestPut = new PutRequest { Key = key } } } };
        return await RefusedAsync($"{user} writing", options => kv.PutAsync(new PutRequest { Key = key }, options), cancellation)
            ?? await RefusedAsync($"{user} writing in a transaction", options => kv.TxnAsync(txn, options), cancellation)
            ?? await RefusedAsync($"{user} deleting", options => kv.DeleteRangeAsync(new DeleteRangeRequest { Key = key }, options), cancellation)
            ?? await RefusedAsync($"{user} compacting", options => kv.CompactAsync(new CompactionRequest { Revision = 1 }, options), cancellation);
    }

    private static async Task<string?> AllowedAsync<T>(string what, Func<CallOptions, AsyncUnaryCall<T>> call, CancellationToken cancellation)
    {
        try
        {
            await call(Options(cancellation));
            return null;
        }
        catch (RpcException e)
        {
            return $"{what} failed: {e.Status}";
        }
    }

    private static Task<string?> RefusedAsync<T>(string what, Func<CallOptions, AsyncUnaryCall<T>> call, CancellationToken cancellation) =>
        RefusedAsync(what, async options => { await call(options); }, cancellation);

    private static async Task<string?> RefusedAsync(string what, Func<CallOptions, Task> call, CancellationToken cancellation)
    {
        try
        {
            await call(Options(cancellation));
            return $"{what} was not refused";
        }
        catch (RpcException e)
        {
            return e.StatusCode == StatusCode.PermissionDenied ? null : $"{what} was not refused as it should be: {e.Status}";
        }
    }

    /// <summary>A watch is refused inside its stream; this makes it the same as a refused call.</summary>
    private static async Task WatchEverythingAsync(GrpcChannel channel, CallOptions options)
    {
        using var call = new Watch.WatchClient(channel).Watch(options);
        await call.RequestStream.WriteAsync(new WatchRequest { CreateRequest = new WatchCreateRequest { Key = Text("\0"), RangeEnd = Text("\0") } });
        await call.ResponseStream.MoveNext(options.CancellationToken);
        if (call.ResponseStream.Current is { Canceled: true } refused && refused.CancelReason.Contains("PermissionDenied", StringComparison.Ordinal))
            throw new RpcException(new Status(StatusCode.PermissionDenied, refused.CancelReason));
    }

    private GrpcChannel Connect(CertificateAuthority issuer, string user)
    {
        var issued = issuer.Issue(user, [], [], CertificateLife);
        var handler = new SocketsHttpHandler
        {
            SslOptions = new SslClientAuthenticationOptions
            {
                ClientCertificates = [X509Certificate2.CreateFromPem(issued.CertificatePem, issued.KeyPem)],
                // Not its names, which need not include loopback: that very certificate.
                RemoteCertificateValidationCallback = (_, certificate, _, _) => certificate is not null && certificate.Equals(server),
            },
        };
        return GrpcChannel.ForAddress($"https://{listener.Address}", new GrpcChannelOptions { HttpHandler = handler, DisposeHttpClient = true });
    }

    private static CallOptions Options(CancellationToken cancellation) =>
        new(deadline: DateTime.UtcNow + CallTimeout, cancellationToken: cancellation);

    private static RangeRequest Read(string key, string? end) =>
        new() { Key = Text(key), RangeEnd = end is null ? ByteString.Empty : Text(end), Limit = 1 };

    private static ByteString Text(string text) => ByteString.CopyFromUtf8(text);
}
