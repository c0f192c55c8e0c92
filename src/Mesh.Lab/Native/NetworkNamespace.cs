using System.Net.Sockets;

namespace Mesh.Lab.Native;

/// <summary>
/// A network namespace with a name under /run/netns, where `ip netns` and `nsenter --net=` find it too.
/// A thread belongs to one namespace, so all work inside happens on a thread of its own that ends with the work.
/// </summary>
public static class NetworkNamespace
{
    private const string Directory = "/run/netns";

    public static string PathOf(string name) => $"{Directory}/{name}";

    public static bool Exists(string name) => File.Exists(PathOf(name));

    /// <summary>Makes an empty namespace with its loopback down, and runs <paramref name="setUp"/> inside.</summary>
    public static void Create(string name, Action setUp)
    {
        System.IO.Directory.CreateDirectory(Directory);
        using (new FileStream(PathOf(name), FileMode.CreateNew))
        {
            // The name: an empty file that the namespace is mounted over.
        }
        OnOwnThread<object?>(() =>
        {
            Libc.UnshareNetwork();
            Libc.Mount("/proc/thread-self/ns/net", PathOf(name), null, Libc.MS_BIND);
            setUp();
            return null;
        });
    }

    /// <summary>Takes the name away, if there is one; the namespace and its devices go when nothing else holds it.</summary>
    public static void Delete(string name)
    {
        var path = PathOf(name);
        // A crash between two mounts can leave more than one on the name.
        while (Libc.Unmount(path))
        {
        }
        File.Delete(path);
    }

    public static T Run<T>(string name, Func<T> work) => OnOwnThread(() =>
    {
        Libc.EnterNetworkNamespace(PathOf(name));
        return work();
    });

    /// <summary>A socket of the namespace; it may be used from any thread.</summary>
    public static Socket OpenSocket(string name, AddressFamily family, SocketType type, ProtocolType protocol) =>
        Run(name, () => new Socket(family, type, protocol));

    private static T OnOwnThread<T>(Func<T> work)
    {
        T result = default!;
        System.Runtime.ExceptionServices.ExceptionDispatchInfo? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                result = work();
            }
            catch (Exception e)
            {
                failure = System.Runtime.ExceptionServices.ExceptionDispatchInfo.Capture(e);
            }
        })
        { IsBackground = true };
        thread.Start();
        thread.Join();
        failure?.Throw();
        return result;
    }
}
