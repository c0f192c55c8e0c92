using System.Net;
using System.Net.Sockets;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Tests.Kernel;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>
/// The socket hooks on a cgroup of their own, which this process joins for as long as the fixture lives, and a network namespace
/// whose loopback has the backends' addresses. Nothing has the virtual addresses, nor a route to them.
/// </summary>
public sealed class SocketWorld : IDisposable
{
    private static readonly string[] Hooks =
        ["connect4", "connect6", "sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6", "getpeername4", "getpeername6"];

    private readonly NamespaceThread _thread = new();
    private readonly BpfObject _object;
    private readonly List<BpfProgram> _programs = [];
    private readonly List<BpfLink> _links = [];
    private readonly BpfMap<uint, CounterValue> _counters;
    private readonly OwnCgroup _cgroup = new("mesh-packets");

    public SocketWorld()
    {
        _thread.Shell("""
            ip link set lo up
            for i in 1 2 3; do ip addr add 10.1.0.$i/32 dev lo; ip -6 addr add fd00:1::$i/128 dev lo nodad; done
            """);
        _object = BpfObject.Open(Objects.Path("socket.bpf.o"));
        _object.SetConstant("config", new NodeConfig { NodePortFirst = 30000, NodePortLast = 32767 });
        _object.Load();
        _counters = _object.Map<uint, CounterValue>("counters");
        Tables = new ServiceTables(_object);
        Tables.Clear();

        Attach();
    }

    internal ServiceTables Tables { get; }

    internal void Attach()
    {
        foreach (var hook in Hooks)
        {
            var program = _object.Program(hook);
            _programs.Add(program);
            _links.Add(BpfLink.AttachCgroup(program, _cgroup.Path));
        }
    }

    /// <summary>Another object on the same maps. The caller disposes it.</summary>
    internal BpfObject LoadBeside(string name)
    {
        var other = BpfObject.Open(Objects.Path(name));
        foreach (var map in other.MapNames.Where(_object.HasMap))
        {
            using var fd = _object.MapFd(map);
            other.Reuse(map, fd);
        }
        other.Load();
        return other;
    }

    internal BpfLink AttachToCgroup(BpfProgram program) => BpfLink.AttachCgroup(program, _cgroup.Path);

    /// <summary>Runs a command in the namespace of the sockets.</summary>
    internal string Shell(string command) => _thread.Shell(command);

    internal void Detach()
    {
        foreach (var link in _links)
        {
            // At once, although a process that is just being started may hold a copy of the descriptor.
            link.Detach();
            link.Dispose();
        }
        foreach (var program in _programs)
            program.Dispose();
        _links.Clear();
        _programs.Clear();
    }

    internal ulong Refused => PacketWorld.Sum(_counters.GetPerCpu(2 * (uint)DropReason.NoServiceBackend)!);

    /// <summary>Sockets belong to the namespace of the thread that makes them.</summary>
    internal T Run<T>(Func<T> function) => _thread.Run(function);

    internal static Socket Open(ProtocolType protocol, bool v6, bool dual = false)
    {
        var socket = new Socket(v6 ? AddressFamily.InterNetworkV6 : AddressFamily.InterNetwork,
            protocol == ProtocolType.Tcp ? SocketType.Stream : SocketType.Dgram, protocol)
        { ReceiveTimeout = 2000, SendTimeout = 2000 };
        if (v6)
            socket.DualMode = dual;
        return socket;
    }

    internal static Socket Serve(ProtocolType protocol, string address)
    {
        var at = IPEndPoint.Parse(address);
        var socket = Open(protocol, at.AddressFamily == AddressFamily.InterNetworkV6);
        socket.Bind(at);
        if (protocol == ProtocolType.Tcp)
            socket.Listen(256);
        return socket;
    }

    internal BpfMap<LbDatagramBackend, uint> DatagramBackends() => _object.Map<LbDatagramBackend, uint>("lb_datagram_backends");

    public void Dispose()
    {
        Detach();
        _cgroup.Dispose();
        Tables.Dispose();
        _counters.Dispose();
        _object.Dispose();
        _thread.Dispose();
    }
}
