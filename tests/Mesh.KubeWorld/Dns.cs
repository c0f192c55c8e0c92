using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Mesh.KubeApi;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeWorld;

/// <summary>The cluster's DNS: A and AAAA of Services (NAME.NAMESPACE.svc[.cluster.local]) and of the endpoints of headless ones; all else does
/// not exist. Over UDP.</summary>
internal sealed class Dns(KubeApiServer api, Socket socket)
{
    private const string Domain = ".svc.cluster.local";

    public async Task RunAsync(CancellationToken stop)
    {
        var buffer = new byte[1500];
        try
        {
            while (true)
            {
                try
                {
                    var got = await socket.ReceiveFromAsync(buffer, new IPEndPoint(IPAddress.Any, 0), stop);
                    if (Answer(buffer.AsSpan(0, got.ReceivedBytes)) is { } answer)
                        await socket.SendToAsync(answer, got.RemoteEndPoint, stop);
                }
                catch (SocketException)
                {
                    // Whoever asked is gone; it asks again if it is not.
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The cluster ends.
        }
    }

    /// <summary>Null for what is no question of ours.</summary>
    private byte[]? Answer(ReadOnlySpan<byte> question)
    {
        if (question.Length < 17 || BinaryPrimitives.ReadUInt16BigEndian(question[4..]) != 1)
            return null;
        var name = new StringBuilder();
        var at = 12;
        while (at < question.Length && question[at] is > 0 and < 64)
        {
            name.Append(name.Length > 0 ? "." : "").Append(Encoding.ASCII.GetString(question.Slice(at + 1, question[at])));
            at += question[at] + 1;
        }
        if (at + 5 > question.Length)
            return null;
        var type = BinaryPrimitives.ReadUInt16BigEndian(question[(at + 1)..]);
        var found = Addresses(name.ToString().ToLowerInvariant());
        AddressFamily? family = type switch { 1 => AddressFamily.InterNetwork, 28 => AddressFamily.InterNetworkV6, _ => null };
        var wanted = (found ?? []).Where(one => one.AddressFamily == family).Take(20).ToList();
        var answer = new List<byte>(question[..(at + 5)].ToArray());
        // Response, recursion as asked, authoritative; no such name when there is none.
        answer[2] = (byte)(0x84 | (question[2] & 1));
        answer[3] = (byte)(found is null ? 0x83 : 0x80);
        (answer[6], answer[7]) = (0, (byte)wanted.Count);
        for (var i = 8; i < 12; i++)
            answer[i] = 0;
        foreach (var address in wanted)
        {
            var bytes = address.GetAddressBytes();
            answer.AddRange([0xC0, 12, 0, (byte)type, 0, 1, 0, 0, 0, 1, 0, (byte)bytes.Length, .. bytes]);
        }
        return [.. answer];
    }

    /// <summary>Null when there is no such name.</summary>
    private List<IPAddress>? Addresses(string name)
    {
        if (name.EndsWith(".svc", StringComparison.Ordinal))
            name += ".cluster.local";
        if (!name.EndsWith(Domain, StringComparison.Ordinal) || name[..^Domain.Length].Split('.') is not [var service, var space]
            || api.Find("services", space, service) is not { } found)
            return null;
        var virtuals = found.Obj("spec").Arr("clusterIPs")?.Select(one => $"{one}").Where(one => one != "None").ToList() ?? [];
        if (virtuals.Count > 0)
            return [.. virtuals.Select(IPAddress.Parse)];
        return [.. api.List("endpointslices.discovery.k8s.io", space)
            .Where(slice => slice.Obj("metadata").Obj("labels").Str("kubernetes.io/service-name") == service)
            .SelectMany(slice => slice.Arr("endpoints").Objects())
            .Where(endpoint => endpoint.Obj("conditions").Bool("ready") != false)
            .SelectMany(endpoint => endpoint.Arr("addresses")!.Select(one => IPAddress.Parse($"{one}")))];
    }
}
