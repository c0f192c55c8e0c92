global using Xunit;
global using BpfFileSystem = Mesh.TestKit.BpfFileSystem;
global using NetworkNamespace = Mesh.TestKit.NetworkNamespace;
