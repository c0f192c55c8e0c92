namespace Mesh.Cni;

/// <summary>What the runtime says by environment variables. Read strictly: they become names of devices, files and paths of the API.</summary>
/// <param name="Container">1 to 255 of letters, digits, '_', '.' and '-'.</param>
/// <param name="Space">Path of the network namespace; "" when there is none any more.</param>
/// <param name="Device">Name of the device in the container.</param>
internal sealed record CallEnvironment(string Container, string Space, string Device, IReadOnlyDictionary<string, string> Arguments)
{
    private const int LongestContainer = 255;
    private const int LongestDevice = 15;

    /// <summary>By which agent, notes and devices know this call's subject.</summary>
    public string Attachment => $"{Container}:{Device}";

    public string Namespace => Arguments.GetValueOrDefault("K8S_POD_NAMESPACE", "");

    public string Pod => Arguments.GetValueOrDefault("K8S_POD_NAME", "");

    /// <param name="isAdd">The pod's name and its namespace must be there.</param>
    /// <exception cref="CniException">Names the variables that are wrong.</exception>
    public static CallEnvironment Read(Func<string, string?> variable, bool isAdd, bool needsSpace)
    {
        var call = new CallEnvironment(variable("CNI_CONTAINERID") ?? "", variable("CNI_NETNS") ?? "", variable("CNI_IFNAME") ?? "",
            Split(variable("CNI_ARGS") ?? ""));
        var faults = new List<string>();
        if (!IsContainer(call.Container))
            faults.Add($"CNI_CONTAINERID '{call.Container}' must be 1 to {LongestContainer} of letters, digits, '_', '.' and '-'");
        if (!IsDevice(call.Device))
            faults.Add($"CNI_IFNAME '{call.Device}' must be a device's name of 1 to {LongestDevice} bytes without '/', ':' and blanks");
        if (needsSpace && call.Space.Length == 0)
            faults.Add("CNI_NETNS is empty: it must be the path of the container's network namespace");
        if (isAdd && (!IsObjectName(call.Namespace) || !IsObjectName(call.Pod)))
            faults.Add($"CNI_ARGS must name the pod: K8S_POD_NAMESPACE (now '{call.Namespace}') and K8S_POD_NAME (now '{call.Pod}')");
        return faults.Count == 0 ? call : throw new CniException(CniCode.BadEnvironment, string.Join("; ", faults));
    }

    private static Dictionary<string, string> Split(string text)
    {
        var arguments = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var part in text.Split(';', StringSplitOptions.RemoveEmptyEntries))
            if (part.IndexOf('=', StringComparison.Ordinal) is > 0 and var at)
                arguments[part[..at]] = part[(at + 1)..];
        return arguments;
    }

    private static bool IsContainer(string text) => text.Length is > 0 and <= LongestContainer && char.IsAsciiLetterOrDigit(text[0])
        && text.All(letter => char.IsAsciiLetterOrDigit(letter) || letter is '_' or '.' or '-');

    private static bool IsDevice(string text) => text.Length is > 0 and <= LongestDevice && text is not ("." or "..")
        && text.All(letter => letter is > ' ' and < (char)127 and not ('/' or ':'));

    private static bool IsObjectName(string text) => text.Length is > 0 and <= 253
        && text.All(letter => char.IsAsciiLetterLower(letter) || char.IsAsciiDigit(letter) || letter is '-' or '.');
}
