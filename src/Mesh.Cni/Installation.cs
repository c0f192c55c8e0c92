namespace Mesh.Cni;

/// <summary>
/// `mesh-cni install` and `mesh-cni uninstall`: the plugin in the directory where the container runtime looks for it. It is there whole or not
/// at all, also while runtimes call it; and our configuration goes only after the others have their names back.
/// </summary>
internal static class Installation
{
    private const string AsideExtension = ".cilium_bak";

    private const string Usage = """
        mesh-cni is a CNI plugin; the container runtime calls it with CNI_COMMAND. By hand:
          mesh-cni install   [--cni-bin-dir /opt/cni/bin] [--name cilium-cni]
          mesh-cni uninstall [--cni-bin-dir /opt/cni/bin] [--name cilium-cni] [--cni-conf-dir /etc/cni/net.d] [--cni-conf 05-cilium.conflist]
        """;

    /// <returns>Exit code.</returns>
    public static int Run(string[] arguments)
    {
        var options = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["--cni-bin-dir"] = "/opt/cni/bin",
            ["--name"] = "cilium-cni",
            ["--cni-conf-dir"] = "/etc/cni/net.d",
            ["--cni-conf"] = "05-cilium.conflist",
        };
        if (arguments is not ["install" or "uninstall", ..] || !Take(arguments[1..], options))
        {
            Console.Error.WriteLine(Usage);
            return arguments is ["--help" or "-h"] ? 0 : 2;
        }
        try
        {
            if (arguments[0] == "install")
                Install(options);
            else
                Uninstall(options);
            return 0;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Console.Error.WriteLine($"mesh-cni {arguments[0]}: {e.Message}");
            return 1;
        }
    }

    private static bool Take(string[] arguments, Dictionary<string, string> options)
    {
        for (var i = 0; i < arguments.Length; i++)
        {
            var (name, value) = arguments[i].IndexOf('=', StringComparison.Ordinal) is > 0 and var at
                ? (arguments[i][..at], arguments[i][(at + 1)..])
                : (arguments[i], i + 1 < arguments.Length ? arguments[++i] : "");
            if (!options.ContainsKey(name) || value.Length == 0 || (name is "--name" or "--cni-conf" && value.Contains('/')))
            {
                Console.Error.WriteLine($"mesh-cni: {name} '{value}': allowed are {string.Join(' ', options.Keys)}, each with a value");
                return false;
            }
            options[name] = value;
        }
        return true;
    }

    private static void Install(Dictionary<string, string> options)
    {
        var self = Environment.ProcessPath ?? throw new IOException("this program does not know its own path");
        var target = Path.Combine(options["--cni-bin-dir"], options["--name"]);
        Directory.CreateDirectory(options["--cni-bin-dir"]);
        // A name that no runtime calls, in the same directory, so that the rename is one step.
        var aside = Path.Combine(options["--cni-bin-dir"], $".{options["--name"]}.new");
        using (var from = File.OpenRead(self))
        using (var to = new FileStream(aside, FileMode.Create, FileAccess.Write))
        {
            from.CopyTo(to);
            to.Flush(flushToDisk: true);
        }
        File.SetUnixFileMode(aside, (UnixFileMode)0b111_101_101);
        File.Move(aside, target, overwrite: true);
        Console.WriteLine($"{target} installed");
    }

    private static void Uninstall(Dictionary<string, string> options)
    {
        var configurations = options["--cni-conf-dir"];
        if (Directory.Exists(configurations))
            foreach (var aside in Directory.EnumerateFiles(configurations, "*" + AsideExtension))
                if (!File.Exists(aside[..^AsideExtension.Length]))
                {
                    File.Move(aside, aside[..^AsideExtension.Length]);
                    Console.WriteLine($"{aside[..^AsideExtension.Length]} given back its name");
                }
        foreach (var path in (string[])[Path.Combine(configurations, options["--cni-conf"]), Path.Combine(options["--cni-bin-dir"], options["--name"])])
            if (File.Exists(path))
            {
                File.Delete(path);
                Console.WriteLine($"{path} removed");
            }
    }
}
