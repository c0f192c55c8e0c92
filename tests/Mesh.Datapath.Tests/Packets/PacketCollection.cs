namespace Mesh.Datapath.Tests.Packets;

/// <summary>One loaded node for all packet tests, which therefore run one after another.</summary>
[CollectionDefinition("packets")]
public sealed class PacketCollection : ICollectionFixture<PacketWorld>;
