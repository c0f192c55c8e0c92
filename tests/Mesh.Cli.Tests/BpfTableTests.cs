using Mesh.Cli.Commands.Bpf;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath;
using Mesh.Model;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>What the kernel holds, in cilium-dbg's columns.</summary>
public sealed class BpfTableTests
{
    private static L3n4Addr Address(string ip, ushort port, L4Protocol protocol = L4Protocol.TCP) => new(IpAddr.Parse(ip), port, protocol);

    [Fact]
    public void Lb_list()
    {
        PinnedFrontend[] frontends =
        [
            new(Address("10.96.121.196", 80), 3, 1, ServiceAffinity.None,
            [
                new PinnedSegment(0, 1, true, 100, 251, [],
                    [
                        new PinnedBackend(4, Address("10.1.0.12", 8080), 1, BackendState.Active),
                        new PinnedBackend(5, Address("10.1.0.11", 8080), 1, BackendState.Draining),
                    ]),
                new PinnedSegment(1, 2, false, 100, 251, [], [new PinnedBackend(6, Address("10.2.0.11", 8080), 2, BackendState.Active)]),
            ]),
            new(Address("fd00::1", 53, L4Protocol.UDP), 4, 1, ServiceAffinity.Local, []),
        ];
        Assert.Equal(
            """
            SERVICE ADDRESS        BACKEND ADDRESS (REVNAT_ID) (SLOT)
            10.96.121.196:80/TCP   0.0.0.0:0 (3) (0) [ClusterIP, non-routable]                
                                   10.1.0.12:8080/TCP (3) (1)                                 
                                   10.1.0.11:8080/TCP (3) (2) [draining]                      
                                   10.2.0.11:8080/TCP (3) (3) [cluster 2 down, standby]       
            [fd00::1]:53/UDP       [::]:0 (4) (0) [ClusterIP, non-routable, affinity local]   

            """, BpfCommand.Table(BpfLbListCommand.Headers, BpfLbListCommand.Rows(frontends)));
    }

    private static readonly PinnedIPCacheEntry[] Cache =
    [
        new(IpPrefix.Parse("10.2.1.14/32"), 148732, IpAddr.Parse("172.18.0.5"), 1, 2),
        new(IpPrefix.Parse("10.2.1.0/24"), 6, IpAddr.Parse("172.18.0.5"), 1, 2),
        new(IpPrefix.Parse("0.0.0.0/0"), 2, null, 0, 0),
    ];

    [Fact]
    public void Ipcache_list() => Assert.Equal(
        """
        IP PREFIX/ADDRESS   IDENTITY
        10.2.1.14/32        identity=148732 encryptkey=0 tunnelendpoint=172.18.0.5, flags=<none>   
        10.2.1.0/24         identity=6 encryptkey=0 tunnelendpoint=172.18.0.5, flags=<none>        
        0.0.0.0/0           identity=2 encryptkey=0 tunnelendpoint=0.0.0.0, flags=<none>           

        """, BpfCommand.Table(BpfIPCacheListCommand.Headers, BpfIPCacheListCommand.Rows(Cache)));

    [Fact]
    public void Tunnel_list() => Assert.Equal(
        """
        TUNNEL     VALUE
        10.2.1.0   172.18.0.5:0   

        """, BpfCommand.Table(BpfTunnelListCommand.Headers, BpfTunnelListCommand.Rows(Cache)));
}
