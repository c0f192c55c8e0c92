using CsCheck;
using Mesh.Datapath.LoadBalancing;

namespace Mesh.Datapath.Tests.LoadBalancing;

public sealed class RangeAllocatorTests
{
    [Fact]
    public void Runs_never_overlap_and_all_come_back() =>
        Gen.Select(Gen.UInt[1, 20], Gen.Int[0, 30]).Array[1, 200].Sample(steps =>
        {
            var allocator = new RangeAllocator("test", 1, 300);
            var held = new List<(uint Start, uint Length)>();
            foreach (var (length, which) in steps)
            {
                if (which % 3 == 0 && held.Count > 0)
                {
                    var run = held[which % held.Count];
                    held.Remove(run);
                    allocator.Free(run.Start, run.Length);
                }
                else if (allocator.TryAllocate(length) is { } start)
                {
                    Assert.True(start >= 1 && start + length <= 300);
                    Assert.DoesNotContain(held, run => start < run.Start + run.Length && run.Start < start + length);
                    held.Add((start, length));
                }
                Assert.Equal((uint)held.Sum(run => run.Length), allocator.Used);
            }
            foreach (var (start, length) in held)
                allocator.Free(start, length);
            Assert.Equal(0u, allocator.Used);
            Assert.Equal(1u, allocator.TryAllocate(299));
        });

    [Fact]
    public void A_reserved_run_is_given_to_nobody_and_cannot_be_reserved_twice()
    {
        var allocator = new RangeAllocator("test", 1, 100);

        Assert.True(allocator.TryReserve(10, 5));
        Assert.False(allocator.TryReserve(14, 1));
        Assert.False(allocator.TryReserve(98, 5));
        Assert.False(allocator.TryReserve(0, 1));
        Assert.Equal(1u, allocator.TryAllocate(9));
        Assert.Equal(15u, allocator.TryAllocate(1));
    }

    [Fact]
    public void Freeing_what_is_free_is_a_broken_invariant_not_a_silent_one()
    {
        var allocator = new RangeAllocator("test", 1, 100);

        Assert.Throws<InvalidOperationException>(() => allocator.Free(5, 2));
    }
}
