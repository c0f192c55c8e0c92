using CsCheck;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Model;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests.LoadBalancing;

/// <summary>Whatever is done in whatever order, and wherever the writer dies, the kernel shows each service as some row said.</summary>
public sealed class FrontendPropertyTests
{
    private static readonly string[] s_vips = ["10.96.0.1:80/TCP", "10.96.0.2:80/TCP", "10.96.0.2:53/UDP", "[fd00:96::1]:80/TCP"];

    /// <summary>A step is one row to set, or null to delete it.</summary>
    private static readonly Gen<(string Vip, Frontend? Row)> s_step =
        from vip in OneOf(s_vips)
        from delete in Gen.Int[0, 5]
        from affinity in OneOf(ServiceAffinity.None, ServiceAffinity.Local)
        from backends in Gen.Select(
            Gen.UInt[1, 4], Gen.Int[1, 6], Gen.Byte[0, 1], OneOf(BackendState.Active, BackendState.Draining)).Array[0, 8]
        select (vip, delete == 0 ? null : Row(vip, affinity, backends));

    [Fact]
    public void The_kernel_always_shows_the_model() => s_step.Array[1, 40].Sample(
        steps =>
        {
            using var node = new LbNode();
            var model = new Dictionary<L3n4Addr, Frontend>();
            foreach (var step in steps)
            {
                Do(node, model, step);
                Same(model, node);
            }
            Settled(model, node);
        },
        iter: 60, threads: 1);

    [Fact]
    public void A_crash_before_any_store_leaves_each_service_all_old_or_all_new() => Gen.Select(s_step.Array[1, 12], Gen.Int[0, 40]).Sample(
        (steps, storesBeforeCrash) =>
        {
            using var node = new LbNode();
            var model = new Dictionary<L3n4Addr, Frontend>();
            var stores = 0;
            node.Store.Failpoint = _ =>
            {
                if (stores++ == storesBeforeCrash)
                    throw new CrashException();
            };
            foreach (var step in steps)
            {
                var before = new Dictionary<L3n4Addr, Frontend>(model);
                try
                {
                    Do(node, model, step);
                }
                catch (CrashException)
                {
                    var after = new Dictionary<L3n4Addr, Frontend>(before);
                    Apply(after, step);
                    var seen = node.Read();
                    foreach (var address in before.Keys.Union(after.Keys).Union(seen.Keys))
                        Assert.Contains(Of(seen, address), new[] { Of(Texts(before), address), Of(Texts(after), address) });
                    Recover(node, after);
                    return;
                }
            }
        },
        iter: 250, threads: 1);

    private static Gen<T> OneOf<T>(params T[] values) => Gen.Int[0, values.Length - 1].Select(index => values[index]);

    private static void Recover(LbNode node, Dictionary<L3n4Addr, Frontend> desired)
    {
        node.Restart();
        Assert.Empty(node.Update([.. desired.Values]));
        node.Operations.Prune(desired);
        Same(desired, node);
        Settled(desired, node);
    }

    /// <summary>After a grace period nothing is held but what the rows need: nothing leaks.</summary>
    private static void Settled(Dictionary<L3n4Addr, Frontend> model, LbNode node)
    {
        node.Grace.Collect();
        Assert.Equal((uint)model.Count, node.Store.Ids.Used);
        Assert.Equal((uint)model.Values.Sum(row => row.Backends.Count), node.Store.Slots.Used);
    }

    private static void Do(LbNode node, Dictionary<L3n4Addr, Frontend> model, (string Vip, Frontend? Row) step)
    {
        if (step.Row is { } row)
            Assert.Empty(node.Update(row));
        else
            node.Delete(Address(step.Vip));
        Apply(model, step);
    }

    private static void Apply(Dictionary<L3n4Addr, Frontend> model, (string Vip, Frontend? Row) step)
    {
        if (step.Row is { } row)
            model[row.Address] = row;
        else
            model.Remove(Address(step.Vip));
    }

    private static void Same(Dictionary<L3n4Addr, Frontend> model, LbNode node) =>
        Assert.Equal(Texts(model).OrderBy(pair => pair.Key), node.Read().OrderBy(pair => pair.Key));

    private static Dictionary<L3n4Addr, string> Texts(Dictionary<L3n4Addr, Frontend> model) =>
        model.ToDictionary(pair => pair.Key, pair => LbNode.Text(pair.Value));

    private static string Of(IReadOnlyDictionary<L3n4Addr, string> texts, L3n4Addr address) =>
        texts.TryGetValue(address, out var text) ? text : "absent";

    private static Frontend Row(string vip, ServiceAffinity affinity, (uint Cluster, int Host, byte Tier, BackendState State)[] backends)
    {
        var v6 = vip[0] == '[';
        var protocol = vip[^3..];
        var distinct = backends.DistinctBy(backend => (backend.Cluster, backend.Host)).Select(backend => Backend(
            v6 ? $"[fd00:{backend.Cluster}::{backend.Host}]:80/{protocol}" : $"10.{backend.Cluster}.0.{backend.Host}:80/{protocol}",
            backend.Cluster, backend.Tier, backend.State));
        // Frontends of one service always say the same of a backend; these say anything, so they are of different services.
        return Frontend(vip, [.. distinct]) with { Affinity = affinity, Service = new ServiceName("default", vip) };
    }

    private sealed class CrashException : Exception;
}
