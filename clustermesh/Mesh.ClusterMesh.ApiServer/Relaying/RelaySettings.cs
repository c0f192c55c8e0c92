using System.Globalization;
using System.Net;
using Mesh.ClusterMesh.Relay;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace Mesh.ClusterMesh.ApiServer.Relaying;

/// <summary>What a relay in this process was asked to do; every value is possible.</summary>
public sealed record RelaySettings
{
    /// <summary>Own cluster: its file among the peers is for the others.</summary>
    public required string ClusterName { get; init; }

    /// <summary>Directory of the peers to mirror; may come into being later.</summary>
    public required string PeerDirectory { get; init; }

    /// <summary>Where GET /v1/cluster answers; null for nowhere.</summary>
    public ApiAddress? Api { get; init; }

    /// <summary>Directory of the cache's journal; null for a cache that ends with the process.</summary>
    public string? StateDir { get; init; }

    public RelayOptions Options { get; init; } = new();
}

/// <summary>localhost:PORT, which is loopback of both families, or IP:PORT.</summary>
/// <param name="EndPoint">Null for localhost.</param>
public sealed record ApiAddress(string Text, int Port, IPEndPoint? EndPoint)
{
    private const string Localhost = "localhost:";

    /// <summary>Null when the text is none.</summary>
    public static ApiAddress? Parse(string text)
    {
        if (text.StartsWith(Localhost, StringComparison.Ordinal))
        {
            return ushort.TryParse(text.AsSpan(Localhost.Length), NumberStyles.None, CultureInfo.InvariantCulture, out var port) && port > 0
                ? new ApiAddress(text, port, null)
                : null;
        }
        return text.Contains(':', StringComparison.Ordinal) && IPEndPoint.TryParse(text, out var endPoint) && endPoint.Port > 0
            ? new ApiAddress(text, endPoint.Port, endPoint)
            : null;
    }

    public void ListenOn(KestrelServerOptions kestrel)
    {
        if (EndPoint is null)
            kestrel.ListenLocalhost(Port);
        else
            kestrel.Listen(EndPoint);
    }
}
