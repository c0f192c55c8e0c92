global using BpfFileSystem = Mesh.TestKit.BpfFileSystem;
global using NetworkNamespace = Mesh.TestKit.NetworkNamespace;
global using Xunit;
