using System.Collections.Immutable;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Door.Upstream;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>Which name of etcd's history a door takes over and which it has replaced; with real etcd and two doors it is tested with
/// the API server.</summary>
public sealed class SharedEraTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-era-").FullName;

    private string Record => Path.Combine(_directory, "door-lineage.json");

    private static RevisionEntry Head(long revision) =>
        new(revision, [], ImmutableSortedSet.Create(KeyOrder.Instance, new KeyVersion("a"u8, "1"u8, 1, revision, 1, 0)), listed: true);

    [Fact]
    public void Who_knows_nothing_takes_any_name_and_who_knows_it_minds_a_break()
    {
        var lineage = new Lineage(Record);
        Assert.False(lineage.IsOutdated("first", unbroken: true));
        var id = lineage.Adopt(7, "first", Head(100));
        Assert.NotEqual(7UL, id);
        foreach (var known in (Lineage[])[lineage, new Lineage(Record)])
        {
            Assert.False(known.IsOutdated("first", unbroken: true));
            Assert.True(known.IsOutdated("first", unbroken: false));
            // Somebody else noticed before us.
            Assert.False(known.IsOutdated("second", unbroken: false));
        }
        Assert.Equal(id, new Lineage(Record).Adopt(7, "first", Head(101)));
        Assert.Equal(id, new Lineage(null).Adopt(7, "first", Head(5)));
        Assert.NotEqual(id, new Lineage(null).Adopt(7, "second", Head(5)));
        Assert.NotEqual(id, new Lineage(null).Adopt(8, "first", Head(5)));
    }

    [Fact]
    public void An_etcd_restored_to_a_former_name_is_not_that_history_any_more()
    {
        var lineage = new Lineage(Record);
        lineage.Adopt(7, "first", Head(100));
        lineage.Adopt(7, "second", Head(50));
        Assert.True(new Lineage(Record).IsOutdated("first", unbroken: true));
        Assert.False(new Lineage(Record).IsOutdated("third", unbroken: true));
    }

    [Fact]
    public void A_record_from_before_names_were_shared_still_tells_of_a_break()
    {
        new Lineage(Record).Adopt(7, unbroken: true, Head(100));
        Assert.False(new Lineage(Record).IsOutdated("any", unbroken: true));
        Assert.True(new Lineage(Record).IsOutdated("any", unbroken: false));
        File.WriteAllText(Record, """{"EtcdClusterId":7,"Epoch":2,"Revision":100,"Digest":""}""");
        Assert.Null(new Lineage(Record).Era);
    }

    public void Dispose() => Directory.Delete(_directory, recursive: true);
}
