using Mesh.Bpf;

namespace Mesh.Datapath.Tests.Kernel;

/// <summary>A BPF object compiled from a few lines of C, for what the product's own objects do not show.</summary>
internal static class CompiledObject
{
    private const string Prelude = """
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        char LICENSE[] SEC("license") = "GPL";
        """;

    internal static BpfObject Open(string source)
    {
        var directory = Directory.CreateTempSubdirectory("mesh-bpf-");
        try
        {
            var file = Path.Combine(directory.FullName, "sample.bpf.c");
            File.WriteAllText(file, Prelude + "\n" + source + "\n");
            var machine = Command.Run("uname", "-m").Trim();
            Command.Run("clang", "-g", "-O2", "-mcpu=v3", "-target", "bpf", $"-I/usr/include/{machine}-linux-gnu",
                "-c", file, "-o", file + ".o");
            return BpfObject.Open("sample", File.ReadAllBytes(file + ".o"));
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }
}
