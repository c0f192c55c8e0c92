using System.Collections.Concurrent;
using System.Net.Sockets;
using System.Text;
using Etcdserverpb;
using Google.Protobuf;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>A client that does what no client may hurts only itself: a reader on another connection is served on.</summary>
public sealed class HostileTests : IAsyncLifetime
{
    private const string WatchPath = "/etcdserverpb.Watch/Watch";
    private const string RangePath = "/etcdserverpb.KV/Range";
    private EtcdServer _etcd = null!;
    private DoorUnderTest _door = null!;
    private StreamReading _neighbour = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _door = await DoorUnderTest.OpenAsync(_etcd);
        _neighbour = new StreamReading(_door.Channel("remote"), "cilium/state/");
        await Wait.UntilAsync(() => _neighbour.Created, "the neighbour");
    }

    public async ValueTask DisposeAsync()
    {
        await _neighbour.DisposeAsync();
        await _door.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    private async Task NeighbourIsServedAsync()
    {
        var value = Guid.NewGuid().ToString();
        await _etcd.EtcdctlAsync("put", "cilium/state/neighbour", value);
        await Wait.UntilAsync(() => _neighbour.Has("cilium/state/neighbour", value), "the neighbour's event", seconds: 5);
        Assert.Null(_neighbour.End);
    }

    /// <summary>A client, what it was answered, and whether its connection still stands.</summary>
    private sealed class Attacker : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private RawReader _raw = null!;
        private Task _reading = Task.CompletedTask;

        public ConcurrentQueue<string> Heard { get; } = new();

        public ConcurrentQueue<byte[]> Messages { get; } = new();

        public RawReader Raw => _raw;

        public bool Closed => _reading.IsCompleted || Heard.Contains("GoAway");

        public static async Task<Attacker> ConnectAsync(DoorUnderTest door)
        {
            var attacker = new Attacker
            {
                _raw = await RawReader.ConnectAsync("127.0.0.1", door.Door.Address!.Port, DoorUnderTest.TlsTo(door.As("remote"))),
            };
            attacker._raw.OnMessage = (_, bytes) => attacker.Messages.Enqueue(bytes.ToArray());
            attacker._raw.OnFrame = (kind, _, payload) =>
                attacker.Heard.Enqueue(kind == RawFrame.Headers ? Encoding.Latin1.GetString(payload) : kind.ToString());
            attacker._reading = attacker._raw.ReadAsync(attacker._stop.Token);
            return attacker;
        }

        public bool WasTold(string text) => Heard.Any(line => line.Contains(text, StringComparison.Ordinal));

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            await _reading.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await _raw.DisposeAsync();
            _stop.Dispose();
        }
    }

    [Theory]
    [InlineData("the message is cut off", "00000000640102", "in the middle of a message")]
    [InlineData("the message is too large", "007fffffff01", "received message larger than max")]
    [InlineData("the message is compressed", "010000000101", "Decompressor is not installed")]
    [InlineData("the message is no protobuf", "0000000004ffffffff", "error unmarshalling request")]
    [InlineData("there is no message", "", "the request has no message")]
    [InlineData("there are two messages", "00000000030a016100000000030a0161", "more than one message")]
    public async Task A_wrong_message_is_refused(string what, string hex, string answer)
    {
        await using var attacker = await Attacker.ConnectAsync(_door);
        await attacker.Raw.OpenAsync(1, RangePath);
        await attacker.Raw.SendFrameAsync(RawFrame.Data, 1, 1, Convert.FromHexString(hex));
        await Wait.UntilAsync(() => attacker.WasTold("grpc-status"), $"an answer when {what}");
        Assert.True(attacker.WasTold(answer), string.Join('\n', attacker.Heard));
        Assert.False(attacker.Closed);
        await NeighbourIsServedAsync();
    }

    [Fact]
    public async Task A_wrong_message_in_a_watch_stream_ends_that_stream_only()
    {
        await using var attacker = await Attacker.ConnectAsync(_door);
        await attacker.Raw.OpenAsync(1, WatchPath);
        await attacker.Raw.OpenAsync(3, WatchPath);
        await attacker.Raw.SendAsync(3, Create("cilium/state/"));
        await attacker.Raw.SendFrameAsync(RawFrame.Data, 0, 1, Convert.FromHexString("0000000004ffffffff"));
        await Wait.UntilAsync(() => attacker.WasTold("error unmarshalling"), "the refusal");
        await _etcd.EtcdctlAsync("put", "cilium/state/x", "1");
        await Wait.UntilAsync(() => attacker.Messages.Any(m => WatchResponse.Parser.ParseFrom(m).Events.Count > 0), "the other stream's event");
        await NeighbourIsServedAsync();
    }

    [Fact]
    public async Task Watches_by_the_thousand_on_one_stream_are_refused_beyond_the_limit()
    {
        await _door.ReopenAsync(options => options with { Limits = new DoorLimits { RequestsPerSecond = 100_000 } });
        await using var attacker = await Attacker.ConnectAsync(_door);
        await attacker.Raw.OpenAsync(1, WatchPath);
        for (var i = 0; i < 3000; i++)
            await attacker.Raw.SendAsync(1, Create("cilium/state/"));
        await Wait.UntilAsync(() => attacker.Messages.Count == 3000, "an answer to each");
        var answers = attacker.Messages.Select(m => WatchResponse.Parser.ParseFrom(m)).ToList();
        Assert.Equal(1000, answers.Count(answer => !answer.Canceled));
        Assert.All(answers.Where(answer => answer.Canceled), answer => Assert.Contains("too many requests", answer.CancelReason, StringComparison.Ordinal));
    }

    [Fact]
    public async Task Requests_above_the_rate_wait_and_the_neighbour_does_not()
    {
        await using var attacker = await Attacker.ConnectAsync(_door);
        await attacker.Raw.OpenAsync(1, WatchPath);
        for (var i = 0; i < 6000; i++)
            await attacker.Raw.SendAsync(1, new WatchRequest { CancelRequest = new WatchCancelRequest { WatchId = i } }.ToByteArray());
        await Wait.UntilAsync(() => _door.Door.Status.Delayed > 0, "the delay");
        await NeighbourIsServedAsync();
    }

    [Fact]
    public async Task Rapid_resets_cost_the_connection()
    {
        await using var attacker = await Attacker.ConnectAsync(_door);
        try
        {
            for (var i = 0; i < 5000 && !attacker.Closed; i++)
            {
                await attacker.Raw.OpenAsync((2 * i) + 1, RangePath);
                await attacker.Raw.ResetAsync((2 * i) + 1);
            }
        }
        catch (IOException)
        {
            // The door closed while we were sending.
        }
        await Wait.UntilAsync(() => attacker.Closed, "the connection to be cut");
        await NeighbourIsServedAsync();
    }

    [Theory]
    [InlineData("data on stream 0", 0, 0, "00")]
    [InlineData("data on a stream never opened", 0, 7, "00")]
    [InlineData("headers that are no HPACK", 1, 1, "ffffffffffffffff")]
    [InlineData("headers on an even stream", 1, 2, "82")]
    [InlineData("a setting that is none", 4, 0, "000400")]
    [InlineData("a continuation of nothing", 9, 1, "82")]
    [InlineData("a window update of zero", 8, 0, "00000000")]
    [InlineData("a ping of four bytes", 6, 0, "00000000")]
    public async Task A_wrong_frame_costs_the_connection(string what, int kind, int stream, string hex)
    {
        await using var attacker = await Attacker.ConnectAsync(_door);
        await attacker.Raw.SendFrameAsync((RawFrame)kind, 4, stream, Convert.FromHexString(hex));
        await Wait.UntilAsync(() => attacker.Closed, $"the connection to be cut after {what}");
        await NeighbourIsServedAsync();
    }

    [Fact]
    public async Task A_frame_larger_than_agreed_costs_the_connection()
    {
        await using var attacker = await Attacker.ConnectAsync(_door);
        await attacker.Raw.SendBytesAsync([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]);
        await Wait.UntilAsync(() => attacker.Closed, "the connection to be cut");
        await NeighbourIsServedAsync();
    }

    [Fact]
    public async Task Bytes_that_are_not_TLS_are_nobody_s_problem()
    {
        using var socket = new TcpClient();
        await socket.ConnectAsync(_door.Door.Address!, Cancellation);
        await socket.GetStream().WriteAsync("GET / HTTP/1.1\r\n\r\n"u8.ToArray(), Cancellation);
        Assert.True(await socket.GetStream().ReadAsync(new byte[1000], Cancellation).AsTask().WaitAsync(TimeSpan.FromSeconds(15), Cancellation) < 1000);
        await NeighbourIsServedAsync();
    }

    [Fact]
    public async Task One_address_gets_only_so_many_connections()
    {
        await _door.ReopenAsync(options => options with { Limits = new DoorLimits { ConnectionsPerAddress = 3 } });
        var attackers = new List<Attacker>();
        var refused = 0;
        for (var i = 0; i < 5; i++)
        {
            try
            {
                attackers.Add(await Attacker.ConnectAsync(_door));
            }
            catch (IOException)
            {
                refused++;
            }
        }
        await Wait.UntilAsync(() => refused + attackers.Count(attacker => attacker.Closed) == 2, "two to be closed");
        Assert.Equal(3, _door.Door.Status.Connections);
        foreach (var attacker in attackers)
            await attacker.DisposeAsync();
        await Wait.UntilAsync(() => _door.Door.Status.Connections == 0, "the others to be forgotten");
    }

    private static byte[] Create(string prefix) => new WatchRequest
    {
        CreateRequest = new WatchCreateRequest { Key = ByteString.CopyFromUtf8(prefix), RangeEnd = ByteString.CopyFromUtf8(prefix[..^1] + "0") },
    }.ToByteArray();
}
