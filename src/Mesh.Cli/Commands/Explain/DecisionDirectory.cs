using System.Globalization;
using System.Text.Json;
using Mesh.ControlPlane.LoadBalancing.Decisions;
using Mesh.Model;

namespace Mesh.Cli.Commands.Explain;

/// <summary>SERVICE:PORT as it is written: a Service's name or a virtual address, and the number or the name of a port.</summary>
internal sealed record ServicePort(string Service, IpAddr? Address, string Port)
{
    /// <exception cref="CliException">It has no port.</exception>
    public static ServicePort Parse(string text)
    {
        var colon = text.LastIndexOf(':');
        var isNumber = colon >= 0 && colon < text.Length - 1 && text.AsSpan(colon + 1).IndexOfAnyExceptInRange('0', '9') < 0;
        if (colon <= 0 || colon == text.Length - 1 || (IpAddr.TryParse(text, out var bare) && bare.IsV6)
            || (isNumber && !(ushort.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out var number) && number > 0)))
            throw new CliException($"'{text}' names no port: write NAMESPACE/NAME:PORT, NAME:PORT, 10.96.0.10:PORT or [fd00::1]:PORT");
        var service = text[..colon].TrimStart('[').TrimEnd(']');
        return new ServicePort(service, IpAddr.TryParse(service, out var address) ? address : null, text[(colon + 1)..]);
    }

    /// <summary>Name of the Service, when it is named.</summary>
    public ServiceName? Name(string defaultNamespace)
    {
        if (Address is not null)
            return null;
        return Service.Split('/') is [var space, var name] ? new ServiceName(space, name) : new ServiceName(defaultNamespace, Service);
    }

    public bool Means(L3n4Addr frontend) => frontend.Address == Address && frontend.Port.ToString(CultureInfo.InvariantCulture) == Port;

    public bool Means(FrontendDecision frontend)
    {
        var (address, port) = Split(frontend.Address);
        return (Address is null || address == Address?.ToString()) && (port == Port || (frontend.PortName.Length > 0 && frontend.PortName == Port));
    }

    public override string ToString() => Address is { IsV6: true } ? $"[{Service}]:{Port}" : $"{Service}:{Port}";

    /// <summary>Of 10.96.0.10:80/TCP.</summary>
    private static (string Address, string Port) Split(string frontend)
    {
        var end = frontend.LastIndexOf('/');
        var colon = frontend.LastIndexOf(':', end);
        return (frontend[..colon].Trim('[', ']'), frontend[(colon + 1)..end]);
    }
}

/// <summary>What an agent has written down about its services; see its --state-dir.</summary>
internal sealed class DecisionDirectory(string stateDirectory)
{
    private readonly string _directory = DecisionJson.DirectoryOf(stateDirectory);

    /// <summary>Null when nothing is written about it.</summary>
    public ServiceDecision? Find(ServicePort wanted, string defaultNamespace)
    {
        if (wanted.Name(defaultNamespace) is { } name)
            return Read(Path.Combine(_directory, DecisionJson.FileOf(name)));
        if (!Directory.Exists(_directory))
            return null;
        return Directory.EnumerateFiles(_directory, "*.json").Select(Read)
            .FirstOrDefault(decision => decision?.Frontends.Any(frontend => frontend.Withheld is null && wanted.Means(frontend)) == true);
    }

    private static ServiceDecision? Read(string path)
    {
        try
        {
            return DecisionJson.Parse(File.ReadAllBytes(path));
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
        catch (Exception e) when (e is JsonException or UnauthorizedAccessException)
        {
            throw new CliException($"{path} cannot be read ({e.Message}): a running agent writes it anew when the service changes, or at its next start");
        }
    }
}
