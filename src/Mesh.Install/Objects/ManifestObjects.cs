using Mesh.Install.Text;

namespace Mesh.Install.Objects;

/// <summary>The objects of a manifest that a release keeps.</summary>
public static class ManifestObjects
{
    /// <exception cref="InstallException">It holds something that an installation of ours does not have.</exception>
    public static IReadOnlyList<KubeObject> Of(string manifest) =>
        [.. YamlText.Documents(manifest).Select(document => KubeObject.Parse(document, "the release's manifest"))];
}
