using System.Text.RegularExpressions;
using Mesh.Bpf.Btf;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Tests.Maps;

public sealed class AbiTests : IDisposable
{
    private readonly IReadOnlyList<Mesh.Bpf.BpfObject> _objects = DatapathObjects.OpenAll();

    private IReadOnlyList<(string Name, BtfReader Types)> Types => [.. _objects.Select(one => (one.Name, one.Types))];

    public void Dispose()
    {
        foreach (var one in _objects)
            one.Dispose();
    }

    [Fact]
    public void Every_struct_is_laid_out_alike_in_C_and_in_CSharp() => Assert.Empty(Abi.Compare(Abi.Layouts, Types));

    [Fact]
    public void A_shifted_member_is_named_with_both_places()
    {
        var shifted = Abi.Layouts.Select(layout => layout.Name != "lb_backend" ? layout : layout with
        {
            Members = [.. layout.Members.Select(member => member.Name == "state" ? member with { Offset = member.Offset + 1 } : member)],
        }).ToList();

        var differences = Abi.Compare(shifted, Types);

        Assert.NotEmpty(differences);
        Assert.All(differences, line => Assert.EndsWith("struct lb_backend: member state is 1 bytes at 19 in C, 1 at 20 in C#", line));
    }

    [Fact]
    public void A_missing_member_a_strange_one_and_a_grown_struct_are_named()
    {
        var changed = Abi.Layouts.Select(layout => layout.Name != "endpoint" ? layout : layout with
        {
            Size = layout.Size + 4,
            Members = [.. layout.Members.Where(member => member.Name != "flags"), new BtfMember("colour", 24, 4)],
        }).ToList();

        var text = string.Join("\n", Abi.Compare(changed, Types));

        Assert.Contains("struct endpoint has 24 bytes in C, 28 in C#", text);
        Assert.Contains("struct endpoint: member flags is not in C#", text);
        Assert.Contains("struct endpoint: member colour is not in C", text);
    }

    [Fact]
    public void A_struct_that_no_object_has_is_named() =>
        Assert.Equal(["struct lb_nothing: no BPF object uses it"], Abi.Compare([new BtfStruct("lb_nothing", 4, [])], Types));

    [Fact]
    public void Drop_reasons_carry_the_numbers_of_the_C_enum()
    {
        // Not in BTF: the compiler keeps only the numbers.
        var compiled = File.ReadLines(Header()).Select(line => Regex.Match(line, @"^\t(\w+) = (\d+),")).Where(match => match.Success)
            .ToDictionary(match => match.Groups[1].Value, match => long.Parse(match.Groups[2].Value));
        var ours = Enum.GetValues<DropReason>().ToDictionary(reason => Plain(reason.ToString()), reason => (long)reason);

        Assert.Equal(
            compiled.OrderBy(pair => pair.Value).Select(pair => (Plain(pair.Key.Replace("DROP_", "")), pair.Value)),
            ours.OrderBy(pair => pair.Value).Select(pair => (pair.Key, pair.Value)));

        static string Plain(string name) => name.Replace("_", "").ToUpperInvariant();

        static string Header()
        {
            for (var directory = new DirectoryInfo(AppContext.BaseDirectory); directory is not null; directory = directory.Parent)
                if (Path.Combine(directory.FullName, "bpf/include/mesh/drop.h") is var file && File.Exists(file))
                    return file;
            throw new FileNotFoundException("bpf/include/mesh/drop.h is in no directory above the test program");
        }
    }
}
