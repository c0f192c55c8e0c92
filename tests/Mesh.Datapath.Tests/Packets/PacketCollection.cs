namespace Mesh.Datapath.Tests.Packets;

/// <summary>One loaded node for all packet tests, which therefore run one after another.</summary>
[CollectionDefinition("packets")]
public sealed class PacketCollection : ICollectionFixture<PacketWorld>;

/// <summary>One cgroup that this process has joined for all tests with sockets, which therefore run one after another.</summary>
[CollectionDefinition("sockets")]
public sealed class SocketCollection : ICollectionFixture<SocketWorld>;
