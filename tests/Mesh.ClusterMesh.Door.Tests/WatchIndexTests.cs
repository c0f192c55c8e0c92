using System.Text;
using CsCheck;
using Mesh.ClusterMesh.Door.Cache;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>The index tells exactly those whose ranges hold the key, whatever the ranges and whoever left meanwhile.</summary>
public sealed class WatchIndexTests
{
    private sealed class Listener : IRevisionListener
    {
        public bool Told { get; set; }

        public void Concerned(long revision) => Told = true;

        public void Replaced()
        {
        }

        public void Nudged()
        {
        }
    }

    private static readonly Gen<byte[]> Key = Gen.Char["ab/"].Array[1, 4].Select(chars => Encoding.UTF8.GetBytes(chars));

    private static readonly Gen<KeyRange> Range = Gen.OneOf(
        Key.Select(key => KeyRange.Prefix(key)),
        Key.Select(key => KeyRange.Single(key)),
        Gen.Select(Key, Key, (start, end) => KeyRange.Between(start, end)),
        Key.Select(key => KeyRange.Between(key, null)),
        Gen.Const(KeyRange.Between([0], null)));

    [Fact]
    public void Everybody_concerned_is_told_and_nobody_else() =>
        Gen.Select(Gen.Select(Range, Gen.Bool).Array[0, 12], Key.Array[1, 6]).Sample(sample =>
        {
            var (ranges, keys) = sample;
            var index = new WatchIndex();
            var all = Array.ConvertAll(ranges, one => (Range: one.Item1, Stays: one.Item2, Listener: new Listener()));
            foreach (var one in all)
                index.Add(one.Listener, one.Range);
            foreach (var one in all.Where(one => !one.Stays))
                index.Remove(one.Listener, one.Range);
            foreach (var key in keys)
            {
                foreach (var one in all)
                    one.Listener.Told = false;
                index.Tell(key, 7);
                Assert.All(all, one => Assert.Equal(one.Stays && one.Range.Contains(key), one.Listener.Told));
            }
        });
}
