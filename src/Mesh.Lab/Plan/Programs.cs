namespace Mesh.Lab.Plan;

/// <summary>The three executables of a lab, as absolute paths.</summary>
public sealed record Programs(string Mesh, string Agent, string ApiServer)
{
    /// <summary>Looks in the directory MESH_BIN, else beside the running program.</summary>
    /// <exception cref="LabException">One is missing; says where it was sought.</exception>
    public static Programs Find()
    {
        var directory = Environment.GetEnvironmentVariable("MESH_BIN") is { Length: > 0 } given
            ? Path.GetFullPath(given)
            : Path.GetDirectoryName(Environment.ProcessPath!)!;
        return new Programs(In(directory, "mesh"), In(directory, "mesh-agent"), In(directory, "clustermesh-apiserver"));
    }

    private static string In(string directory, string program)
    {
        var path = Path.Combine(directory, program);
        return File.Exists(path) ? path : throw new LabException(
            $"{program} is not in {directory}: run `make programs`, or set MESH_BIN to the directory that holds the three programs");
    }
}
