namespace Mesh.KubeWorld.Nodes;

/// <summary>What an image runs when a container gives no command. Every image holds all programs under test and this machine's own.</summary>
internal static class Images
{
    /// <exception cref="InvalidOperationException">Nobody told what this image is.</exception>
    public static IReadOnlyList<string> EntryPoint(string image) => image.Split('/')[^1].Split(':')[0] switch
    {
        "agent" => ["/usr/bin/mesh-agent"],
        "operator" => ["/usr/bin/mesh-operator"],
        "clustermesh-apiserver" or "apiserver" => ["/usr/bin/clustermesh-apiserver"],
        var other => throw new InvalidOperationException($"image {image}: the container must say its command; '{other}' is no image of ours"),
    };
}
