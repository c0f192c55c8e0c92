using System.Runtime.InteropServices;

namespace Mesh.Agent.Endpoints;

/// <summary>Interfaces of the network namespace this process runs in. Not by /sys, which shows the namespace it was mounted in.</summary>
internal static partial class Interfaces
{
    /// <summary>0 when there is no such interface.</summary>
    public static int IndexOf(string name) => (int)IfNameToIndex(name);

    [LibraryImport("libc", EntryPoint = "if_nametoindex", StringMarshalling = StringMarshalling.Utf8)]
    private static partial uint IfNameToIndex(string name);
}
