using Mesh.Bpf;
using Mesh.Datapath.Tests.Kernel;

namespace Mesh.Datapath.Tests.Binding;

public sealed class BpfObjectTests
{
    private const string Counting = """
        struct limits { __u32 verdict; __u32 step; };
        const volatile __u32 unrelated = 9;
        const volatile struct limits limits = {};
        struct {
            __uint(type, BPF_MAP_TYPE_ARRAY);
            __uint(max_entries, 1);
            __uint(map_flags, BPF_F_MMAPABLE);
            __type(key, __u32);
            __type(value, __u64);
        } hits SEC(".maps");
        SEC("tc") int first(struct __sk_buff *skb)
        {
            __u32 zero = 0;
            __u64 *value = bpf_map_lookup_elem(&hits, &zero);
            if (value) *value += limits.step + unrelated - 9;
            return limits.verdict;
        }
        SEC("tc") int second(struct __sk_buff *skb)
        {
            __u32 zero = 0;
            __u64 *value = bpf_map_lookup_elem(&hits, &zero);
            if (value) *value += 1000;
            skb->mark = skb->mark + 1;
            return 0;
        }
        """;

    private static readonly byte[] Frame = new byte[64];

    private struct Limits
    {
        public uint Verdict;
        public uint Step;
    }

    [Fact]
    public void Constants_set_before_the_load_are_seen_by_the_program()
    {
        using var sample = CompiledObject.Open(Counting);
        sample.SetConstant("limits", new Limits { Verdict = 2, Step = 5 });
        sample.Load();
        using var program = sample.Program("first");
        using var hits = sample.Array<ulong>("hits");

        var result = program.TestRun(Frame, repeat: 3);

        Assert.Equal(2, result.ReturnValue);
        Assert.Equal(15ul, hits.Observe(0));
        Assert.Equal(Frame.Length, result.Packet.Length);
    }

    [Fact]
    public void A_context_goes_in_and_comes_back()
    {
        using var sample = CompiledObject.Open(Counting);
        sample.Load();
        using var program = sample.Program("second");
        var context = new SkBuff { Mark = 41 };

        program.TestRun(Frame, ref context);

        Assert.Equal(42u, context.Mark);
    }

    [Fact]
    public void Mistaken_names_and_sizes_are_answered_with_what_there_is()
    {
        using var sample = CompiledObject.Open(Counting);

        Assert.Contains("no constant named nothing", Refusal(() => sample.SetConstant("nothing", 1u)));
        Assert.Contains("limits has 8 bytes, Byte has 1", Refusal(() => sample.SetConstant("limits", (byte)1)));
        Assert.Contains("it has hits", Refusal(() => sample.SetPinPath("misses", "/x")));
        Assert.Contains("it has first, second", Refusal(() => sample.Program("third")));

        static string Refusal(Action mistake) => Assert.Throws<ArgumentException>(mistake).Message;
    }

    [Fact]
    public void A_second_load_takes_the_pinned_map_with_its_contents()
    {
        using var files = new BpfFileSystem();
        var pin = Path.Combine(files.Path, "hits");
        for (var i = 1; i <= 2; i++)
        {
            using var sample = CompiledObject.Open(Counting);
            sample.SetPinPath("hits", pin);
            sample.Load();
            using var program = sample.Program("second");
            program.TestRun(Frame);
        }

        using var hits = BpfMaps.OpenPinnedArray<ulong>(pin, readOnly: true);

        Assert.Equal(2000ul, hits.Observe(0));
    }

    [Fact]
    public void A_pinned_map_of_another_shape_is_refused_in_words()
    {
        using var files = new BpfFileSystem();
        var pin = Path.Combine(files.Path, "hits");
        using (var other = BpfMaps.Create("hits", MapInfo.TypeArray, 4, 8, 2, MapInfo.FlagMmapable))
            other.Pin(pin);
        using var sample = CompiledObject.Open(Counting);
        sample.SetPinPath("hits", pin);

        var error = Assert.Throws<BpfException>(sample.Load);

        Assert.Contains(pin, error.Message);
        Assert.Contains("parameter mismatch", error.Message);
    }

    [Fact]
    public void A_refused_program_is_named_with_the_verifiers_reason_in_one_line()
    {
        using var sample = CompiledObject.Open("""
            SEC("tc") int careless(struct __sk_buff *skb) { return *(int *)(long)skb->data; }
            """);

        var error = Assert.Throws<VerifierException>(sample.Load);

        Assert.StartsWith("sample: program careless was refused by the verifier: ", error.Message);
        Assert.Contains("invalid access to packet", error.Log);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void A_file_that_is_no_object_is_named()
    {
        var error = Assert.Throws<InvalidDataException>(() => BpfObject.Open("rubbish", new byte[100]));

        Assert.Contains("rubbish is not a 64-bit little-endian ELF object", error.Message);
    }

    [Fact]
    public void A_pinned_link_outlives_its_maker_and_changes_its_program_in_place()
    {
        using var files = new BpfFileSystem();
        using var space = new NetworkNamespace();
        var pin = Path.Combine(files.Path, "link");
        using var sample = CompiledObject.Open(Counting);
        sample.SetConstant("limits", new Limits { Verdict = 0, Step = 1 });
        sample.Load();
        using var first = sample.Program("first");
        using var second = sample.Program("second");
        using var hits = sample.Array<ulong>("hits");
        space.Shell("sh", "-c", "ip link set lo up");
        Assert.True(BpfFeatures.Probe().Tcx);

        space.Run(() =>
        {
            using var link = BpfLink.AttachTcx(first, 1);
            link.Pin(pin);
        });
        space.Shell("ping", "-c", "1", "127.0.0.1");
        var afterFirst = hits.Observe(0);
        using (var pinned = BpfLink.TryOpenPinned(pin)!)
        {
            Assert.Equal(1, pinned.Info().InterfaceIndex);
            pinned.Update(second);
        }
        space.Shell("ping", "-c", "1", "127.0.0.1");

        Assert.InRange(afterFirst, 2ul, 999ul);
        Assert.InRange(hits.Observe(0), 2000ul, 10_000ul);
        // The last reference detaches, a moment later.
        File.Delete(pin);
        Assert.True(SpinWait.SpinUntil(() =>
        {
            var before = hits.Observe(0);
            space.Shell("ping", "-c", "1", "127.0.0.1");
            return hits.Observe(0) == before;
        }, TimeSpan.FromSeconds(10)));
        Assert.Null(BpfLink.TryOpenPinned(pin));
    }

    [Fact]
    public void The_legacy_attach_counts_and_is_replaced_too()
    {
        using var space = new NetworkNamespace();
        using var sample = CompiledObject.Open(Counting);
        sample.SetConstant("limits", new Limits { Verdict = 0, Step = 1 });
        sample.Load();
        using var first = sample.Program("first");
        using var second = sample.Program("second");
        using var hits = sample.Array<ulong>("hits");
        space.Shell("sh", "-c", "ip link set lo up");

        space.Run(() => ClsactFilter.AttachIngress(first, 1));
        space.Shell("ping", "-c", "1", "127.0.0.1");
        Assert.InRange(hits.Observe(0), 2ul, 999ul);
        space.Run(() => ClsactFilter.AttachIngress(second, 1));
        space.Shell("ping", "-c", "1", "127.0.0.1");
        Assert.InRange(hits.Observe(0), 2000ul, 10_000ul);
        space.Run(() => ClsactFilter.DetachIngress(1));
        var before = hits.Observe(0);
        space.Shell("ping", "-c", "1", "127.0.0.1");

        Assert.Equal(before, hits.Observe(0));
    }
}
