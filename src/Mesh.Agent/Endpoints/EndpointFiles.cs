using System.Globalization;
using System.Text.Json;
using Mesh.AgentApi;

namespace Mesh.Agent.Endpoints;

/// <summary>
/// Registrations on disk, one file each, named by its id: STATE_DIR/endpoints/ID.json, with the body as it was registered. A file is
/// written aside, flushed and moved into place: after any crash it is the old one or the new one.
/// </summary>
internal sealed class EndpointFiles
{
    private const string Extension = ".json";
    private readonly string _directory;

    public EndpointFiles(string stateDirectory) => _directory = Path.Combine(stateDirectory, "endpoints");

    /// <param name="reject">Gets each file that cannot be used, and why; the file stays.</param>
    public IReadOnlyList<EndpointChangeRequest> ReadAll(Action<string, string> reject)
    {
        if (!Directory.Exists(_directory))
            return [];
        var read = new List<EndpointChangeRequest>();
        foreach (var path in Directory.EnumerateFiles(_directory, "*" + Extension).Order(StringComparer.Ordinal))
        {
            try
            {
                var endpoint = JsonSerializer.Deserialize(File.ReadAllBytes(path), AgentApiJson.Wire.EndpointChangeRequest);
                if (endpoint?.Id.ToString(CultureInfo.InvariantCulture) == Path.GetFileNameWithoutExtension(path))
                    read.Add(endpoint);
                else
                    reject(path, "its id is not its file's name: register the pod again and remove the file");
            }
            catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
            {
                reject(path, $"cannot be read ({e.Message}): register the pod again and remove the file");
            }
        }
        return read;
    }

    /// <exception cref="IOException">The registration is not safe on disk.</exception>
    public void Write(EndpointChangeRequest endpoint)
    {
        Directory.CreateDirectory(_directory);
        var path = PathOf(endpoint.Id);
        var aside = path + ".new";
        using (var file = new FileStream(aside, FileMode.Create, FileAccess.Write))
        {
            JsonSerializer.Serialize(file, endpoint, AgentApiJson.Indented.EndpointChangeRequest);
            file.Flush(flushToDisk: true);
        }
        File.Move(aside, path, overwrite: true);
    }

    public void Delete(long id)
    {
        if (Directory.Exists(_directory))
            File.Delete(PathOf(id));
    }

    private string PathOf(long id) => Path.Combine(_directory, id.ToString(CultureInfo.InvariantCulture) + Extension);
}
